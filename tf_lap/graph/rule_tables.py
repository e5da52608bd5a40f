"""Which class of Keras 3 and of tf_keras has which rule, and which one has a kernel; subclasses inherit both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tf_lap import compat
from tf_lap.graph.channels import Call, ChannelRule, Flows
from tf_lap.graph.kernels import KernelRule
from tf_lap.graph.layer_rules import (
    average,
    batch_normalization,
    data_normalization,
    depthwise,
    divide,
    elementwise,
    global_pooling,
    merge,
    multiply,
    no_signal,
    normalization_scale,
    power,
    reduction,
    rescaling,
    spatial,
)
from tf_lap.graph.layout_rules import (
    concatenate,
    cut,
    depth_to_space,
    flatten,
    getitem,
    moveaxis,
    pad,
    permute,
    repeat_vector,
    reshape,
    space_to_depth,
    split,
    stack,
    swapaxes,
    transpose,
    unstack,
)
from tf_lap.graph.registry import FUNCTIONS, RULES

Rule = Callable[[Call], Flows]

# Layers that augment images do so in training alone, and count as they are at inference.
_LAYERS: dict[Rule, str] = {
    elementwise: """
        Activation ReLU LeakyReLU PReLU ELU Softmax Identity Masking ActivityRegularization
        Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
        ThresholdedReLU UnitNormalization Resizing CenterCrop RandomCrop RandomFlip RandomTranslation RandomRotation
        RandomZoom RandomHeight RandomWidth RandomShear RandomPerspective RandomElasticTransform RandomContrast
        RandomBrightness RandomSharpness RandomSaturation RandomHue RandomGrayscale RandomInvert RandomPosterization
        RandomColorDegeneration RandomColorJitter RandomGaussianBlur RandomErasing RandAugment AugMix MixUp CutMix
        MaxNumBoundingBoxes
    """,
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

_NUMPY_OPS: dict[Rule, str] = {
    elementwise: """
        Absolute Fabs Negative Reciprocal Exp Exp2 Expm1 Log Log1p Log2 Log10 Square Sqrt Cbrt Clip Sign Round Floor
        Ceil Trunc Sin Cos Tan Sinh Cosh Tanh Arcsin Arccos Arctan Arcsinh Arccosh Arctanh Copy NanToNum
    """,
    reduction: "Mean Max Min Amax Amin Sum",
    reshape: "Reshape ExpandDims Squeeze Ravel",
    transpose: "Transpose",
    swapaxes: "Swapaxes",
    moveaxis: "Moveaxis",
    getitem: "GetItem",
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

_NN_OPS: dict[Rule, str] = {
    elementwise: """
        Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus LogSigmoid
        LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold Softmax
        LogSoftmax Sparsemax Normalize
    """,
    spatial: "MaxPool AveragePool",
    depth_to_space: "DepthToSpace",
    space_to_depth: "SpaceToDepth",
}

# keras.activations.relu has an operation of its own, which is not that of keras.ops.relu.
_OWN_OPS: dict[Rule, str] = {elementwise: "ReLU"}
_CORE_OPS: dict[Rule, str] = {
    elementwise: "Cast ConvertToTensor SaturateCast StopGradient",
    unstack: "Unstack",
    cut: "Slice",
}
_MATH_OPS: dict[Rule, str] = {elementwise: "Rsqrt Erf"}
_LINALG_OPS: dict[Rule, str] = {reduction: "Norm"}


_separable = KernelRule("pointwise_kernel", before=functools.partial(depthwise, kernel_name="depthwise_kernel"))

_KERNELS: dict[KernelRule, str] = {
    KernelRule(): "Dense Conv1D Conv2D Conv3D",
    KernelRule(swapped=True): "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
    _separable: "SeparableConv1D SeparableConv2D",
}


# Which arguments carry channels, where it is not the first alone. The condition of a choice is none of them.
_CARRYING: dict[Rule, tuple[int, int | None]] = {
    **dict.fromkeys((merge, multiply, divide, power), (0, None)),
    no_signal: (0, 0),
}
_CHOICES = ("Where", "where")


def _channel_rule(rule: Rule, name: str) -> ChannelRule:
    return ChannelRule(rule, (1, None) if name in _CHOICES else _CARRYING.get(rule, (0, 1)))


def _install(namespace: Any, table: Mapping[Any, str]) -> None:
    for rule, names in table.items():
        for name in names.split():
            # Releases differ in what they ship; a class that is not there cannot be in a model either. And a rule that
            # a user registered before this module was imported stays.
            if hasattr(namespace, name):
                is_kernel = isinstance(rule, KernelRule)
                RULES.setdefault(getattr(namespace, name), rule if is_kernel else _channel_rule(rule, name))


def _install_layers(namespace: Any, depthwise_kernel: str) -> None:
    _install(namespace, _LAYERS)
    _install(namespace, _KERNELS)
    _install(namespace, {functools.partial(depthwise, kernel_name=depthwise_kernel): "DepthwiseConv1D DepthwiseConv2D"})


_install_layers(keras.layers, "kernel")
_install(compat.numpy_ops, _NUMPY_OPS)
_install(compat.nn_ops, _NN_OPS)
_install(compat.activation_ops, _OWN_OPS)
_install(compat.core_ops, _CORE_OPS)
_install(compat.math_ops, _MATH_OPS)
_install(compat.linalg_ops, _LINALG_OPS)


_ACTIVATION_LAYERS = "Activation ReLU LeakyReLU ThresholdedReLU PReLU ELU Softmax"
_ACTIVATION_OPS = """
    Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink Silu Squareplus LogSigmoid LeakyRelu HardSigmoid
    HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold Softmax Sparsemax
