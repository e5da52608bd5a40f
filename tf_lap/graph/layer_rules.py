"""One channel rule per layer class: how a layer between kernels passes energy from its input channels to its output's.

A rule turns a `Call` into a `Flow`, or raises `Boundary` with the reason. `rule_tables` says which class has which
rule. The rules that only move channels are in `layout_rules`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lap.compat.types import Layer
from tf_lap.graph.arguments import read_constant_shape
from tf_lap.graph.channels import Boundary, Call, Flow, Shape, format_axis, format_shape, require_axis
from tf_lap.graph.energy_maps import Array, ChannelScale, Gather, Identity, Reader, array_module
from tf_lap.graph.flows import average_over_others, reduce_to_axis, scale_signal, sum_signals
from tf_lap.graph.layout_rules import read_integers

# Layers that do not change the energy of a channel.


def elementwise(call: Call) -> Flow:
    """A layer that acts on every element, or on every channel, in the same way: energy passes unchanged."""
    flow = sum_signals(call.inputs[:1], len(call.output))
    return dataclasses.replace(flow, fixed=explain_normalizing(call.layer, flow.axes, len(call.output)))


def normalizing(call: Call) -> Flow:
    """A softmax, a division by a norm, a mask: energy passes unchanged, but an element depends on all along an axis."""
    flow, axis = sum_signals(call.inputs[:1], len(call.output)), call.option("axis", "dim")
    axes = (-1,) if axis is None else read_integers(axis, "axis")
    return dataclasses.replace(flow, fixed=_explain_sharing(flow.axes, axes, len(call.output)))


def explain_normalizing(layer: Layer, axes: Iterable[int], rank: int) -> str:
    """Why no channel of a layer's output can be removed: its activation is a softmax over them. Empty otherwise."""
    activation = getattr(layer, "activation", None)
    is_normalizing = getattr(activation, "__name__", "") in ("softmax", "log_softmax", "sparsemax")
    return _explain_sharing(axes, (-1,), rank) if is_normalizing else ""


def _explain_sharing(channel_axes: Iterable[int], axes: Iterable[int], rank: int) -> str:
    """Why channels that are normalized together cannot be removed; empty where the axes are others."""
    shared = {axis % rank for axis in axes} & set(channel_axes)
    return f"takes all its channels together (axis {', '.join(map(str, sorted(shared)))})" if shared else ""


def no_signal(call: Call) -> Flow:
    """The shape of a tensor, or a constant of its shape: neither carries the tensor's channels."""
    raise Boundary("its output carries no channels")


def spatial(call: Call) -> Flow:
    """Pooling, padding, cropping, upsampling: acts on positions alone, so the energy of a channel is unchanged."""
    (signal,) = call.inputs
    return reduce_to_axis(signal, _format_axis(call, len(signal.shape)), "acts on channels along")


def global_pooling(call: Call) -> Flow:
    """Reduces all positions to one. The energy of a channel is unchanged."""
    (signal,) = call.inputs
    flow = reduce_to_axis(signal, _format_axis(call, len(signal.shape)), "keeps")
    return Flow((_format_axis(call, len(call.output)),) if flow.axes else (), flow.energy_map)


def _format_axis(call: Call, rank: int) -> int:
    """The channel axis that `data_format` names. Functions of TensorFlow write "NCHW" and the like."""
    data_format = call.arguments.get("data_format")
    if isinstance(data_format, str) and data_format.startswith("NC"):
        return 1
    return format_axis(call.layer, rank)


def reduction(call: Call) -> Flow:
    """The mean, extremum, sum or norm over positions. The energy of a channel is unchanged."""
    (signal,) = call.inputs
    rank, axis, keepdims = len(signal.shape), call.option("axis"), bool(call.option("keepdims"))
    reduced = range(rank) if axis is None else {a % rank for a in read_integers(axis, "axis")}
    flow = average_over_others(signal, [a for a in signal.axes if a not in reduced])
    if signal.axes and not flow.axes:
        raise Boundary(f"reduces its channels (axis {', '.join(map(str, signal.axes))})")
    if keepdims:
        return flow
    return Flow(tuple(a - sum(b < a for b in reduced) for a in flow.axes), flow.energy_map)


