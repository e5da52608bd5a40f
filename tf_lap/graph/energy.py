"""The sweep: incoming energies flow forward through a recipe, and outgoing energies flow back.

The incoming energy of a tensor is what producers put into its channels. The outgoing energy is what
consumers read from them. Between kernels every step is a linear map of energies. Forward the map is applied; backward
its transpose is applied.

Kernel energies are NumPy arrays or tensors, and the results are of the same kind. On the host NumPy is far
quicker, because a sweep is many operations on short vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Model
from tf_lap.graph.energy_maps import Array, EnergyMap, Reader, shrink
from tf_lap.graph.full_sweep import sweep_to_ends
from tf_lap.graph.model_graph import BoundaryStep, KernelStep, ProductStep, Recipe, RuleStep
from tf_lap.graph.resolver import resolve
from tf_lap.graph.scale import Scale

KernelEnergies: TypeAlias = list[tuple[Array, Array]]
"""For each kernel the sums of squares by input channel, `(inputs,)`, and by output channel, `(outputs,)`, float32."""
Energies: TypeAlias = tuple[list[Array], list[Array]]
"""For each kernel the incoming energies `(uses, inputs)`, and the outgoing energies `(uses, outputs)`, float32."""
UseEnergies: TypeAlias = Sequence[Sequence[Array]]
"""For each kernel a vector for each of its uses."""


class ChannelEnergies(NamedTuple):
    """The energies around a kernel: squared Frobenius norms, one number a channel.

    Attributes:
        incoming: what is put into each of the kernel's input channels: float32, shape `(channels,)`, or
            `(uses, channels)` for a layer used several times.
        outgoing: what is read from each of its output channels, shaped alike.
    """

    incoming: np.ndarray
    outgoing: np.ndarray


def measure_kernels(recipe: Recipe) -> KernelEnergies:
    """For each kernel the energies that it reads, `(inputs,)`, and puts out, `(outputs,)`, in one pass over it."""
    return [kernel.layout.energies(compat.value(kernel.variable)) for kernel in recipe.kernels]


def sweep(
    recipe: Recipe, kernel_energies: KernelEnergies, scale: Scale | None = None, read: Reader | None = None
) -> Energies:
    """The energies around every use of every kernel.

    Args:
        recipe: the resolved model.
        kernel_energies: what each kernel reads and puts out, as `measure_kernels` gives it.
        scale: what the kernels were multiplied by when they were measured; None for unscaled weights.
        read: reads the variables between the kernels into arrays like the kernel energies; by default their present
            values.

    Returns:
        Two lists with an entry for each kernel: incoming energies `(uses, inputs)` and outgoing
        energies `(uses, outputs)`, float32.
    """
    read_energies, put_energies = _repeat_for_uses(recipe, kernel_energies)
    maps = _freeze_maps(recipe, kernel_energies, read)
    end = 1.0 if scale is None else scale.end()
    return _sweep_both_ways(recipe, maps, kernel_energies, read_energies, put_energies, end)


def far_sweep(
    recipe: Recipe,
    weights: Sequence[tf.Tensor],
    distance: int | None,
    scale: Scale | None = None,
    read: Reader = compat.value,
) -> Energies:
    """The energies around every use of every kernel when energy flows on through neighbouring kernels.

    A kernel puts out its squares times the energy of its inputs, in place of its squares alone. At distance 2 the
    neighbours' neighbours count, and so on.

    Args:
        recipe: the resolved model.
        weights: the values of its kernels.
        distance: how many kernels energy comes from on either side, 1 or more; None for all kernels.
        scale: what the weights were multiplied by; None for unscaled weights.
        read: reads the variables between the kernels into tensors.

    Returns:
        As `sweep`. Where `distance` is None, the energies of each kernel are divided by a number of its own, which
        does not change how its weights are ranked.
    """
    kernels = recipe.kernels
    scale = scale or Scale((0,) * len(kernels))
    squares = [kernel.layout.squares(value) for kernel, value in zip(kernels, weights, strict=True)]
    if distance is None:
        incoming, outgoing = sweep_to_ends(recipe, squares, scale, read)
        ones = [(tf.ones([kernel.layout.inputs]), tf.ones([kernel.layout.outputs])) for kernel in kernels]
        return _stack_energies(incoming, outgoing, ones)
    squares = [matrix * scale.factor(number) for number, matrix in enumerate(squares)]
    kernel_energies = [kernel.layout.sum_squares(matrix) for kernel, matrix in zip(kernels, squares, strict=True)]
    energies = sweep(recipe, kernel_energies, scale, read)
    maps = _freeze_maps(recipe, kernel_energies, read)
    for passed_kernels in range(2, distance + 1):
        put_energies, read_energies = [], []
        for number, (kernel, matrix, *sides) in enumerate(zip(kernels, squares, *energies, strict=True)):
            by_output = [kernel.layout.propagate(matrix, use) for use in tf.unstack(sides[0])]
            by_input = [kernel.layout.propagate_back(matrix, use) for use in tf.unstack(sides[1])]
            is_transposed = [(number, use) in recipe.transposed_uses for use in range(len(by_output))]
            pairs = list(zip(by_input, by_output, is_transposed, strict=True))
            read_energies.append([behind if transposed else before for before, behind, transposed in pairs])
            put_energies.append([before if transposed else behind for before, behind, transposed in pairs])
        end = scale.end(passed_kernels)
        energies = _sweep_both_ways(recipe, maps, kernel_energies, read_energies, put_energies, end)
    return energies


def _repeat_for_uses(recipe: Recipe, kernel_energies: KernelEnergies) -> tuple[list[list[Array]], list[list[Array]]]:
    """For each kernel what each of its uses reads, and what each puts out: the kernel's energies, repeated."""
    transposed_uses = recipe.transposed_uses
    read_energies: list[list[Array]] = []
    put_energies: list[list[Array]] = []
    for number, (kernel, (by_input, by_output)) in enumerate(zip(recipe.kernels, kernel_energies, strict=True)):
        is_transposed = [(number, use) in transposed_uses for use in range(kernel.uses)]
        read_energies.append([by_output if transposed else by_input for transposed in is_transposed])
        put_energies.append([by_input if transposed else by_output for transposed in is_transposed])
    return read_energies, put_energies


