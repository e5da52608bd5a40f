"""One channel rule per layer class: how a layer between kernels passes energy from its input channels to its output's.

A rule turns a `Call` into a `Flow`, or raises `Boundary` with the reason. `tables` says which class has which rule.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_lap import compat
from tf_lap.channels import (
    Boundary,
    Call,
    Flow,
    common_axis,
    format_axis,
    identity,
    moved,
    require_axis,
    reshaped,
    scaled,
    spread,
    total,
)

# Layers that leave every channel alone.


def elementwise(call: Call) -> Flow:
    """Acts on every element, or on every channel, alike: energy passes unchanged."""
    axis = common_axis(call.inputs[:1], len(call.output))
    return Flow(axis, identity)


def spatial(call: Call) -> Flow:
    """Pooling, padding, cropping, upsampling: moves along positions only, unchanged energy per channel."""
    (signal,) = call.inputs
    require_axis(signal, format_axis(call.layer, len(signal.shape)), "acts on channels along")
    return Flow(signal.axis, identity)


def global_pooling(call: Call) -> Flow:
    """Reduces all positions to one, unchanged energy per channel."""
    (signal,) = call.inputs
    require_axis(signal, format_axis(call.layer, len(signal.shape)), "keeps")
    axis = None if signal.axis is None else format_axis(call.layer, len(call.output))
    return Flow(axis, identity)


def reduction(call: Call) -> Flow:
    """`keras.ops.mean`, `max`, `min` and `sum` over positions: unchanged energy per channel."""
    (signal,) = call.inputs
    rank, op = len(signal.shape), call.layer
    over = range(rank) if op.axis is None else [a % rank for a in ([op.axis] if isinstance(op.axis, int) else op.axis)]
    if signal.axis is None:
        return Flow(None, identity)
    if signal.axis in over:
        raise Boundary(f"reduces its channels (axis {signal.axis})")
    return Flow(signal.axis - (0 if op.keepdims else sum(a < signal.axis for a in over)), identity)


def repeat_vector(call: Call) -> Flow:
    """RepeatVector puts a new axis of positions before the channels."""
    (signal,) = call.inputs
    return Flow(None if signal.axis is None else signal.axis + 1, identity)


# Layers that move channels.


def reshape(call: Call) -> Flow:
    """Reshape, squeeze and expand_dims: row-major, exact where channels are not mixed."""
    return reshaped(call.inputs[0], call.output)


def flatten(call: Call) -> Flow:
    """Flatten: channels first is transposed to channels last, then both are flattened row by row."""
    (signal,) = call.inputs
    rank = len(signal.shape)
    if call.layer.data_format == "channels_first" and rank > 1:
        order = (0, *range(2, rank), 1)
        flow = moved(signal, order)
        signal = type(signal)(tuple(signal.shape[a] for a in order), flow.axis)
    return reshaped(signal, call.output)


def permute(call: Call) -> Flow:
    """Permute: the channel axis moves along."""
    return moved(call.inputs[0], (0, *call.layer.dims))


def transpose(call: Call) -> Flow:
    """`keras.ops.transpose`: the channel axis moves along."""
    (signal,) = call.inputs
    axes = call.layer.axes
    return moved(signal, range(len(signal.shape))[::-1] if axes is None else axes)


# Layers that scale channels.


def batch_normalization(call: Call) -> Flow:
    """At inference a scale of gamma / sqrt(moving_variance + epsilon) per channel."""
    layer, (signal, *_) = call.layer, call.inputs
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if len(axes) > 1:
        raise Boundary(f"normalizes several axes together: {axes}")
    require_axis(signal, axes[0], "normalizes")

    def squares() -> tf.Tensor:
        inverse = 1.0 / (compat.value(layer.moving_variance) + layer.epsilon)
        gamma = getattr(layer, "gamma", None)
        return inverse if gamma is None else inverse * tf.square(compat.value(gamma))

    return scaled(signal, _on_axes(signal.shape, axes), squares)


def normalization_scale(weight: str, call: Call) -> Flow:
    """A normalization over data, whose spread is ignored: only its own learned scale counts, 1 where it has none."""
    layer, (signal, *_) = call.layer, call.inputs
    scale = getattr(layer, weight, None)
    if scale is None:
        return Flow(signal.axis, identity)
    shape = _on_axes(signal.shape, layer.axis)
    return scaled(
        signal,
        shape,
        lambda: tf.reshape(tf.square(compat.value(scale)), [1 if d is None else d for d in shape]),
    )


def rescaling(call: Call) -> Flow:
    """Rescaling: times the square of its scale, a number or one a channel."""
    scale = call.layer.scale
    return scaled(call.inputs[0], tuple(tf.convert_to_tensor(scale).shape), lambda: tf.square(compat.value(scale)))


def data_normalization(call: Call) -> Flow:
    """Normalization with data statistics: over the variance, or times it where inverted."""
    layer = call.layer

    def squares() -> tf.Tensor:
        variance = tf.maximum(compat.value(layer.variance), keras.backend.epsilon() ** 2)
        return variance if layer.invert else 1.0 / variance

    return scaled(call.inputs[0], tuple(layer.variance.shape), squares)


def depthwise(call: Call, kernel_name: str) -> Flow:
    """A depthwise convolution: the sum of squares of each channel's taps; a depth multiplier repeats channels."""
    layer, (signal, *_) = call.layer, call.inputs
    axis = format_axis(layer, len(signal.shape))
    require_axis(signal, axis, "convolves")
    kernel = getattr(layer, kernel_name)
    *taps, channels, multiplier = kernel.shape
    repeat = spread(channels, 1, multiplier)

    def transform(energy: tf.Tensor) -> tf.Tensor:
        squares = tf.reduce_sum(tf.square(compat.value(kernel)), axis=list(range(len(taps))))
        return repeat(tf.broadcast_to(energy, [channels])) * tf.reshape(squares, [-1])

    return Flow(axis, transform)


