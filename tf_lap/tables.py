"""Which class of Keras 3 and of tf_keras has which rule, and which one has a kernel; subclasses inherit both."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

import keras

from tf_lap import compat
from tf_lap.channels import Boundary, Call, Flow
from tf_lap.kernels import KernelRule
from tf_lap.registry import RULES, Rule
from tf_lap.rules import (
    average,
    batch_normalization,
    concatenate,
    data_normalization,
    depthwise,
    divide,
    elementwise,
    flatten,
    global_pooling,
    merge,
    multiply,
    normalization_scale,
    permute,
    reduction,
    repeat_vector,
    rescaling,
    reshape,
    spatial,
    transpose,
)

_LAYERS: dict[Rule, str] = {
    elementwise: """
        Activation ReLU LeakyReLU PReLU ELU Softmax Identity Masking ActivityRegularization
        Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
        Resizing CenterCrop RandomCrop RandomFlip RandomTranslation RandomRotation RandomZoom RandomContrast
        RandomBrightness UnitNormalization
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
        Abs Absolute Negative Tanh Exp Expm1 Log Log1p Square Sqrt Clip Sign Sin Cos Round Floor Ceil
        Copy NanToNum
    """,
    reduction: "Mean Max Min Amax Amin Sum",
    reshape: "Reshape ExpandDims Squeeze Ravel",
    transpose: "Transpose",
    merge: "Add Subtract Maximum Minimum",
    multiply: "Multiply",
    divide: "Divide TrueDivide",
    concatenate: "Concatenate",
}

_NN_OPS: dict[Rule, str] = {
    elementwise: """
        Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus LogSigmoid
        LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold Softmax
        LogSoftmax Sparsemax
    """,
    spatial: "MaxPool AveragePool",
}

_CORE_OPS: dict[Rule, str] = {elementwise: "Cast SaturateCast StopGradient"}
_MATH_OPS: dict[Rule, str] = {elementwise: "Rsqrt Erf"}


_separable = KernelRule("pointwise_kernel", before=functools.partial(depthwise, kernel_name="depthwise_kernel"))

_KERNELS: dict[KernelRule, str] = {
    KernelRule(): "Dense Conv1D Conv2D Conv3D",
    KernelRule(swapped=True): "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
    _separable: "SeparableConv1D SeparableConv2D",
}


def _install(namespace: Any, table: Mapping[Any, str]) -> None:
    for rule, names in table.items():
        for name in names.split():
            # Releases differ in what they ship; a class that is not there cannot be in a model either. And a rule that
            # a user registered before this module was imported stays.
            if hasattr(namespace, name):
                RULES.setdefault(getattr(namespace, name), rule)


def _install_layers(namespace: Any, depthwise_kernel: str) -> None:
    _install(namespace, _LAYERS)
    _install(namespace, _KERNELS)
    _install(namespace, {functools.partial(depthwise, kernel_name=depthwise_kernel): "DepthwiseConv1D DepthwiseConv2D"})


_install_layers(keras.layers, "kernel")
_install(compat.numpy_ops, _NUMPY_OPS)
_install(compat.nn_ops, _NN_OPS)
_install(compat.core_ops, _CORE_OPS)
_install(compat.math_ops, _MATH_OPS)


_ACTIVATION_LAYERS = "Activation ReLU LeakyReLU PReLU ELU Softmax"
_ACTIVATION_OPS = """
    Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink Silu Squareplus LogSigmoid LeakyRelu HardSigmoid
    HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold Softmax Sparsemax
"""
_ACTIVATIONS = {getattr(keras.layers, name) for name in _ACTIVATION_LAYERS.split()}
_ACTIVATIONS |= {getattr(compat.nn_ops, name) for name in _ACTIVATION_OPS.split() if hasattr(compat.nn_ops, name)}
_ACTIVATIONS.add(compat.numpy_ops.Tanh)
_ACTIVATION_SYMBOLS = """
    nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.swish nn.softmax nn.sigmoid nn.tanh nn.softplus
    nn.softsign math.sigmoid math.tanh math.softplus
"""


def activates(layer: Any) -> bool:
    """Whether a layer or operation is an activation, other than the linear one."""
    if hasattr(layer, "symbol"):
        return layer.symbol in _ACTIVATION_SYMBOLS.split()
    return any(isinstance(layer, cls) for cls in _ACTIVATIONS) and own_activation(layer, True)


def own_activation(layer: Any, without: bool = False) -> bool:
    """Whether a layer's own `activation` is not the linear one; `without` is the answer where it has none."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return without
    return getattr(activation, "__name__", "") not in ("linear", "identity")


def install_tf_keras() -> None:
    """Fills the table with the layers of tf_keras too; done once a model of it is seen."""
    legacy = compat.tf_keras_module()
    if legacy.Operator not in RULES:
        _install_layers(legacy.layers, "depthwise_kernel")
        _ACTIVATIONS.update(getattr(legacy.layers, name) for name in _ACTIVATION_LAYERS.split())
        RULES[legacy.Operator] = operator


# TensorFlow's functions of symbolic tensors, which tf_keras wraps into layers: by the function's name below `tf.`

_OPERATORS: dict[Rule, str] = {
    elementwise: """
        nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.swish nn.softmax nn.log_softmax nn.sigmoid
        nn.tanh nn.softplus nn.softsign nn.dropout math.sigmoid math.tanh math.abs math.negative math.exp math.log
        math.square math.sqrt math.sign math.softplus __operators__.neg clip_by_value cast identity stop_gradient
    """,
    reduction: "math.reduce_mean math.reduce_max math.reduce_min math.reduce_sum",
    reshape: "reshape expand_dims squeeze",
    transpose: "transpose",
    merge: "math.add __operators__.add math.add_n math.subtract math.maximum math.minimum",
    multiply: "math.multiply",
    divide: "math.divide math.truediv",
    concatenate: "concat",
}
_BY_NAME = {name: rule for rule, names in _OPERATORS.items() for name in names.split()}


def operator(call: Call) -> Flow:
    """`x + y`, `tf.nn.relu(x)` and the like in a tf_keras model."""
    name = call.layer.symbol
    if name not in _BY_NAME:
        raise Boundary(f"tf.{name} has no channel rule")
    arguments = inspect.signature(call.layer.function).bind(*call.args, **call.kwargs).arguments
    options = {
        "axis": arguments.get("axis"),
        "keepdims": bool(arguments.get("keepdims")),
        "axes": arguments.get("perm"),
    }
    return _BY_NAME[name](dataclasses.replace(call, layer=types.SimpleNamespace(name=call.layer.name, **options)))