def _sweep_both_ways(
    recipe: Recipe,
    maps: Mapping[int, EnergyMap],
    kernel_energies: KernelEnergies,
    read_energies: UseEnergies,
    put_energies: UseEnergies,
    end: float,
) -> Energies:
    """The energies around every use of every kernel.

    Args:
        recipe: the resolved model.
        maps: the result of `_freeze_maps`.
        kernel_energies: the energies of each kernel. Those of a kernel without a known use tell lengths and kind.
        read_energies: what each use of a kernel reads, `(inputs,)`.
        put_energies: what each use of a kernel puts out, `(outputs,)`.
        end: the energy that the ends of the network put in and read, in each channel.
    """
    energies = _sweep_forward(recipe, maps, put_energies, end, is_on_host(kernel_energies))
    totals = _sweep_back(recipe, maps, energies, read_energies, end)
    incoming: list[list[Array]] = [[None] * kernel.uses for kernel in recipe.kernels]
    outgoing: list[list[Array]] = [[None] * kernel.uses for kernel in recipe.kernels]
    for kernel, use, source, target in recipe.kernel_uses:
        total = totals[target]
        layout = recipe.kernels[kernel].layout
        sides = energies[source], filled(energies[target], 0.0) if total is None else total
        before, behind = sides[::-1] if (kernel, use) in recipe.transposed_uses else sides
        incoming[kernel][use] = _spread(before, layout.inputs)
        outgoing[kernel][use] = _spread(behind, layout.outputs)
    return _stack_energies(incoming, outgoing, kernel_energies)


def _spread(energy: Array, channels: int) -> Array:
    """An energy as a vector `(channels,)`, where it may be one number for channels that are all alike."""
    return (np if isinstance(energy, np.ndarray) else tf).broadcast_to(energy, [channels])


def _sweep_forward(
    recipe: Recipe, maps: Mapping[int, EnergyMap], put_energies: UseEnergies, end: float, on_host: bool
) -> list[Array]:
    """The incoming energy of each tensor.

    Args:
        recipe: as in `_sweep_both_ways`, as all others but the last.
        maps: likewise.
        put_energies: likewise.
        end: likewise.
        on_host: whether energies are NumPy arrays.
    """
    energies: list[Array] = [np.full(1, end, np.float32) if on_host else tf.fill([1], end)] * recipe.tensor_count
    for step in recipe.steps:  # first, because a loop reads what a later step puts out
        if isinstance(step, KernelStep):
            energies[step.target] = put_energies[step.kernel][step.use]
    for step in recipe.steps:
        if isinstance(step, RuleStep):
            energies[step.target] = maps[step.target].apply(*(energies[source] for source in step.sources))
    return energies