def _on_axes(shape: tuple[int | None, ...], axes: int | list[int]) -> tuple[int | None, ...]:
    kept = {a % len(shape) for a in ([axes] if isinstance(axes, int) else axes)}
    return tuple(size if i in kept else 1 for i, size in enumerate(shape))


# Layers and operators of several inputs.


def merge(call: Call) -> Flow:
    """A sum, difference, extremum or gate of tensors: the sum of their energies, broadcast over channels."""
    return Flow(common_axis(call.inputs, len(call.output)), total)


def average(call: Call) -> Flow:
    """The mean of n tensors: the sum of their energies over n squared."""
    count = len(call.inputs)
    return Flow(common_axis(call.inputs, len(call.output)), lambda *energies: total(*energies) / count**2)


def multiply(call: Call) -> Flow:
    """A product of tensors is a gate; with a constant, its square scales the energy."""
    if len(call.inputs) > 1:
        return merge(call)
    factor, shape = _constant_operand(call)
    return scaled(call.inputs[0], shape, lambda: tf.square(compat.value(factor)))


def divide(call: Call) -> Flow:
    """A tensor over a constant."""
    operands = list(call.args) + list(call.kwargs.values())
    if len(call.inputs) > 1 or compat.constant(operands[0]) is not None:
        raise Boundary("divides by a tensor of the network, which is no linear map of channels")
    factor, shape = _constant_operand(call)
    return scaled(call.inputs[0], shape, lambda: 1.0 / tf.square(compat.value(factor)))


def _constant_operand(call: Call) -> tuple[Any, tuple[int, ...]]:
    for operand in (*call.args, *call.kwargs.values()):
        shape = compat.constant(operand)
        if shape is not None:
            return operand, shape
    raise Boundary(f"its constant operand cannot be read from {call.args!r}")


def concatenate(call: Call) -> Flow:
    """On the channel axis the channels follow one another; on an axis of positions, inputs of a channel add up."""
    rank = len(call.output)
    along = call.layer.axis % rank
    axis = common_axis(call.inputs, rank)
    if axis is not None and axis != along:
        return merge(call)
    widths = [signal.shape[along] for signal in call.inputs]
    if None in widths:
        raise Boundary(f"concatenates axis {along}, whose size is not known: {widths}")
    if sum(widths) != call.output[along]:
        raise Boundary(f"concatenates constants to the channels of its inputs: {widths} to {call.output[along]}")

    def transform(*energies: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.broadcast_to(e, [w]) for e, w in zip(energies, widths, strict=True)], axis=0)

    return Flow(along, transform)
