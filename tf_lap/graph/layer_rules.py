"""One channel rule per layer class: how a layer between kernels passes energy from its input channels to its output's.

A rule turns a `Call` into a `Flow`, or raises `Boundary` with the reason. `rule_tables` says which class has which
rule; those that only move channels about are in `layout_rules`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.channels import (
    Boundary,
    Call,
    Flow,
    averaged,
    format_axis,
    on_axis,
    require_axis,
    scaled,
    spread,
    summed,
)
from tf_lap.graph.energy_maps import Array, Identity, Reader, Scale, library
from tf_lap.graph.layout_rules import integers

# Layers that leave every channel alone.


def elementwise(call: Call) -> Flow:
    """Acts on every element, or on every channel, alike: energy passes unchanged."""
    return summed(call.inputs[:1], len(call.output))


def no_signal(call: Call) -> Flow:
    """The shape of a tensor, or a constant of its shape, has none of its channels."""
    raise Boundary("its output carries no channels")


def spatial(call: Call) -> Flow:
    """Pooling, padding, cropping, upsampling: moves along positions only, unchanged energy per channel."""
    (signal,) = call.inputs
    return on_axis(signal, _format_axis(call, len(signal.shape)), "acts on channels along")


def global_pooling(call: Call) -> Flow:
    """Reduces all positions to one, unchanged energy per channel."""
    (signal,) = call.inputs
    flow = on_axis(signal, _format_axis(call, len(signal.shape)), "keeps")
    return Flow((_format_axis(call, len(call.output)),) if flow.axes else (), flow.energy_map)


def _format_axis(call: Call, rank: int) -> int:
    """The channel axis that a layer, or a function of TensorFlow, is told of: "NCHW" and the like in the latter."""
    data_format = call.arguments.get("data_format")
    if isinstance(data_format, str) and data_format.startswith("NC"):
        return 1
    return format_axis(call.layer, rank)


def reduction(call: Call) -> Flow:
    """The mean, extremum, sum or norm over positions: unchanged energy per channel."""
    (signal,) = call.inputs
    rank, axis, keepdims = len(signal.shape), call.option("axis"), bool(call.option("keepdims"))
    over = range(rank) if axis is None else {a % rank for a in integers(axis, "axis")}
    flow = averaged(signal, [a for a in signal.axes if a not in over])
    if signal.axes and not flow.axes:
        raise Boundary(f"reduces its channels (axis {', '.join(map(str, signal.axes))})")
    if keepdims:
        return flow
    return Flow(tuple(a - sum(b < a for b in over) for a in flow.axes), flow.energy_map)


# Layers that scale channels.


def batch_normalization(call: Call) -> Flow:
    """At inference a scale of gamma / sqrt(moving_variance + epsilon) per channel."""
    layer, (signal, *_) = call.layer, call.inputs
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if len(axes) > 1:
        raise Boundary(f"normalizes several axes together: {axes}")
    require_axis(signal, axes[0], "normalizes")

    def squares(value: Reader) -> Array:
        inverse = 1.0 / (value(layer.moving_variance) + layer.epsilon)
        gamma = getattr(layer, "gamma", None)
        return inverse if gamma is None else inverse * squared(value(gamma))

    shape = _on_axes(signal.shape, axes)
    return scaled(signal, shape, squares)


def normalization_scale(weight: str, call: Call) -> Flow:
    """A normalization over data, whose spread is ignored: only its own learned scale counts, 1 where it has none."""
    layer, (signal, *_) = call.layer, call.inputs
    scale = getattr(layer, weight, None)
    shape = _on_axes(signal.shape, layer.axis)
    if scale is None and None in shape:
        return Flow(signal.axes, Identity())
    sizes = [1 if size is None else size for size in shape]

    def squares(value: Reader) -> Array:
        # Without a scale the places are told apart all the same, so that it counts like a scale of ones.
        ones_or_scale = value(np.ones(sizes, np.float32) if scale is None else scale)
        return library(ones_or_scale).reshape(squared(ones_or_scale), sizes)

    return scaled(signal, shape, squares)


def rescaling(call: Call) -> Flow:
    """Rescaling: times the square of its scale, a number or one a channel."""
    scale = call.layer.scale
    return scaled(call.inputs[0], tuple(tf.convert_to_tensor(scale).shape), lambda value: squared(value(scale)))


def data_normalization(call: Call) -> Flow:
    """Normalization with data statistics: over the variance, or times it where inverted."""
    layer = call.layer

    def squares(value: Reader) -> Array:
        variance = value(layer.variance)
        variance = library(variance).maximum(variance, keras.backend.epsilon() ** 2)
        return variance if layer.invert else 1.0 / variance

    return scaled(call.inputs[0], tuple(layer.variance.shape), squares)


def depthwise(call: Call, kernel_name: str) -> Flow:
    """A depthwise convolution: the sum of squares of each channel's taps; a depth multiplier repeats channels."""
    layer, (signal, *_) = call.layer, call.inputs
    axis = format_axis(layer, len(signal.shape))
    flow = on_axis(signal, axis, "convolves")
    kernel = getattr(layer, kernel_name)
    *taps, channels, multiplier = kernel.shape
    repeated = spread(channels, multiplier) if flow.axes else Identity()

    def filter_energies(value: Reader) -> Array:
        squares, over = squared(value(kernel)), tuple(range(len(taps)))
        if isinstance(squares, np.ndarray):
            return squares.sum(axis=over).reshape(-1)
        return tf.reshape(tf.reduce_sum(squares, axis=over), [-1])

    return Flow((axis,), flow.energy_map.then(repeated).then(Scale(filter_energies)))