def _sweep_back(
    recipe: Recipe, maps: Mapping[int, EnergyMap], energies: Sequence[Array], read_energies: UseEnergies, end: float
) -> list[Array | None]:
    """The outgoing energy of each tensor; None for one that nothing reads.

    Args:
        recipe: the resolved model.
        maps: the result of `_freeze_maps`.
        energies: the incoming energy of each tensor.
        read_energies: what each use of a kernel reads, `(inputs,)`.
        end: the energy that the ends of the network read, in each channel.
    """
    totals: list[Array | None] = [None] * recipe.tensor_count

    def add(tensor: int, energy: Array) -> None:
        total = totals[tensor]
        totals[tensor] = energy if total is None else total + energy

    for tensor, _ in recipe.outputs:
        add(tensor, filled(energies[tensor], end))
    for step in reversed(recipe.steps):
        match step:
            case KernelStep():
                add(step.source, shrink(read_energies[step.kernel][step.use], energies[step.source]))
            case RuleStep():
                total = totals[step.target]
                if total is not None:
                    parts = maps[step.target].transpose(total, *(energies[source] for source in step.sources))
                    for source, part in zip(step.sources, parts, strict=True):
                        add(source, part)
            case ProductStep():
                left, right = energies[step.left], energies[step.right]
                read_of_left = step.energy_map.apply(right)
                (read_of_right,) = step.energy_map.transpose(_spread(left, read_of_left.shape[0]), right)
                add(step.left, shrink(read_of_left, left))
                add(step.right, read_of_right)
            case BoundaryStep():
                for source in step.sources:
                    add(source, filled(energies[source], end))
    return totals


def _freeze_maps(recipe: Recipe, kernel_energies: KernelEnergies, read: Reader | None = None) -> dict[int, EnergyMap]:
    """The map that gives each tensor's energies, with the present values of its variables, by the tensor's number."""
    read = read or (compat.host_value if is_on_host(kernel_energies) else compat.value)
    return {step.target: step.energy_map.freeze(read) for step in recipe.steps if isinstance(step, RuleStep)}


def is_on_host(kernel_energies: KernelEnergies) -> bool:
    """Whether kernel energies are NumPy arrays."""
    return all(isinstance(side, np.ndarray) for energies in kernel_energies for side in energies)


def filled(energy: Array, value: float) -> Array:
    """A float32 vector of one value, as long as an energy and of its kind."""
    if isinstance(energy, np.ndarray):
        return np.full(energy.shape, value, np.float32)
    return tf.fill(energy.shape, tf.constant(value, tf.float32))


def _stack_energies(incoming: UseEnergies, outgoing: UseEnergies, kernel_energies: KernelEnergies) -> Energies:
    """The energies of each kernel's uses as one array.

    Args:
        incoming: what comes to each use of each kernel, `(inputs,)`.
        outgoing: what is read of each use of each kernel, `(outputs,)`.
        kernel_energies: vectors of the same lengths and kind.
    """
    stacked_incoming, stacked_outgoing = [], []
    for kernel_incoming, kernel_outgoing, (inputs, outputs) in zip(incoming, outgoing, kernel_energies, strict=True):
        stacked_incoming.append(_stack_uses(kernel_incoming, inputs))
        stacked_outgoing.append(_stack_uses(kernel_outgoing, outputs))
    return stacked_incoming, stacked_outgoing


def _stack_uses(uses: Sequence[Array], like: Array) -> Array:
    """Vectors stacked to `(uses, channels)`. Without any it is one row of ones, as long as `like` and of its kind."""
    uses = uses or [filled(like, 1.0)]
    return np.stack(uses) if isinstance(like, np.ndarray) else tf.stack(uses)


def channel_energies(model: Model) -> dict[str, ChannelEnergies]:
    """The energies around each kernel of a model: what lookahead scores multiply a weight by, squared.

    Example:

    >>> energies = tf_lap.channel_energies(model)
    >>> energies["dense_1"].incoming.shape  # the layer has 32 inputs
    (32,)

    Args:
        model: a built Keras model.

    Returns:
        A dictionary from layer path to `ChannelEnergies`, in topological order.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    recipe = resolve(model)
    incoming, outgoing = sweep(recipe, measure_kernels(recipe))
    return {
        kernel.path: ChannelEnergies(_drop_single_use(before), _drop_single_use(behind))
        for kernel, before, behind in zip(recipe.kernels, incoming, outgoing, strict=True)
    }


def _drop_single_use(energies: tf.Tensor) -> np.ndarray:
    """Energies `(uses, channels)` as an array, `(channels,)` where there is one use."""
    array = energies.numpy()
    return array[0] if len(array) == 1 else array
