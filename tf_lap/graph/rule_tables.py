"""Which class of Keras 3 and of tf_keras has which rule, and which one has a kernel; subclasses inherit both."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from types import ModuleType

import keras

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.channels import ChannelRule, RuleFunction
from tf_lap.graph.composite import CompositeRule, make_kernel_rule
from tf_lap.graph.depthwise_rules import find_separable_kernels, follow_separable, make_depthwise_rule
from tf_lap.graph.embedding_rules import (
    find_embedding_kernels,
    find_position_kernels,
    find_reversible_kernels,
    follow_embedding,
    follow_position_embedding,
    follow_reversible,
)
from tf_lap.graph.indexing_rules import cut, getitem, split, unstack
from tf_lap.graph.kernels import find_transposed_layout
from tf_lap.graph.layer_rules import (
    average,
    batch_normalization,
    data_normalization,
    divide,
    elementwise,
    global_pooling,
    merge,
    multiply,
    no_signal,
    normalization_scale,
    normalizing,
    power,
    reduction,
    rescaling,
    rotary_embedding,
    spatial,
)
from tf_lap.graph.layout_rules import (
    concatenate,
    depth_to_space,
    flatten,
    flip,
    moveaxis,
    pad,
    permute,
    repeat,
    repeat_vector,
    reshape,
    space_to_depth,
    stack,
    swapaxes,
    transpose,
)
from tf_lap.graph.product_rules import (
    find_einsum_axes,
    find_einsum_layout,
    follow_additive_attention,
    follow_attention,
    follow_dot_product_attention,
    follow_einsum,
    follow_matmul,
)
from tf_lap.graph.recurrent_rules import (
    find_bidirectional_kernels,
    find_recurrent_kernels,
    follow_bidirectional,
    follow_recurrent,
)
from tf_lap.graph.registry import FUNCTIONS, RULES, Rule

# In each table: a rule, and the names of the classes or functions that have it.

# Layers that augment images do so only in training. At inference they leave every channel alone.
_LAYERS: dict[RuleFunction, str] = {
    elementwise: """
        Activation ReLU LeakyReLU PReLU ELU Identity ActivityRegularization
        Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
        ThresholdedReLU Resizing CenterCrop RandomCrop RandomFlip RandomTranslation RandomRotation
        RandomZoom RandomHeight RandomWidth RandomShear RandomPerspective RandomElasticTransform RandomContrast
        RandomBrightness RandomSharpness RandomSaturation RandomHue RandomGrayscale RandomInvert RandomPosterization
        RandomColorDegeneration RandomColorJitter RandomGaussianBlur RandomErasing RandAugment AugMix MixUp CutMix
        MaxNumBoundingBoxes
    """,
    normalizing: "Softmax UnitNormalization Masking",
    spatial: """
        MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
        AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
        AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
        ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D
        UpSampling1D UpSampling2D UpSampling3D
    """,
    global_pooling: """
        GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
        GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    """,
    repeat_vector: "RepeatVector",
    reshape: "Reshape",
    flatten: "Flatten",
    permute: "Permute",
    batch_normalization: "BatchNormalization",
    functools.partial(normalization_scale, "gamma"): "LayerNormalization GroupNormalization",
    functools.partial(normalization_scale, "scale"): "RMSNormalization",
    rescaling: "Rescaling",
    data_normalization: "Normalization",
    merge: "Add Subtract Maximum Minimum Multiply",
    average: "Average",
    concatenate: "Concatenate",
}

_NUMPY_OPS: dict[RuleFunction, str] = {
    elementwise: """
        Absolute Fabs Negative Reciprocal Exp Exp2 Expm1 Log Log1p Log2 Log10 Square Sqrt Cbrt Clip Sign Round Floor
        Ceil Trunc Sin Cos Tan Sinh Cosh Tanh Arcsin Arccos Arctan Arcsinh Arccosh Arctanh Copy NanToNum
    """,
    reduction: "Mean Max Min Amax Amin Sum Var Std",
    reshape: "Reshape ExpandDims Squeeze Ravel",
    transpose: "Transpose",
    swapaxes: "Swapaxes",
    moveaxis: "Moveaxis",
    getitem: "GetItem",
    repeat: "Repeat",
    flip: "Flip",
    split: "Split ArraySplit",
    stack: "Stack",
    pad: "Pad",
    merge: "Add Subtract Maximum Minimum Where",
    multiply: "Multiply",
    divide: "Divide TrueDivide",
    power: "Power",
    concatenate: "Concatenate",
    no_signal: "ZerosLike OnesLike FullLike",
}

_NN_OPS: dict[RuleFunction, str] = {
    elementwise: """
        Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus LogSigmoid
        LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold
    """,
    normalizing: "Softmax LogSoftmax Sparsemax Normalize",
    spatial: "MaxPool AveragePool",
    depth_to_space: "DepthToSpace",
    space_to_depth: "SpaceToDepth",
}

# The operation of keras.activations.relu is another class than that of keras.ops.relu.
_RELU_OPS: dict[RuleFunction, str] = {elementwise: "ReLU"}
_CORE_OPS: dict[RuleFunction, str] = {
    elementwise: "Cast ConvertToTensor SaturateCast StopGradient",
    unstack: "Unstack",
    cut: "Slice",
}
_MATH_OPS: dict[RuleFunction, str] = {elementwise: "Rsqrt Erf"}

_PRODUCT_OPS: dict[CompositeRule, str] = {
    CompositeRule(follow_einsum): "Einsum",
    CompositeRule(follow_matmul): "Matmul",
    CompositeRule(follow_dot_product_attention): "DotProductAttention",
}
_LINALG_OPS: dict[RuleFunction, str] = {reduction: "Norm"}


_KERNELS: dict[CompositeRule, str] = {
    make_kernel_rule(): "Dense Conv1D Conv2D Conv3D",
    make_kernel_rule(find_transposed_layout): "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
    make_kernel_rule(find_einsum_layout, find_einsum_axes): "EinsumDense",
    CompositeRule(follow_separable, find_separable_kernels, (0, 1)): "SeparableConv1D SeparableConv2D",
    CompositeRule(follow_additive_attention): "AdditiveAttention",
    CompositeRule(follow_embedding, find_embedding_kernels): "Embedding",
    CompositeRule(follow_reversible, find_reversible_kernels): "ReversibleEmbedding",
    CompositeRule(follow_recurrent, find_recurrent_kernels): "RNN",
    CompositeRule(follow_bidirectional, find_bidirectional_kernels): "Bidirectional",
    CompositeRule(follow_attention): "Attention",
    CompositeRule(follow_additive_attention): "AdditiveAttention",
}

# Layers of keras-hub that are not followed through their own `call`.
_HUB_LAYERS: dict[RuleFunction, str] = {rotary_embedding: "RotaryEmbedding"}
_HUB_KERNELS: dict[CompositeRule, str] = {
    CompositeRule(follow_position_embedding, find_position_kernels): "PositionEmbedding",
    # In older releases it is a class of its own, because Keras had none.
    CompositeRule(follow_reversible, find_reversible_kernels): "ReversibleEmbedding",
}


# Which arguments carry channels, where it is not only the first. See `ChannelRule.signal_range`.
_SIGNAL_RANGES: dict[RuleFunction, tuple[int, int | None]] = {
    **dict.fromkeys((merge, multiply, divide, power), (0, None)),
    no_signal: (0, 0),
}
# Their first argument is a condition.
_CHOICES = ("Where", "where")


def _make_channel_rule(rule: RuleFunction, name: str) -> ChannelRule:
    return ChannelRule(rule, (1, None) if name in _CHOICES else _SIGNAL_RANGES.get(rule, (0, 1)))


def _install(namespace: ModuleType, table: Mapping[RuleFunction, str]) -> None:
    """Puts channel rules of the classes of a table that are in a module into `RULES`."""
    for rule, names in table.items():
        for name in names.split():
            _install_rule(namespace, name, _make_channel_rule(rule, name))


def _install_rules(namespace: ModuleType, table: Mapping[CompositeRule, str]) -> None:
    """Puts the rules of the classes of a table that are in a module into `RULES`."""
    for rule, names in table.items():
        for name in names.split():
            _install_rule(namespace, name, rule)


def _install_rule(namespace: ModuleType, name: str, rule: Rule) -> None:
    # A class that this release does not have cannot be in a model either.
    if hasattr(namespace, name):
        # A rule that a user registered before this module was imported stays.
        RULES.setdefault(getattr(namespace, name), rule)


def _install_layers(namespace: ModuleType, depthwise_kernel: str) -> None:
    """Puts the layer classes of one of the two Kerases into `RULES`.

    Args:
        namespace: its module of layers.
        depthwise_kernel: the attribute in which its depthwise convolutions keep their kernel.
    """
    _install(namespace, _LAYERS)
    _install_rules(namespace, _KERNELS)
    _install_rules(namespace, {make_depthwise_rule(depthwise_kernel): "DepthwiseConv1D DepthwiseConv2D"})


_install_layers(keras.layers, "kernel")
_install(compat.numpy_ops, _NUMPY_OPS)
_install(compat.nn_ops, _NN_OPS)
_install(compat.activation_ops, _RELU_OPS)
_install(compat.core_ops, _CORE_OPS)
_install(compat.math_ops, _MATH_OPS)
_install(compat.linalg_ops, _LINALG_OPS)
_install_rules(compat.numpy_ops, _PRODUCT_OPS)
_install_rules(compat.nn_ops, _PRODUCT_OPS)


_ACTIVATION_LAYERS = "Activation ReLU LeakyReLU ThresholdedReLU PReLU ELU Softmax"
_ACTIVATION_OPS = """
    Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink Silu Squareplus LogSigmoid LeakyRelu HardSigmoid
    HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold Softmax Sparsemax
