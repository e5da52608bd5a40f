"""Channel rules of what only moves channels about: reshapes, transpositions, slices, splits, stacks and padding.

They serve layers and the operations of either Keras: `Call.option` finds an option under the name that each gives it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lap import compat
from tf_lap.graph.channels import (
    Boundary,
    Call,
    Flow,
    Signal,
    moved,
    on_axis,
    reshaped,
    spanned,
    summed,
)
from tf_lap.graph.energy_maps import EnergyMap, Gather, Identity, Sum

Index = slice | int | None
"""What is taken of one axis; None makes a new axis of size 1."""


def integers(value: Any, what: str) -> tuple[int, ...]:
    """The integers that an argument holds: one, or several in any nesting, flattened.

    Raises:
        Boundary: it is a tensor whose value is known when the model runs only.
    """
    array = compat.static(value)
    if array is None or array.dtype.kind not in "iu":
        raise Boundary(f"its {what} is a tensor, whose value is known only when the model runs")
    return tuple(int(number) for number in array.reshape(-1))


def axis_of(call: Call, rank: int) -> int:
    """The axis that a call names, counted from the first, in a tensor of `rank` axes."""
    (axis,) = integers(call.option("axis"), "axis")
    return axis % rank


def reshape(call: Call) -> Flow:
    """Reshape, squeeze and expand_dims: row-major, exact where channels are not mixed."""
    return reshaped(call.inputs[0], call.output)


def flatten(call: Call) -> Flow:
    """Flatten: channels first is transposed to channels last, then both are flattened row by row."""
    (signal,) = call.inputs
    rank = len(signal.shape)
    before: EnergyMap = Identity()
    if call.layer.data_format == "channels_first" and rank > 1:
        signal, before = _transposed(signal, (0, *range(2, rank), 1))
    flow = reshaped(signal, call.output)
    return Flow(flow.axes, before.then(flow.energy_map))


def repeat_vector(call: Call) -> Flow:
    """RepeatVector puts a new axis of positions before the channels."""
    return Flow(tuple(axis + 1 for axis in call.inputs[0].axes), Identity())


def permute(call: Call) -> Flow:
    """Permute: the channel axes move along."""
    return moved(call.inputs[0], (0, *call.layer.dims))


def transpose(call: Call) -> Flow:
    """The channel axes move along."""
    (signal,) = call.inputs
    axes, rank = call.option("axes", "perm"), len(signal.shape)
    return moved(signal, range(rank)[::-1] if axes is None else [a % rank for a in integers(axes, "order of axes")])


def swapaxes(call: Call) -> Flow:
    """Two axes change places."""
    (signal,) = call.inputs
    order = list(range(len(signal.shape)))
    first, second = call.layer.axis1, call.layer.axis2
    order[first], order[second] = order[second], order[first]
    return moved(signal, order)


def moveaxis(call: Call) -> Flow:
    """Some axes move to other places; the others keep their order."""
    (signal,) = call.inputs
    rank = len(signal.shape)
    sources, targets = ([a % rank for a in axes] for axes in (call.layer.source, call.layer.destination))
    order = [a for a in range(rank) if a not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return moved(signal, order)


def depth_to_space(call: Call) -> Flow:
    """Blocks of channels become positions of fewer channels: the mean energy of a channel's positions counts."""
    flow, block = _depth(call)
    if not flow.axes:
        return flow
    (channels,) = Signal(call.inputs[0].shape, flow.axes).sizes()
    positions = np.arange(channels).reshape(block**2, -1)
    return Flow(flow.axes, flow.energy_map.then(Gather(positions.T)))


def space_to_depth(call: Call) -> Flow:
    """Each block of positions becomes a block of channels: they repeat, position after position."""
    flow, block = _depth(call)
    if not flow.axes:
        return flow
    (channels,) = Signal(call.inputs[0].shape, flow.axes).sizes()
    return Flow(flow.axes, flow.energy_map.then(Gather.of([channels], lambda numbers: np.tile(numbers, block**2))))


def _depth(call: Call) -> tuple[Flow, int]:
    (signal,) = call.inputs
    data_format = call.option("data_format")
    if data_format not in ("channels_last", "channels_first", "NHWC", "NCHW"):
        raise Boundary(f"arranges its channels as {data_format}")
    axis = 1 if data_format in ("channels_first", "NCHW") else 3
    (block,) = integers(call.option("block_size"), "block size")
    return on_axis(signal, axis, "arranges channels along"), block


def getitem(call: Call) -> Flow:
    """`x[..., :k]` and the like: a slice of the channels, or of positions."""
    (signal,) = call.inputs
    key = call.option("key", "slice_spec")
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    ellipsis = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    consumed = sum(part is not None and part is not Ellipsis for part in parts)
    parts[ellipsis : ellipsis + 1] = [slice(None)] * (len(signal.shape) - consumed)
    return _taken(signal, [_index(part) for part in parts])


def _index(part: Any) -> Index:
    if part is None:
        return None
    if isinstance(part, dict):  # how tf_keras keeps a slice
        part = slice(part["start"], part["stop"], part["step"])
    if isinstance(part, slice):
        ends = (part.start, part.stop, part.step)
        return slice(*(None if end is None else _one(end) for end in ends))
    return _one(part)


def _one(value: Any) -> int:
    numbers = integers(value, "index")
    if len(numbers) != 1:
        raise Boundary(f"takes elements by a list of indices: {list(numbers)}")
    return numbers[0]


