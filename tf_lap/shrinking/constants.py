"""Channels that are the same whatever a network reads, because nothing but zero weights leads to them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.coupling import Coupling
from tf_lap.graph.model_graph import BoundaryStep, Kernel, KernelStep, Recipe, RuleStep
from tf_lap.samples import Batch
from tf_lap.shrinking.running import running
from tf_lap.shrinking.weights import find_connections

_TOLERANCE = 1e-5
"""How far a constant may be from one place to another, as a fraction of the largest number beside it: by rounding."""


class Constant(NamedTuple):
    """What a kernel reads in an input channel that is constant.

    Attributes:
        value: what it reads.
        obstacle: why its share cannot be put into the bias; None where it can.
    """

    value: float
    obstacle: str | None


def find_independent(recipe: Recipe, coupling: Coupling) -> list[np.ndarray]:
    """For each tensor which of its channels depend on nothing that enters the network: bool, `(channels,)`.

    Weights of zero lead to them alone, or channels that are such themselves. They may differ from place to place. Of a
    channel with a wall it is not known: layers may take it together with others.
    """
    depends: dict[int, np.ndarray] = {}
    walls = list(coupling.walls)

    def read(tensor: int) -> np.ndarray:
        # What no step has put out enters the network, or comes from the time step before.
        return depends.get(tensor, np.ones(len(coupling.tensor_classes[tensor]), bool))

    for step in recipe.steps:
        match step:
            case KernelStep():
                connections = find_connections(recipe.kernels[step.kernel])
                connections = connections.T if step.is_transposed else connections
                source = np.broadcast_to(read(step.source), len(connections))
                depends[step.target] = connections[source].any(axis=0)
            case RuleStep():
                energies = [read(source).astype(np.float32) for source in step.sources]
                depends[step.target] = step.energy_map.apply(*energies) > 0
            case BoundaryStep():
                depends.update((target, np.ones(len(coupling.tensor_classes[target]), bool)) for target in step.targets)
        if isinstance(step, (KernelStep, RuleStep)):
            depends[step.target] = depends[step.target] | np.isin(coupling.tensor_classes[step.target], walls)
    return [~read(tensor) for tensor in range(recipe.tensor_count)]


def find_constants(
    model: Model, recipe: Recipe, independent: Sequence[np.ndarray], samples: Sequence[Batch]
) -> dict[int, dict[int, Constant]]:
    """What kernels read in input channels that are constant, found by running the model.

    Args:
        model: the model.
        recipe: its recipe.
        independent: what `find_independent` gives.
        samples: inputs of the model.

    Returns:
        By kernel and input channel.
    """
    called = {id(layer) for layer in compat.called_layers(model)}
    candidates: dict[int, np.ndarray] = {}
    axes: dict[int, int] = {}
    for step in recipe.steps:
        if isinstance(step, KernelStep):
            kernel = recipe.kernels[step.kernel]
            is_candidate = np.broadcast_to(independent[step.source], kernel.layout.inputs)
            if len(step.read_axes) != 1 or id(kernel.layer) not in called:
                is_candidate = np.zeros(kernel.layout.inputs, bool)
            candidates[step.kernel] = is_candidate & candidates.get(step.kernel, True)
            axes[step.kernel] = (*step.read_axes, -1)[0]
    for number, is_candidate in candidates.items():
        candidates[number] = is_candidate & find_connections(recipe.kernels[number]).any(axis=1)
    layers = {number: recipe.kernels[number].layer for number, inputs in candidates.items() if inputs.any()}
    if not layers:
        return {}
    read = _record_inputs(model, {id(layer): layer for layer in layers.values()}, samples)
    return {
        number: _select_constants(recipe.kernels[number], candidates[number], axes[number], read.get(id(layer), []))
        for number, layer in layers.items()
    }


def _record_inputs(model: Model, layers: Mapping[int, Layer], samples: Sequence[Batch]) -> dict[int, list[np.ndarray]]:
    """What layers are called with while the model runs, by the id of the layer."""
    read: dict[int, list[np.ndarray]] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(model))
        for number, layer in layers.items():

            def record(entering: Any, _: Any, number: int = number) -> None:
                read.setdefault(number, []).append(compat.host_value(entering))

            stack.enter_context(compat.intercepted(layer, record, linear=False))
        for sample in samples:
            exporting.tensors(model, sample)
    return read


def _select_constants(
    kernel: Kernel, candidates: np.ndarray, axis: int, arrays: Sequence[np.ndarray]
) -> dict[int, Constant]:
    """Those of a kernel's input channels that are one number at all places of all arrays."""
    if not arrays:
        return {}
    rows = np.concatenate([np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]) for array in arrays])
    low, high = rows.min(axis=0), rows.max(axis=0)
    is_constant = candidates & (high - low <= _TOLERANCE * np.maximum(np.abs(low), np.abs(high)))
    values = (low + high) / 2
    return {
        int(channel): Constant(float(values[channel]), find_fold_obstacle(kernel) if values[channel] else None)
        for channel in np.flatnonzero(is_constant)
    }


def find_fold_obstacle(kernel: Kernel) -> str | None:
    """Why what a kernel makes of a constant cannot be put into its layer's bias; None where it can."""
    layer, name = kernel.layer, type(kernel.layer).__name__
    if kernel.layout.swapped or kernel.layout.roles or kernel.layout.groups > 1 or kernel.is_tied:
        return f"the kernel of {name} {kernel.path!r} is not one that every place reads alike"
    if "use_bias" not in layer.get_config():
        return f"{name} {kernel.path!r} has no bias"
    if getattr(layer, "padding", "valid") != "valid":
        return f"{name} {kernel.path!r} pads with zeros, so that a constant is another number at the border"
    return None