"""
_ACTIVATIONS = {getattr(keras.layers, name) for name in _ACTIVATION_LAYERS.split() if hasattr(keras.layers, name)}
_ACTIVATIONS |= {getattr(compat.nn_ops, name) for name in _ACTIVATION_OPS.split() if hasattr(compat.nn_ops, name)}
_ACTIVATIONS |= {compat.numpy_ops.Tanh, compat.activation_ops.ReLU}
# The names by which tf_keras knows the functions: tf.nn.sigmoid is its math.sigmoid, and tf.nn.swish its nn.silu.
_ACTIVATION_FUNCTIONS = """
    nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.softmax nn.softsign
    math.sigmoid math.tanh math.softplus math.log_sigmoid
"""


# Layers of Keras whose own `call` is made of layers and operations that have rules.
_TRANSPARENT = "MultiHeadAttention GroupedQueryAttention"


def is_transparent(layer: Layer) -> bool:
    """Whether a layer of Keras is followed through its own `call`, as users' layers are."""
    return type(layer).__name__ in _TRANSPARENT.split()


def is_activation(layer: Layer) -> bool:
    """Whether a layer or operation is an activation, other than the linear one."""
    function = compat.function_name(layer)
    if function is not None:
        return function in _ACTIVATION_FUNCTIONS.split()
    return any(isinstance(layer, cls) for cls in _ACTIVATIONS) and has_activation(layer, default=True)


