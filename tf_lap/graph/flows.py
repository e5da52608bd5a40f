"""The parts that channel rules build their flows from: averages, sums, scales, reshapes, transpositions of signals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lap.graph.channels import Boundary, Flow, Shape, Signal, format_axes, format_shape, require_axis
from tf_lap.graph.energy_maps import Array, ChannelScale, EnergyMap, Gather, Identity, Reader, Sum, array_module


def reduce_to_axis(signal: Signal, axis: int, action: str) -> Flow:
    """The flow to one channel axis. Places on the others are positions of a channel: their mean energy counts.

    Args:
        signal: what a layer reads.
        axis: the axis to keep.
        action: what the layer does along the axis, for the message.

    Raises:
        Boundary: as `require_axis`.
    """
    require_axis(signal, axis, action)
    return average_over_others(signal, {axis % len(signal.shape)})


def align_to_axes(signal: Signal, axes: Sequence[int], action: str) -> Flow:
    """The flow to the channels on several axes, one after the other in their order, for a kernel that reads them all.

    Places on other axes are positions of a channel: their mean energy counts. Where the channels lie on some of the
    axes only, they repeat along the others.

    Args:
        signal: what a layer reads.
        axes: the axes to read, in the order of the kernel's inputs.
        action: what the layer does along the axes, for the message.

    Returns:
        A flow whose energies have the order of `axes`.

    Raises:
        Boundary: the channels lie on none of the axes, or one has an unknown size. Axes of size 1 alone are accepted.
    """
    if len(axes) == 1:
        return reduce_to_axis(signal, axes[0], action)
    axes = [axis for axis in axes if signal.shape[axis] != 1]
    if axes and signal.axes and not set(signal.axes) & set(axes):
        raise Boundary(f"{action} {format_axes(axes)}, but its input carries channels on {format_axes(signal.axes)}")
    flow = average_over_others(signal, axes)
    if not flow.axes:
        return flow
    ascending = sorted(axes)
    full = Signal(signal.shape, tuple(axes)).sizes()
    reduced = Signal(signal.shape, flow.axes)
    narrow = span_axes(reduced.sizes(), reduced.axes, ascending)
    order = [ascending.index(axis) for axis in axes]
    move = Gather.of(
        reduced.sizes(), lambda numbers: np.transpose(np.broadcast_to(numbers.reshape(narrow), full), order)
    )
    return Flow(tuple(ascending), flow.energy_map.then(move))


def average_over_others(signal: Signal, kept: Iterable[int]) -> Flow:
    """The flow to the channel axes of a signal that are kept: the mean energy over its other channel axes.

    Raises:
        Boundary: an axis has an unknown size.
    """
    axes = tuple(a for a in signal.axes if a in set(kept))
    if axes == signal.axes:
        return Flow(axes, Identity())
    sizes, others = signal.sizes(), [i for i, a in enumerate(signal.axes) if a not in axes]
    numbers = np.moveaxis(np.arange(math.prod(sizes)).reshape(sizes), others, range(-len(others), 0))
    return Flow(axes, Gather(numbers.reshape(-1, math.prod(sizes[i] for i in others))))


def sum_signals(signals: Sequence[Signal], rank: int) -> Flow:
    """The flow of a sum of tensors that broadcast together (aligned from the last axis) to `rank` axes.

    Raises:
        Boundary: their channels lie on different axes.
    """
    aligned_axes = [tuple(a + rank - len(signal.shape) for a in signal.axes) for signal in signals]
    axes = max(aligned_axes, key=len)
    if not all(set(aligned) <= set(axes) for aligned in aligned_axes):
        raise Boundary(f"its inputs carry channels on different axes {sorted(set().union(*aligned_axes))}")
    if all(aligned in (axes, ()) for aligned in aligned_axes):
        return Flow(axes, Sum((Identity(),) * len(signals)) if len(signals) > 1 else Identity())
    shapes = [span_axes(signal.sizes(), aligned, axes) for signal, aligned in zip(signals, aligned_axes, strict=True)]
    full = np.broadcast_shapes(*map(tuple, shapes))

    def broadcast(sizes: Sequence[int], shape: list[int]) -> EnergyMap:
        return Gather.of(sizes, lambda numbers: np.broadcast_to(numbers.reshape(shape), full))

    parts = [broadcast(signal.sizes(), shape) for signal, shape in zip(signals, shapes, strict=True)]
    return Flow(axes, Sum(tuple(parts)))


def span_axes(sizes: Sequence[int], channel_axes: Sequence[int], axes: Sequence[int]) -> list[int]:
    """The sizes of an array of energies on more axes than its own.

    Args:
        sizes: the sizes of the channel axes.
        channel_axes: the axes that the energies lie on.
        axes: the axes to span.

    Returns:
        For each of `axes` its size: 1 where the energies do not lie on it.
    """
    return [sizes[list(channel_axes).index(axis)] if axis in channel_axes else 1 for axis in axes]


def scale_signal(signal: Signal, shape: Shape, squares: Callable[[Reader], Array]) -> Flow:
    """The flow of multiplying by a constant or a learned scale.

    Along the channel axes the scale acts channel by channel. Along other axes a channel has many positions, so its
    mean square counts. Where all channels are alike, the scale tells them apart.

    Args:
        signal: what is multiplied.
        shape: the scale's shape, aligned with the signal's from the last axis.
        squares: given a reader of variables, computes the squared scale when the sweep runs: float32, of that shape,
            or a vector where only one axis is larger than 1.

    Raises:
        Boundary: the scale has more axes than the signal, or a channel axis has an unknown size.
    """
    offset = len(signal.shape) - len(shape)
    if offset < 0:
        raise Boundary(f"scaled by an array of {len(shape)} axes, more than its own {len(signal.shape)}")
    scale_sizes = {i + offset: size for i, size in enumerate(shape) if size != 1}
    axes = signal.axes or tuple(a for a in scale_sizes if a > 0)
    others = [a - offset for a in scale_sizes if a not in axes]
    factors = [scale_sizes.get(a, 1) for a in axes]
    sizes = list(signal.sizes()) if len(axes) > 1 and signal.axes else factors

    def channel_factors(read: Reader) -> Array:
        square = squares(read)
        module = array_module(square)
        if others:
            square = np.mean(square, axis=tuple(others)) if module is np else tf.reduce_mean(square, axis=others)
        factor = module.reshape(square, factors or [1])
        return module.reshape(module.broadcast_to(factor, sizes), [-1]) if len(axes) > 1 else factor

    return Flow(axes, ChannelScale(channel_factors))


def reshape_signal(signal: Signal, output: Shape) -> Flow:
    """The flow of a row-major reshape, exact wherever axes are split into factors, or joined from them.

    The channel axes of the input and the axes of the output are cut into common factors. An axis of the output carries
    channels if one of its factors comes from a channel axis of the input; over its other factors the channels repeat.

    Raises:
        Boundary: the axes have no common factors, so that no axis of the output tells channels apart.
    """
    if not signal.axes:
        return Flow((), Identity())
    mixes = Boundary(
        f"reshapes {format_shape(signal.shape)} with channels on {format_axes(signal.axes)} to {format_shape(output)}, "
        "which mixes channels"
    )
    before, after = _measure_spans(signal.shape), _measure_spans(output)
    if not all(axis in before for axis in signal.axes):
        raise mixes
    carrying = _join_spans([before[axis] for axis in signal.axes])
    cuts = sorted({1, *(end for span in (*carrying, *after.values()) for end in span)})
    factors = list(itertools.pairwise(cuts))[::-1]
    is_channel = [any(start <= low and high <= end for start, end in carrying) for low, high in factors]
    targets = set()
    for factor, carries in zip(factors, is_channel, strict=True):
        if carries:
            axis = _find_axis(factor, after)
            if axis is None:
                raise mixes
            targets.add(axis)
    axes = tuple(sorted(targets))
    top = max([before[a][1] for a in signal.axes] + [after[a][1] for a in axes])
    if any(high % low for low, high in factors if high <= top):
        raise mixes
    places = [
        (high // low, carries)
        for (low, high), carries in zip(factors, is_channel, strict=True)
        if _find_axis((low, high), after) in axes
    ]
    if all(carries for _, carries in places):
        return Flow(axes, Identity())
    narrow = [size if carries else 1 for size, carries in places]
    full = [size for size, _ in places]
    return Flow(axes, Gather.of(narrow, lambda numbers: np.broadcast_to(numbers, full)))


Span = tuple[int, int]
"""How many elements of a row-major array lie between two neighbours on an axis, and how many on the whole axis."""


def _measure_spans(shape: Shape) -> dict[int, Span]:
    """The span of each axis behind the batch, from the last axis to the first one of unknown size."""
    spans, passed = {}, 1
    for axis in range(len(shape) - 1, 0, -1):
        size = shape[axis]
        if size is None:
            break
        spans[axis] = passed, passed * size
        passed *= size
    return spans


def _join_spans(spans: Sequence[Span]) -> list[Span]:
    """The spans of axes, from the first axis to the last, with neighbouring axes joined into one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and joined[-1][0] == end:
            end = joined.pop()[1]
        joined.append((start, end))
    return joined


def _find_axis(factor: Span, spans: Mapping[int, Span]) -> int | None:
    """The axis that a factor is a part of; None where it crosses the end of one."""
    low, high = factor
    return next((axis for axis, (start, end) in spans.items() if start <= low and high <= end), None)


def repeat_channels(channels: int, repeats: int) -> EnergyMap:
    """The map that repeats each of `(channels,)` energies `repeats` times in a row."""
    return Gather.of([channels], lambda numbers: np.repeat(numbers, repeats))


def transpose_signal(signal: Signal, order: Sequence[int]) -> Flow:
    """The flow of a transposition: the channels go where their axes go.

    Args:
        signal: what is transposed.
        order: for each axis of the output the axis of the input that it is.
    """
    places = [list(order).index(axis) for axis in signal.axes]
    axes = tuple(sorted(places))
    if list(axes) == places:
        return Flow(axes, Identity())
    swap = [places.index(axis) for axis in axes]
    return Flow(axes, Gather.of(signal.sizes(), lambda numbers: np.transpose(numbers, swap)))