def squared(array: Array) -> Array:
    """The squares of numbers, in either kind of array."""
    return array * array


def _on_axes(shape: tuple[int | None, ...], axes: int | list[int]) -> tuple[int | None, ...]:
    kept = {a % len(shape) for a in ([axes] if isinstance(axes, int) else axes)}
    return tuple(size if i in kept else 1 for i, size in enumerate(shape))


# Layers and operators of several inputs.


def merge(call: Call) -> Flow:
    """A sum, difference, extremum, choice or gate of tensors: the sum of their energies, broadcast over channels."""
    return summed(call.inputs, len(call.output))


def average(call: Call) -> Flow:
    """The mean of n tensors: the sum of their energies over n squared."""
    count, flow = len(call.inputs), merge(call)
    return Flow(flow.axes, flow.energy_map.then(Scale(lambda value: value(1 / count**2))))


def multiply(call: Call) -> Flow:
    """A product of tensors is a gate; with a constant, its square scales the energy."""
    operand = _constant_operand(call)
    if operand is None:
        return merge(call)
    factor, shape = operand
    return scaled(call.inputs[0], shape, lambda value: squared(value(factor)))


def divide(call: Call) -> Flow:
    """A tensor over a constant, or over a tensor without channels, which is a gate."""
    above, below = list(call.arguments.values())[:2]
    if len(call.inputs) > 1 or compat.constant_shape(above) is not None:
        raise Boundary("divides by a tensor of the network, which is no linear map of channels")
    shape = compat.constant_shape(below)
    if shape is None:
        return merge(call)
    return scaled(call.inputs[0], shape, lambda value: 1.0 / squared(value(below)))


def power(call: Call) -> Flow:
    """A tensor to the power of a constant acts on every element alike."""
    exponent = list(call.arguments.values())[1]
    if compat.constant_shape(exponent) is None:
        raise Boundary("takes powers by a tensor of the network, which is no linear map of channels")
    return elementwise(call)


def _constant_operand(call: Call) -> tuple[Any, tuple[int, ...]] | None:
    for operand in call.arguments.values():
        shape = compat.constant_shape(operand)
        if shape is not None:
            return operand, shape
    return None
