"""Channel rules of layers that take a part of a tensor: indexing, slices, splits."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tf_lap.graph.channels import Boundary, Call, Flow, Signal
from tf_lap.graph.energy_maps import Gather, Identity
from tf_lap.graph.layout_rules import read_axis, read_integers

Index: TypeAlias = slice | int | None
"""Indexes one axis; None makes a new axis of size 1."""


def getitem(call: Call) -> Flow:
    """Indexing, as in `x[..., :k]`: a slice of the channels, or of positions."""
    (signal,) = call.inputs
    key = call.option("key", "slice_spec")
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    ellipsis = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    consumed = sum(part is not None and part is not Ellipsis for part in parts)
    parts[ellipsis : ellipsis + 1] = [slice(None)] * (len(signal.shape) - consumed)
    return _index_signal(signal, [_read_part(part) for part in parts])


def _read_part(part: Any) -> Index:
    """One index of a call, with integers in place of constant tensors.

    Raises:
        Boundary: it is a list of indices, or a tensor whose value is known only when the model runs.
    """
    if part is None:
        return None
    if isinstance(part, dict):  # how tf_keras keeps a slice
        part = slice(part["start"], part["stop"], part["step"])
    if isinstance(part, slice):
        ends = (part.start, part.stop, part.step)
        return slice(*(None if end is None else _read_index(end) for end in ends))
    return _read_index(part)


def _read_index(value: Any) -> int:
    """The one integer that an index holds.

    Raises:
        Boundary: it holds several, or is a tensor whose value is known only when the model runs.
    """
    numbers = read_integers(value, "index")
    if len(numbers) != 1:
        raise Boundary(f"takes elements by a list of indices: {list(numbers)}")
    return numbers[0]


def cut(call: Call) -> Flow:
    """`tf.slice` and `keras.ops.slice`: a block, by its start and its size."""
    (signal,) = call.inputs
    starts = read_integers(call.option("begin", "start_indices"), "start")
    sizes = read_integers(call.option("size", "shape"), "size")
    ends = [None if size == -1 else start + size for start, size in zip(starts, sizes, strict=True)]
    return _index_signal(signal, [slice(start, end) for start, end in zip(starts, ends, strict=True)])


def split(call: Call) -> list[Flow]:
    """A split: each output is a part of the channels, or of positions."""
    (signal,) = call.inputs
    along = read_axis(call, len(signal.shape))
    widths = [shape[along] for shape in call.outputs]
    if along in signal.axes and None in widths:
        raise Boundary(f"splits channels into parts of unknown sizes {widths}")
    starts = [0, *itertools.accumulate(width or 0 for width in widths)]
    before: list[Index] = [slice(None)] * along
    flows = [_index_signal(signal, [*before, slice(start, end)]) for start, end in itertools.pairwise(starts)]
    if along not in signal.axes or len(set(widths)) > 1 or _names_places(call):
        return flows
    sizes, place = signal.sizes(), signal.axes.index(along)
    numbers = np.arange(math.prod(sizes)).reshape(*sizes[:place], len(flows), -1, *sizes[place + 1 :])
    tied = np.moveaxis(numbers, place, -1).reshape(-1, len(flows))
    return [dataclasses.replace(flow, fixed="", tied=tied) for flow in flows]


def _names_places(call: Call) -> bool:
    """Whether a split is by places or by sizes, and not into a number of equal parts."""
    return np.ndim(call.option("indices_or_sections", "num_or_size_splits")) > 0


def unstack(call: Call) -> list[Flow]:
    """Each output is one place on an axis, and lacks that axis."""
    (signal,) = call.inputs
    along = read_axis(call, len(signal.shape))
    flows = [_index_signal(signal, [*[slice(None)] * along, place]) for place in range(len(call.outputs))]
    fixed = "puts out each channel by itself" if along in signal.axes else ""
    return [dataclasses.replace(flow, fixed=fixed) for flow in flows]


def _index_signal(signal: Signal, parts: Sequence[Index]) -> Flow:
    """The flow of indexing a tensor.

    Args:
        signal: the tensor.
        parts: an index for each of its first axes, and None for each new axis.
    """
    parts = [*parts, *[slice(None)] * (len(signal.shape) - sum(part is not None for part in parts))]
    axes: list[int] = []
    indices: list[slice | int] = []
    target = source = 0  # the axis of the output, and of the input, that the part is about
    for part in parts:
        if part is not None:
            if source in signal.axes:
                indices.append(part)
                if isinstance(part, slice):
                    axes.append(target)
            source += 1
        target += part is None or isinstance(part, slice)
    if all(index == slice(None) for index in indices):
        return Flow(tuple(axes), Identity())
    fixed = "takes channels by their places; split into equal parts follows their number"
    return Flow(tuple(axes), Gather.of(signal.sizes(), lambda numbers: numbers[tuple(indices)]), fixed)