def cut(call: Call) -> Flow:
    """`tf.slice` and `keras.ops.slice`: a block of given start and size."""
    (signal,) = call.inputs
    starts = integers(call.option("begin", "start_indices"), "start")
    sizes = integers(call.option("size", "shape"), "size")
    ends = [None if size == -1 else start + size for start, size in zip(starts, sizes, strict=True)]
    return _taken(signal, [slice(start, end) for start, end in zip(starts, ends, strict=True)])


def split(call: Call) -> list[Flow]:
    """Parts of the channels, or of positions, one for each output."""
    (signal,) = call.inputs
    along = axis_of(call, len(signal.shape))
    widths = [shape[along] for shape in call.outputs]
    if along in signal.axes and None in widths:
        raise Boundary(f"splits channels into parts of unknown sizes {widths}")
    starts = [0, *itertools.accumulate(width or 0 for width in widths)]
    everything = [slice(None)] * along
    return [_taken(signal, [*everything, slice(a, b)]) for a, b in itertools.pairwise(starts)]


def unstack(call: Call) -> list[Flow]:
    """One place on an axis for each output, which has that axis no more."""
    (signal,) = call.inputs
    along = axis_of(call, len(signal.shape))
    return [_taken(signal, [*[slice(None)] * along, place]) for place in range(len(call.outputs))]


def _taken(signal: Signal, parts: Sequence[Index]) -> Flow:
    """The flow of indexing a tensor with these parts, the first of them for its first axis."""
    parts = [*parts, *[slice(None)] * (len(signal.shape) - sum(part is not None for part in parts))]
    axes, indices, place, axis = [], [], 0, 0
    for part in parts:
        if part is not None:
            if axis in signal.axes:
                indices.append(part)
                if isinstance(part, slice):
                    axes.append(place)
            axis += 1
        place += part is None or isinstance(part, slice)
    if all(index == slice(None) for index in indices):
        return Flow(tuple(axes), Identity())
    return Flow(tuple(axes), Gather.of(signal.sizes(), lambda numbers: numbers[tuple(indices)]))


def pad(call: Call) -> Flow:
    """Padding: positions count no energy; channels that are padded with zeros have none."""
    (signal,) = call.inputs
    rank, widths = len(signal.shape), compat.static(call.option("pad_width", "paddings"))
    if widths is None:
        raise Boundary("its widths are a tensor, whose values are known only when the model runs")
    pairs = np.broadcast_to(widths.astype(int), (rank, 2))
    padded = [pairs[axis].tolist() for axis in signal.axes]
    if not np.any(padded):
        return Flow(signal.axes, Identity())
    value = call.arguments.get("constant_values")
    constants = np.zeros(()) if value is None else compat.static(value)
    if str(call.option("mode")).lower() != "constant" or constants is None or np.any(constants):
        raise Boundary("pads its channels with other values than zero")
    return Flow(signal.axes, Gather.of(signal.sizes(), lambda numbers: np.pad(numbers, padded, constant_values=-1)))


def concatenate(call: Call) -> Flow:
    """On a channel axis the channels follow one another; on an axis of positions, inputs of a channel add up."""
    rank = len(call.output)
    along = axis_of(call, rank)
    widths = [signal.shape[along] for signal in call.inputs]
    carried = [signal.axes for signal in call.inputs if signal.axes]
    axes = carried[0] if carried and all(own == carried[0] for own in carried) else (along,)
    if along not in axes:
        return summed(call.inputs, rank)
    if None in widths:
        raise Boundary(f"concatenates axis {along}, whose size is not known: {widths}")
    if sum(widths) != call.output[along]:
        raise Boundary(f"concatenates constants to the channels of its inputs: {widths} to {call.output[along]}")
    before = [
        Flow(signal.axes, Identity()) if signal.axes in ((), axes) else on_axis(signal, along, "concatenates")
        for signal in call.inputs
    ]
    return _joined(call.inputs, before, axes, along)


def stack(call: Call) -> Flow:
    """Tensors one behind the other on a new axis, which tells them apart."""
    rank = len(call.output)
    along = axis_of(call, rank)
    if len(call.inputs) != call.output[along]:
        raise Boundary("stacks constants beside its inputs")
    inputs = [
        Signal((*s.shape[:along], 1, *s.shape[along:]), tuple(a + (a >= along) for a in s.axes)) for s in call.inputs
    ]
    axes = tuple(sorted({along, *summed(inputs, rank).axes}))
    return _joined(inputs, [Flow(signal.axes, Identity()) for signal in inputs], axes, along)


def _joined(inputs: Sequence[Signal], before: Sequence[Flow], axes: tuple[int, ...], along: int) -> Flow:
    """The flow of concatenation on the channel axis `along`; all channels lie on `axes` then."""
    wide = [Signal(signal.shape, flow.axes) for signal, flow in zip(inputs, before, strict=True)]
    shapes = [spanned(signal.sizes(), signal.axes, axes) for signal in wide]
    sizes = [[signal.shape[a] for a in axes] for signal in wide]
    if any(None in size for size in sizes):
        raise Boundary(f"joins channels on axes {list(axes)} of unknown size")

    place = axes.index(along)
    parts: list[EnergyMap] = []
    ends = list(itertools.accumulate(size[place] for size in sizes))
    for flow, shape, size, end in zip(before, shapes, sizes, ends, strict=True):
        others = [(0, 0)] * len(axes)
        others[place] = (end - size[place], ends[-1] - end)
        own = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), size)
        parts.append(flow.energy_map.then(Gather(np.pad(own, others, constant_values=-1).reshape(-1))))
    return Flow(axes, Sum(tuple(parts)))


def _transposed(signal: Signal, order: Sequence[int]) -> tuple[Signal, EnergyMap]:
    flow = moved(signal, order)
    return Signal(tuple(signal.shape[a] for a in order), flow.axes), flow.energy_map
