"""Channel rules of layers that only move channels: reshapes, transpositions, stacks and padding.

They serve the layers and the operations of both Kerases, and TensorFlow's functions. `Call.option` finds an option
under any of the names that these give it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lap.graph.arguments import read_static
from tf_lap.graph.channels import Boundary, Call, Flow, Signal
from tf_lap.graph.energy_maps import EnergyMap, Gather, Identity, Sum
from tf_lap.graph.flows import reduce_to_axis, reshape_signal, span_axes, sum_signals, transpose_signal


def read_integers(value: Any, name: str) -> tuple[int, ...]:
    """The integers that an argument holds, flattened.

    Args:
        value: an integer, an array or a tensor, or a list of them.
        name: the name of the argument, for the message.

    Raises:
        Boundary: it is a tensor whose value is known only when the model runs.
    """
    array = read_static(value)
    if array is None or array.dtype.kind not in "iu":
        raise Boundary(f"its {name} is a tensor, whose value is known only when the model runs")
    return tuple(int(number) for number in array.reshape(-1))


def read_axis(call: Call, rank: int) -> int:
    """The axis that a call names, 0 to `rank` - 1, in a tensor of `rank` axes."""
    (axis,) = read_integers(call.option("axis"), "axis")
    return axis % rank


def reshape(call: Call) -> Flow:
    """Reshape, squeeze and expand_dims, in row-major order: exact where channels are not mixed."""
    flow = reshape_signal(call.inputs[0], call.output)
    return dataclasses.replace(flow, fixed=_explain_target(call, flow.axes))


def _explain_target(call: Call, axes: Sequence[int]) -> str:
    """Why no channel can be removed from what an operation reshapes: its target shape holds their number."""
    target = call.option("newshape", "shape")
    sizes = list(target) if isinstance(target, (list, tuple)) else None
    if target is None or not axes or (sizes is not None and all(read_static(sizes[axis]) == -1 for axis in axes)):
        return ""
    return "its target shape holds the number of channels; a Reshape layer in its place can follow it"


def flatten(call: Call) -> Flow:
    """Flatten, in row-major order. A tensor with channels first is transposed to channels last before."""
    (signal,) = call.inputs
    rank = len(signal.shape)
    before: EnergyMap = Identity()
    if call.layer.data_format == "channels_first" and rank > 1:
        signal, before = _transpose(signal, (0, *range(2, rank), 1))
    flow = reshape_signal(signal, call.output)
    return Flow(flow.axes, before.then(flow.energy_map))


def repeat_vector(call: Call) -> Flow:
    """RepeatVector: puts a new axis of positions before the channels."""
    return Flow(tuple(axis + 1 for axis in call.inputs[0].axes), Identity())


def repeat(call: Call) -> Flow:
    """`repeat`: each place on an axis several times in a row."""
    (signal,) = call.inputs
    along, (repeats, *others) = read_axis(call, len(signal.shape)), read_integers(call.option("repeats"), "repeats")
    if along not in signal.axes:
        return Flow(signal.axes, Identity())
    if others:
        raise Boundary("repeats its channels by a list of numbers")
    place = signal.axes.index(along)
    return Flow(signal.axes, Gather.of(signal.sizes(), lambda numbers: np.repeat(numbers, repeats, axis=place)))


def flip(call: Call) -> Flow:
    """`flip`: the places on one or several axes in reverse order."""
    (signal,) = call.inputs
    rank, axis = len(signal.shape), call.option("axis")
    axes = range(rank) if axis is None else [a % rank for a in read_integers(axis, "axis")]
    places = [place for place, a in enumerate(signal.axes) if a in axes]
    if not places:
        return Flow(signal.axes, Identity())
    return Flow(signal.axes, Gather.of(signal.sizes(), lambda numbers: np.flip(numbers, tuple(places))))


def permute(call: Call) -> Flow:
    """Permute: channels go where their axes go. The layer does not count the batch axis."""
    return transpose_signal(call.inputs[0], (0, *call.layer.dims))


def transpose(call: Call) -> Flow:
    """A transposition: channels go where their axes go."""
    (signal,) = call.inputs
    axes, rank = call.option("axes", "perm"), len(signal.shape)
    order = range(rank)[::-1] if axes is None else [axis % rank for axis in read_integers(axes, "order of axes")]
    return transpose_signal(signal, order)


def swapaxes(call: Call) -> Flow:
    """Two axes change places."""
    (signal,) = call.inputs
    order = list(range(len(signal.shape)))
    first, second = call.layer.axis1, call.layer.axis2
    order[first], order[second] = order[second], order[first]
    return transpose_signal(signal, order)


def moveaxis(call: Call) -> Flow:
    """Some axes move to other places; the others keep their order."""
    (signal,) = call.inputs
    rank = len(signal.shape)
    sources, targets = ([a % rank for a in axes] for axes in (call.layer.source, call.layer.destination))
    order = [axis for axis in range(rank) if axis not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return transpose_signal(signal, order)


def depth_to_space(call: Call) -> Flow:
    """Blocks of channels become positions of fewer channels: the mean energy over a channel's positions counts."""
    flow, block = _arrange_blocks(call)
    if not flow.axes:
        return flow
    (channels,) = Signal(call.inputs[0].shape, flow.axes).sizes()
    positions = np.arange(channels).reshape(block**2, -1)
    return Flow(flow.axes, flow.energy_map.then(Gather(positions.T)))