"""
_ACTIVATIONS = {getattr(keras.layers, name) for name in _ACTIVATION_LAYERS.split() if hasattr(keras.layers, name)}
_ACTIVATIONS |= {getattr(compat.nn_ops, name) for name in _ACTIVATION_OPS.split() if hasattr(compat.nn_ops, name)}
_ACTIVATIONS |= {compat.numpy_ops.Tanh, compat.activation_ops.ReLU}
# By the name that tf_keras knows the function by: tf.nn.sigmoid is its math.sigmoid, and tf.nn.swish its nn.silu.
_ACTIVATION_FUNCTIONS = """
    nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.softmax nn.softsign
    math.sigmoid math.tanh math.softplus math.log_sigmoid
"""


def activates(layer: Any) -> bool:
    """Whether a layer or operation is an activation, other than the linear one."""
    function = compat.function_name(layer)
    if function is not None:
        return function in _ACTIVATION_FUNCTIONS.split()
    return any(isinstance(layer, cls) for cls in _ACTIVATIONS) and own_activation(layer, True)


def own_activation(layer: Any, without: bool = False) -> bool:
    """Whether a layer's own `activation` is not the linear one; `without` is the answer where it has none."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return without
    return getattr(activation, "__name__", "") not in ("linear", "identity")


# TensorFlow's functions of symbolic tensors, which tf_keras wraps into layers: by the name that it knows them by, below
# `tf.` and without `compat.v1.`, which it puts before those that the function of this name calls itself.
_FUNCTIONS: dict[Rule, str] = {
    elementwise: """
        nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.softmax nn.log_softmax nn.softsign nn.dropout
        nn.bias_add math.sigmoid math.tanh math.abs math.negative math.exp math.expm1 math.log math.log1p math.square
        math.sqrt math.rsqrt math.reciprocal math.erf math.sign math.sin math.cos math.floor math.ceil math.round
        math.softplus math.log_sigmoid math.l2_normalize clip_by_value cast identity stop_gradient ensure_shape
    """,
    reduction: "math.reduce_mean math.reduce_max math.reduce_min math.reduce_sum norm",
    spatial: """
        nn.max_pool1d nn.max_pool2d nn.max_pool3d nn.avg_pool nn.avg_pool1d
        nn.avg_pool2d nn.avg_pool3d image.resize
    """,
    reshape: "reshape expand_dims squeeze",
    transpose: "transpose",
    getitem: "__operators__.getitem",
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
    """Fills the tables for tf_keras too; done once a model of it is seen."""
    if not FUNCTIONS:
        legacy = compat.tf_keras_module()
        _install_layers(legacy.layers, "depthwise_kernel")
        _ACTIVATIONS.update(getattr(legacy.layers, name) for name in _ACTIVATION_LAYERS.split())
        for rule, names in _FUNCTIONS.items():
            FUNCTIONS.update((name, _channel_rule(rule, name)) for name in names.split())