def rotary_embedding(call: Call) -> Flow:
    """keras-hub's RotaryEmbedding: turns channels d and d + n/2 of n in their plane, by angles that positions say.

    Over a long sequence the squares of sine and cosine are one half on average: either channel gets the mean energy of
    both.
    """
    (signal,) = call.inputs
    axis = call.layer.feature_axis % len(signal.shape)
    if axis not in signal.axes:
        return Flow(signal.axes, Identity())
    place, sizes = signal.axes.index(axis), signal.sizes()
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    partners = np.roll(numbers, sizes[place] // 2, axis=place)
    return Flow(signal.axes, Gather(np.stack([numbers.reshape(-1), partners.reshape(-1)], axis=1)))


# Layers that scale channels.


def batch_normalization(call: Call) -> Flow:
    """At inference a channel is scaled by gamma / sqrt(moving_variance + epsilon)."""
    layer, (signal, *_) = call.layer, call.inputs
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if len(axes) > 1:
        raise Boundary(f"normalizes several axes together: {axes}")
    require_axis(signal, axes[0], "normalizes")

    def squares(read: Reader) -> Array:
        inverse = 1.0 / (read(layer.moving_variance) + layer.epsilon)
        gamma = getattr(layer, "gamma", None)
        return inverse if gamma is None else inverse * square(read(gamma))

    shape = _keep_sizes(signal.shape, axes)
    return scale_signal(signal, shape, squares)


def normalization_scale(weight: str, call: Call) -> Flow:
    """A normalization by statistics of the data, which are ignored: only the learned scale counts, 1 without one.

    Args:
        weight: the attribute of the layer that holds the scale.
        call: the call.
    """
    layer, (signal, *_) = call.layer, call.inputs
    scale = getattr(layer, weight, None)
    shape = _keep_sizes(signal.shape, layer.axis)
    fixed = _explain_sharing(signal.axes, _list_axes(layer.axis), len(shape))
    if scale is None and None in shape:
        return Flow(signal.axes, Identity(), fixed)
    sizes = [1 if size is None else size for size in shape]

    def squares(read: Reader) -> Array:
        # A missing scale counts like a scale of ones: it tells places apart, too.
        ones_or_scale = read(np.ones(sizes, np.float32) if scale is None else scale)
        return array_module(ones_or_scale).reshape(square(ones_or_scale), sizes)

    flow = scale_signal(signal, shape, squares)
    return dataclasses.replace(flow, fixed=fixed)


def rescaling(call: Call) -> Flow:
    """Rescaling: the square of its scale, which is one number or one a channel."""
    scale, offset = call.layer.scale, call.layer.offset
    shape = tuple(tf.convert_to_tensor(scale).shape)
    flow = scale_signal(call.inputs[0], shape, lambda read: square(read(scale)))
    return dataclasses.replace(flow, fixed=_explain_constant(np.broadcast_shapes(shape, np.shape(offset))))


def data_normalization(call: Call) -> Flow:
    """Normalization by fixed statistics: energy is divided by the variance, or multiplied by it where inverted."""
    layer = call.layer

    def squares(read: Reader) -> Array:
        variance = read(layer.variance)
        variance = array_module(variance).maximum(variance, keras.backend.epsilon() ** 2)
        return variance if layer.invert else 1.0 / variance

    flow = scale_signal(call.inputs[0], tuple(layer.variance.shape), squares)
    return dataclasses.replace(flow, fixed=_explain_constant(tuple(layer.variance.shape)))


def square(array: Array) -> Array:
    """The squares of the numbers of an array, as a product of the array with itself."""
    return array * array


def _keep_sizes(shape: Shape, axes: int | list[int]) -> Shape:
    """A shape with a size of 1 on all axes but these."""
    kept = {a % len(shape) for a in _list_axes(axes)}
    return tuple(size if i in kept else 1 for i, size in enumerate(shape))


def _list_axes(axes: int | Sequence[int]) -> list[int]:
    return [axes] if isinstance(axes, int) else list(axes)


def _explain_constant(shape: Shape) -> str:
    """Why no channel that a constant of this shape acts on can be removed; empty where it is one number."""
    return f"its constant has the shape {format_shape(shape)}" if any(size != 1 for size in shape) else ""


# Layers and operators of several inputs.


def merge(call: Call) -> Flow:
    """A sum, difference, extremum, choice or gate of tensors: their energies are added up, broadcast over channels."""
    flow = sum_signals(call.inputs, len(call.output))
    constant = _find_constant(call)
    return flow if constant is None else dataclasses.replace(flow, fixed=_explain_constant(constant[1]))


def average(call: Call) -> Flow:
    """The mean of n tensors: the sum of their energies, divided by n squared."""
    count, flow = len(call.inputs), merge(call)
    return Flow(flow.axes, flow.energy_map.then(ChannelScale(lambda read: read(1 / count**2))))


def multiply(call: Call) -> Flow:
    """A product of tensors is a gate. A product with a constant scales the energy by the constant's square."""
    constant = _find_constant(call)
    if constant is None:
        return merge(call)
    factor, shape = constant
    flow = scale_signal(call.inputs[0], shape, lambda read: square(read(factor)))
    return dataclasses.replace(flow, fixed=_explain_constant(shape))


def divide(call: Call) -> Flow:
    """A tensor divided by a constant, or by a tensor without channels, which is a gate."""
    dividend, divisor = list(call.arguments.values())[:2]
    if len(call.inputs) > 1 or read_constant_shape(dividend) is not None:
        raise Boundary("divides by a tensor of the network, which is no linear map of channels")
    shape = read_constant_shape(divisor)
    if shape is None:
        return merge(call)
    flow = scale_signal(call.inputs[0], shape, lambda read: 1.0 / square(read(divisor)))
    return dataclasses.replace(flow, fixed=_explain_constant(shape))


def power(call: Call) -> Flow:
    """A tensor to the power of a constant: acts on every element in the same way."""
    exponent = list(call.arguments.values())[1]
    if read_constant_shape(exponent) is None:
        raise Boundary("takes powers by a tensor of the network, which is no linear map of channels")
    return elementwise(call)


def _find_constant(call: Call) -> tuple[Any, tuple[int, ...]] | None:
    """The first operand that is a constant, and its shape; None where all operands are tensors of the network."""
    for operand in call.arguments.values():
        shape = read_constant_shape(operand)
        if shape is not None:
            return operand, shape
    return None
