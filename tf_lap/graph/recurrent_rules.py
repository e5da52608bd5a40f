"""Recurrent layers: a kernel reads the inputs, and a recurrent kernel the hidden state of the time step before.

Both kernels put out the gates, one after the other along their last axis. Without data nobody knows how far a gate is
open. So the rule is an approximation: a hidden channel's energy is the sum over both kernels and all gates, and what
reads a gate's column is what reads its hidden channel. That is the layers behind, and the recurrent kernel's own rows,
through which the hidden state is read at the next time step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lap.compat.types import Layer
from tf_lap.graph.channels import Boundary, Flow, Shape, Signal, format_axis
from tf_lap.graph.composite import LayerSteps, Target
from tf_lap.graph.energy_maps import ChannelScale, EnergyMap, Gather, Identity, Sum
from tf_lap.graph.flows import reduce_to_axis, sum_signals
from tf_lap.graph.kernels import ChannelAxes, LayerKernel
from tf_lap.graph.layouts import Layout


def find_recurrent_kernels(layer: Layer) -> list[LayerKernel]:
    """The kernels of a recurrent layer, cell after cell: of each the kernel and the recurrent kernel."""
    return [kernel for cell in _find_cells(layer) if _is_served(cell) for kernel in _find_cell_kernels(layer, cell)]


def follow_recurrent(steps: LayerSteps) -> list[Target]:
    """The steps of a recurrent layer, cell after cell."""
    _require_kernels(steps.layer)
    tensor, *states = _find_tensors(steps)
    hidden = _follow_cells(steps, tensor, states)
    return [_put_out(steps, [hidden], output.shape, Identity()) for output in steps.call.outputs]


def find_bidirectional_kernels(layer: Layer) -> list[LayerKernel]:
    """The kernels of a Bidirectional layer, those of its forward layer first."""
    return [
        kernel._replace(name=f"{inner.name}/{kernel.name}")
        for inner in (layer.forward_layer, layer.backward_layer)
        if hasattr(inner, "cell")
        for kernel in find_recurrent_kernels(inner)
    ]


def follow_bidirectional(steps: LayerSteps) -> list[Target]:
    """The steps of a forward and of a backward layer, whose hidden states are joined or added up."""
    layer, call = steps.layer, steps.call
    inner_layers = (layer.forward_layer, layer.backward_layer)
    for inner in inner_layers:
        _require_kernels(inner)
    tensor, *states = _find_tensors(steps)
    hidden = []
    for place, inner in enumerate(inner_layers):
        inner_steps = dataclasses.replace(
            steps, call=dataclasses.replace(call, layer=inner), path=f"{steps.path}/{inner.name}"
        )
        half = len(states) // 2
        hidden.append(_follow_cells(inner_steps, tensor, states[place * half : (place + 1) * half]))
    # Keras takes both directions for equally wide.
    steps.builder.add_tie((state, 1) for state in hidden)
    if layer.merge_mode is None:
        merged: list[tuple[list[int], EnergyMap]] = [([hidden[0]], Identity()), ([hidden[1]], Identity())]
    else:
        merged = [(hidden, _merge_directions([steps.signal(h).shape[1] or 1 for h in hidden], layer.merge_mode))]
    state_count = len(call.outputs) - len(merged)
    merged += [([hidden[0]], Identity())] * (state_count // 2) + [([hidden[1]], Identity())] * (state_count // 2)
    inner_steps = dataclasses.replace(steps, call=dataclasses.replace(call, layer=layer.forward_layer))
    return [
        _put_out(inner_steps, sources, output.shape, energy_map)
        for (sources, energy_map), output in zip(merged, call.outputs, strict=True)
    ]


def _merge_directions(units: Sequence[int], merge_mode: str) -> EnergyMap:
    """The map from the hidden energies of both directions to those of the output. A product counts as a gate."""
    if merge_mode == "concat":
        first, second = units
        before = np.append(np.arange(first), np.full(second, -1))
        behind = np.append(np.full(first, -1), np.arange(second))
        return Sum((Gather(before), Gather(behind)))
    total = Sum((Identity(), Identity()))
    return total.then(ChannelScale(lambda read: read(1 / 4))) if merge_mode == "ave" else total


def _find_tensors(steps: LayerSteps) -> list[Any]:
    """The sequence that a recurrent layer reads, and its initial states: tf_keras passes them with the sequence.

    Each of them may be a constant.
    """
    return [*_list_items(next(iter(steps.call.arguments.values()))), *_list_items(steps.argument("initial_state"))]


def _list_items(argument: Any) -> list[Any]:
    """The tensors and constants in an argument of a call, whose lists may be nested."""
    if isinstance(argument, (list, tuple)):
        return [item for part in argument for item in _list_items(part)]
    return [] if argument is None else [argument]


def _follow_cells(steps: LayerSteps, tensor: Any, states: Sequence[Any]) -> int:
    """Adds the steps of all cells of a layer, and returns the hidden state of the last, `(batch, channels)`.

    Args:
        steps: what steps are added with.
        tensor: the sequence that the layer reads.
        states: its initial states.
    """
    layer = steps.layer
    cells = _find_cells(layer)
    source = steps.read(tensor)
    channel_axis = _find_channel_axis(layer, len(steps.signal(source).shape))
    state_sources = [steps.source(state) for state in states]
    if len(cells) > 1:
        for number in state_sources:
            if number is not None:
                steps.end(number, f"{type(layer).__name__} {steps.path!r}: the initial state of several cells")
        state_sources = []
    with steps.builder.repeating(_count_repeats(steps, steps.signal(source).shape)):
        for cell in cells:
            source = _follow_cell(steps, cell, source, channel_axis, state_sources)
            channel_axis = 1
    return source


def _count_repeats(steps: LayerSteps, shape: Shape) -> int | None:
    """How often a cell's kernels are used in one call: at each time step, and of images at each place of the output.

    Args:
        steps: what steps are added with.
        shape: the shape of the sequence.
    """
    if len(shape) < 3:
        return None
    output, places = steps.call.outputs[0].shape, len(shape) - 3
    end = len(output) if format_axis(steps.layer, len(output)) == 1 else len(output) - 1
    sizes = [size for size in (shape[1], *output[end - places : end]) if size is not None]
    return math.prod(sizes) if len(sizes) == places + 1 else None


def _follow_cell(
    steps: LayerSteps, cell: Layer, source: int, channel_axis: int, state_sources: Sequence[int | None]
) -> int:
    """Adds the steps of one cell.

    Of what the hidden state begins with the recurrent kernel reads all. The layers behind read what the cell carries
    past its kernels from one time step to the next: an LSTM's second state, a GRU's only one.

    Args:
        steps: what steps are added with.
        cell: the cell.
        source: what it reads.
        channel_axis: the axis of the channels there.
        state_sources: the tensors that the states begin with; None for one that carries no channels.

    Returns:
        The hidden state, as a tensor `(batch, channels)`.
    """
    kernel, recurrent_kernel = _find_cell_kernels(steps.layer, cell)
    units, gate_units = recurrent_kernel.layout.inputs, recurrent_kernel.layout.outputs
    gates = gate_units // units
    from_inputs = steps.use_kernel(kernel, source, ChannelAxes((channel_axis,), (1,)), (None, gate_units))
    from_state = steps.builder.add_tensor(Signal((None, gate_units), (1,)))
    by_gate = Gather(np.arange(gate_units).reshape(gates, units).T).then(ChannelScale(lambda read: read(float(gates))))
    add_gates = by_gate if gates > 1 else Identity()
    hidden_flow = Flow((1,), Sum((Identity(), Identity())).then(add_gates))
    hidden = steps.apply([from_inputs, from_state], (None, units), hidden_flow)
    carried = 1 if len(state_sources) > 1 or gates == 1 else 0
    hidden = _add_states(steps, hidden, state_sources[carried:], units)
    steps.close_loop(recurrent_kernel, _add_states(steps, hidden, state_sources[:carried], units), from_state)
    return hidden


def _add_states(steps: LayerSteps, hidden: int, state_sources: Sequence[int | None], units: int) -> int:
    """The hidden state together with some of what it begins with."""
    sources = [hidden]
    for source in state_sources:
        if source is None:
            continue
        signal = steps.signal(source)
        axis = format_axis(steps.layer, len(signal.shape))
        reduced = reduce_to_axis(signal, axis, "begins with channels on")
        flow = Flow((1,) if reduced.axes else (), reduced.energy_map)
        sources.append(steps.apply([source], (None, units), flow))
    if len(sources) == 1:
        return hidden
    return steps.apply(sources, (None, units), sum_signals([steps.signal(source) for source in sources], 2))


def _put_out(steps: LayerSteps, hidden: Sequence[int], shape: Shape, energy_map: EnergyMap) -> int:
    """A tensor that a recurrent layer puts out: all hidden states, or the last one; or a state of its own.

    Args:
        steps: what steps are added with.
        hidden: the hidden states that it is made of.
        shape: its shape.
        energy_map: what becomes of their energies.
    """
    is_sequence = steps.layer.return_sequences and len(shape) == len(steps.call.inputs[0].shape)
    axis = _find_channel_axis(steps.layer, len(shape)) if is_sequence else format_axis(steps.layer, len(shape))
    # Keras takes both directions of a Bidirectional layer for as wide as the forward one.
    ones = [np.ones(steps.signal(state).shape[1] or 1, np.float32) for state in hidden]
    channels = energy_map.apply(*ones).shape[0]
    return steps.apply(hidden, (*shape[:axis], channels, *shape[axis + 1 :]), Flow((axis,), energy_map))


def _find_channel_axis(layer: Layer, rank: int) -> int:
    """The axis of the channels in a sequence: behind batch and time where channels come first, the last otherwise."""
    return 2 if format_axis(layer, rank) == 1 else rank - 1


def _find_cells(layer: Layer) -> list[Layer]:
    return list(getattr(layer.cell, "cells", [layer.cell]))


def _require_kernels(layer: Layer) -> None:
    """Raises Boundary where a recurrent layer, or one inside a Bidirectional layer, has a cell that is not served."""
    if not hasattr(layer, "cell"):
        raise Boundary(f"its layer {type(layer).__name__} has no cell")
    for cell in _find_cells(layer):
        if not _is_served(cell):
            raise Boundary(f"its cell {type(cell).__name__} has not the kernels of a cell of Keras's")


def _is_served(cell: Layer) -> bool:
    """Whether a cell has the two kernels, and gates as many times as wide as its hidden state."""
    # A user's cell may have a layer, or a vector, by the name of a kernel.
    shape, recurrent_shape = (
        tuple(getattr(getattr(cell, name, None), "shape", ())) for name in ("kernel", "recurrent_kernel")
    )
    if min(len(shape), len(recurrent_shape)) < 2:
        return False
    return shape[-1] == recurrent_shape[-1] and recurrent_shape[-1] % recurrent_shape[-2] == 0


def _find_cell_kernels(layer: Layer, cell: Layer) -> tuple[LayerKernel, LayerKernel]:
    """The kernel and the recurrent kernel of a cell. Their names hold the cell's where the user made it."""
    is_named = hasattr(layer.cell, "cells") or type(layer).__name__ == "RNN"
    prefix = f"{cell.name}/" if is_named else ""
    kernel, recurrent_kernel = (
        LayerKernel(prefix + name, getattr(cell, name), Layout(tuple(getattr(cell, name).shape)))
        for name in ("kernel", "recurrent_kernel")
    )
    return kernel, recurrent_kernel