def has_activation(layer: Layer, default: bool = False) -> bool:
    """Whether a layer's attribute `activation` is not the linear one; `default` for a layer without the attribute."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return default
    return getattr(activation, "__name__", "") not in ("linear", "identity")


# TensorFlow's functions of symbolic tensors, which tf_keras wraps into layers. Each has the name below `tf.` by which
# tf_keras knows it, without the `compat.v1.` that it puts before functions which TensorFlow's own functions call.
_FUNCTIONS: dict[RuleFunction, str] = {
    elementwise: """
        nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.softsign nn.dropout
        nn.bias_add math.sigmoid math.tanh math.abs math.negative math.exp math.expm1 math.log math.log1p math.square
        math.sqrt math.rsqrt math.reciprocal math.erf math.sign math.sin math.cos math.floor math.ceil math.round
        math.softplus math.log_sigmoid clip_by_value cast identity stop_gradient ensure_shape
    """,
    normalizing: "nn.softmax nn.log_softmax math.l2_normalize",
    reduction: "math.reduce_mean math.reduce_max math.reduce_min math.reduce_sum norm",
    spatial: """
        nn.max_pool1d nn.max_pool2d nn.max_pool3d nn.avg_pool nn.avg_pool1d
        nn.avg_pool2d nn.avg_pool3d image.resize
    """,
    reshape: "reshape expand_dims squeeze",
    transpose: "transpose",
    getitem: "__operators__.getitem",
    repeat: "repeat",
    flip: "reverse",
    cut: "slice",
    split: "split",
    unstack: "unstack",
    stack: "stack",
    pad: "pad",
    depth_to_space: "nn.depth_to_space",
    space_to_depth: "nn.space_to_depth",
    merge: "math.add __operators__.add math.add_n math.subtract math.maximum math.minimum where",
    multiply: "math.multiply",
    divide: "math.truediv",
    power: "math.pow",
    concatenate: "concat",
    no_signal: "shape size rank zeros_like ones_like",
}


def install_tf_keras() -> None:
    """Fills `RULES` and `FUNCTIONS` for tf_keras too. The first call does it; a model of tf_keras needs it."""
    if not FUNCTIONS:
        legacy = compat.tf_keras_module()
        _install_layers(legacy.layers, "depthwise_kernel")
        _ACTIVATIONS.update(getattr(legacy.layers, name) for name in _ACTIVATION_LAYERS.split())
        for rule, names in _FUNCTIONS.items():
            FUNCTIONS.update((name, _make_channel_rule(rule, name)) for name in names.split())
        FUNCTIONS.update({"einsum": CompositeRule(follow_einsum), "linalg.matmul": CompositeRule(follow_matmul)})


def install_keras_hub() -> None:
    """Puts the layers of keras-hub into `RULES` where the program has imported it: no model has them otherwise."""
    layers = getattr(sys.modules.get("keras_hub"), "layers", None)
    if layers is not None:
        _install(layers, _HUB_LAYERS)
        _install_rules(layers, _HUB_KERNELS)