def space_to_depth(call: Call) -> Flow:
    """Each block of positions becomes a block of channels: the channels repeat, position after position."""
    flow, block = _arrange_blocks(call)
    if not flow.axes:
        return flow
    (channels,) = Signal(call.inputs[0].shape, flow.axes).sizes()
    return Flow(flow.axes, flow.energy_map.then(Gather.of([channels], lambda numbers: np.tile(numbers, block**2))))


def _arrange_blocks(call: Call) -> tuple[Flow, int]:
    """The flow to the channel axis of depth_to_space or space_to_depth, and the side of a block.

    Raises:
        Boundary: the data format is neither channels last nor channels first, or the channels lie on another axis.
    """
    (signal,) = call.inputs
    data_format = call.option("data_format")
    if data_format not in ("channels_last", "channels_first", "NHWC", "NCHW"):
        raise Boundary(f"arranges its channels as {data_format}")
    axis = 1 if data_format in ("channels_first", "NCHW") else 3
    (block,) = read_integers(call.option("block_size"), "block size")
    return reduce_to_axis(signal, axis, "arranges channels along"), block


def pad(call: Call) -> Flow:
    """Padding: new positions do not change a channel's energy. New channels of zeros have no energy."""
    (signal,) = call.inputs
    rank, widths = len(signal.shape), read_static(call.option("pad_width", "paddings"))
    if widths is None:
        raise Boundary("its widths are a tensor, whose values are known only when the model runs")
    pairs = np.broadcast_to(widths.astype(int), (rank, 2))
    padded = [pairs[axis].tolist() for axis in signal.axes]
    if not np.any(padded):
        return Flow(signal.axes, Identity())
    value = call.arguments.get("constant_values")
    constants = np.zeros(()) if value is None else read_static(value)
    if str(call.option("mode")).lower() != "constant" or constants is None or np.any(constants):
        raise Boundary("pads its channels with other values than zero")
    move = Gather.of(signal.sizes(), lambda numbers: np.pad(numbers, padded, constant_values=-1))
    return Flow(signal.axes, move, "pads its channels by a fixed number")


def concatenate(call: Call) -> Flow:
    """On a channel axis channels follow one another. On an axis of positions the energies of a channel are added up."""
    rank = len(call.output)
    along = read_axis(call, rank)
    carried = [signal.axes for signal in call.inputs if signal.axes]
    axes = carried[0] if carried and all(other == carried[0] for other in carried) else (along,)
    if along not in axes:
        return sum_signals(call.inputs, rank)
    widths = [signal.shape[along] for signal in call.inputs]
    sizes = [width for width in widths if width is not None]
    if len(sizes) < len(widths):
        raise Boundary(f"concatenates axis {along}, whose size is not known: {widths}")
    if sum(sizes) != call.output[along]:
        raise Boundary(f"concatenates constants to the channels of its inputs: {sizes} to {call.output[along]}")
    flows = [
        Flow(signal.axes, Identity()) if signal.axes in ((), axes) else reduce_to_axis(signal, along, "concatenates")
        for signal in call.inputs
    ]
    return _join_signals(call.inputs, flows, axes, along)


def stack(call: Call) -> Flow:
    """Tensors one after the other on a new axis, which becomes a channel axis."""
    rank = len(call.output)
    along = read_axis(call, rank)
    if len(call.inputs) != call.output[along]:
        raise Boundary("stacks constants beside its inputs")
    inputs = [
        Signal((*s.shape[:along], 1, *s.shape[along:]), tuple(a + (a >= along) for a in s.axes)) for s in call.inputs
    ]
    axes = tuple(sorted({along, *sum_signals(inputs, rank).axes}))
    return _join_signals(inputs, [Flow(signal.axes, Identity()) for signal in inputs], axes, along)


def _join_signals(signals: Sequence[Signal], flows: Sequence[Flow], axes: tuple[int, ...], along: int) -> Flow:
    """The flow of a concatenation on a channel axis.

    Args:
        signals: what is joined.
        flows: for each signal what becomes of its energy before it is joined.
        axes: the channel axes of the output.
        along: the one of them that the signals are joined on.

    Raises:
        Boundary: a channel axis has an unknown size.
    """
    inputs = [Signal(signal.shape, flow.axes) for signal, flow in zip(signals, flows, strict=True)]
    shapes = [span_axes(signal.sizes(), signal.axes, axes) for signal in inputs]
    sizes = [_require_sizes(signal, axes) for signal in inputs]
    place = axes.index(along)
    ends = list(itertools.accumulate(size[place] for size in sizes))
    parts: list[EnergyMap] = []
    for flow, shape, size, end in zip(flows, shapes, sizes, ends, strict=True):
        widths = [(0, 0)] * len(axes)
        widths[place] = (end - size[place], ends[-1] - end)
        numbers = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), size)
        parts.append(flow.energy_map.then(Gather(np.pad(numbers, widths, constant_values=-1).reshape(-1))))
    return Flow(axes, Sum(tuple(parts)))


def _require_sizes(signal: Signal, axes: Sequence[int]) -> list[int]:
    """The sizes of these axes of a signal.

    Raises:
        Boundary: one is not known.
    """
    sizes = [size for axis in axes if (size := signal.shape[axis]) is not None]
    if len(sizes) < len(axes):
        raise Boundary(f"joins channels on axes {list(axes)} of unknown size")
    return sizes


def _transpose(signal: Signal, order: Sequence[int]) -> tuple[Signal, EnergyMap]:
    """A transposed signal, and the map to its energies."""
    flow = transpose_signal(signal, order)
    return Signal(tuple(signal.shape[a] for a in order), flow.axes), flow.energy_map
