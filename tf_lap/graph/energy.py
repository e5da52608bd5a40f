"""The sweep: energies flow forward through a recipe, and what is read of them flows back.

The incoming energy of a tensor is what producers put into its channels; the outgoing energy is what
consumers read from them. Between kernels every step is a linear map of energies: forward it is applied, and backward
its transpose is.

Kernel energies are NumPy arrays or tensors, and what comes of them is of the same kind. On the host NumPy is far
quicker: a sweep is many operations on short vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.energy_maps import Array, EnergyMap, Reader, shrunk
from tf_lap.graph.resolver import Read, Recipe, Rule, Wall, resolve
from tf_lap.graph.scale import Scale

KernelEnergies = list[tuple[Array, Array]]
"""For each kernel the sums of squares by input channel, `(inputs,)`, and by output channel, `(outputs,)`."""
Energies = tuple[list[Array], list[Array]]
Uses = Sequence[Sequence[Array]]
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
        scale: what the kernels were multiplied by when they were measured; None where weights are measured as they are.
        read: reads the variables between the kernels into arrays like the kernel energies; by default as they are now.

    Returns:
        Two lists with an entry for each kernel: incoming energies `(uses, inputs)` and outgoing
        energies `(uses, outputs)`, float32.
    """
    readings = [[energies[0]] * kernel.uses for kernel, energies in zip(recipe.kernels, kernel_energies, strict=True)]
    put = [[energies[1]] * kernel.uses for kernel, energies in zip(recipe.kernels, kernel_energies, strict=True)]
    maps = _present_maps(recipe, kernel_energies, read)
    return _around(recipe, maps, kernel_energies, readings, put, 1.0 if scale is None else scale.end())


def far_sweep(
    recipe: Recipe, weights: Sequence[tf.Tensor], distance: int | None, scale: Scale | None = None
) -> Energies:
    """The energies around every use of every kernel when energy flows on through neighbouring kernels.

    A kernel puts out its squares times the energy of its inputs, in place of its squares alone: at distance 2 the
    neighbours' neighbours count, and so on.

    Args:
        recipe: the resolved model.
        weights: the values of its kernels.
        distance: how many kernels energy comes from on either side, 1 or more; None: all the way.
        scale: what the weights were multiplied by; None where they are as they are.

    Returns:
        As `sweep`; all the way, each kernel's are divided by a number, which ranks its weights the same.
    """
    kernels = recipe.kernels
    scale = scale or Scale((0,) * len(kernels))
    squares = [kernel.layout.squares(w) for kernel, w in zip(kernels, weights, strict=True)]
    if distance is None:
        return _all_the_way(recipe, squares, scale)
    squares = [matrix * scale.factor(i) for i, matrix in enumerate(squares)]
    kernel_energies = [kernel.layout.sums(matrix) for kernel, matrix in zip(kernels, squares, strict=True)]
    around = sweep(recipe, kernel_energies, scale)
    for kernels_passed in range(2, distance + 1):
        sides = list(zip(kernels, squares, *around, strict=True))
        put = [[k.layout.put_on(m, use) for use in tf.unstack(incoming)] for k, m, incoming, _ in sides]
        read = [[k.layout.put_back(m, use) for use in tf.unstack(outgoing)] for k, m, _, outgoing in sides]
        around = _around(
            recipe, _present_maps(recipe, kernel_energies), kernel_energies, read, put, scale.end(kernels_passed)
        )
    return around


def _around(
    recipe: Recipe, maps: Mapping[int, EnergyMap], kernel_energies: KernelEnergies, read: Uses, put: Uses, end: float
) -> Energies:
    """The energies around every use of every kernel.

    Args:
        recipe: the resolved model.
        maps: as `_present_maps` gives them.
        kernel_energies: what stands in for a kernel that no use is known of.
        read: what each use of a kernel reads, `(inputs,)`.
        put: what it puts out, `(outputs,)`.
        end: what the ends of the network put in and read, in each channel.
    """
    incoming = [[energies[0]] * kernel.uses for kernel, energies in zip(recipe.kernels, kernel_energies, strict=True)]
    outgoing = [[energies[1]] * kernel.uses for kernel, energies in zip(recipe.kernels, kernel_energies, strict=True)]
    energies = _forward(recipe, maps, incoming, put, end)
    readings: list[Array | None] = [None] * recipe.tensors

    def add(tensor: int, reading: Array) -> None:
        before = readings[tensor]
        readings[tensor] = reading if before is None else before + reading

    for tensor, _ in recipe.outputs:
        add(tensor, filled(energies[tensor], end))
    for step in reversed(recipe.steps):
        match step:
            case Read(kernel=kernel, use=use, source=source, target=target):
                reading = readings[target]
                outgoing[kernel][use] = filled(energies[target], 0.0) if reading is None else reading
                add(source, shrunk(read[kernel][use], energies[source]))
            case Rule(sources=sources, target=target):
                reading = readings[target]
                if reading is not None:
                    parts = maps[target].transpose(reading, *(energies[source] for source in sources))
                    for source, part in zip(sources, parts, strict=True):
                        add(source, part)
            case Wall(sources=sources):
                for source in sources:
                    add(source, filled(energies[source], end))
    return _stacked(incoming, outgoing, kernel_energies, end)


def _present_maps(recipe: Recipe, kernel_energies: KernelEnergies, read: Reader | None = None) -> dict[int, EnergyMap]:
    """The map that gives each tensor's energies, with its numbers as they are now."""
    read = read or (compat.host_value if on_host(kernel_energies) else compat.value)
    return {step.target: step.energy_map.read(read) for step in recipe.steps if isinstance(step, Rule)}


def _forward(
    recipe: Recipe, maps: Mapping[int, EnergyMap], incoming: list[list[Array]], put: Uses, end: float
) -> list[Array]:
    """The energy of each tensor; fills in what comes to each use of a kernel."""
    host = all(isinstance(use, np.ndarray) for uses in put for use in uses)
    energies = [np.full(1, end, np.float32) if host else tf.fill([1], end)] * recipe.tensors
    for step in recipe.steps:
        match step:
            case Read(kernel=kernel, use=use, source=source, target=target):
                inputs = [recipe.kernels[kernel].layout.inputs]
                spread = np.broadcast_to if host else tf.broadcast_to
                incoming[kernel][use] = spread(energies[source], inputs)
                energies[target] = put[kernel][use]
            case Rule(sources=sources, target=target):
                energies[target] = maps[target].apply(*(energies[source] for source in sources))
    return energies


def on_host(kernel_energies: KernelEnergies) -> bool:
    """Whether kernel energies are NumPy arrays."""
    return all(isinstance(side, np.ndarray) for energies in kernel_energies for side in energies)


def filled(energy: Array, value: float) -> Array:
    """A vector as long as an energy, of one value."""
    if isinstance(energy, np.ndarray):
        return np.full(energy.shape, value, np.float32)
    return tf.fill(energy.shape, tf.constant(value, tf.float32))


def _all_the_way(recipe: Recipe, squares: Sequence[tf.Tensor], scale: Scale) -> Energies:
    """The energies around every use of every kernel, through all kernels before and behind it.

    Through many layers they would leave float32's range. So each tensor's energy is a vector near 1 and the logarithm
    of its scale, and so is what the ends of the network receive, of which the outgoing energies are the derivatives.
    """
    incoming: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    sources: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    scales: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    energy = [(tf.ones([1]), tf.zeros([]))] * recipe.tensors
    ends = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for step in recipe.steps:
            match step:
                case Read(kernel=kernel, source=source, target=target):
                    layout = recipe.kernels[kernel].layout
                    arriving = tf.broadcast_to(energy[source][0], [layout.inputs])
                    incoming[kernel].append((arriving, energy[source][1]))
                    before = energy[source][1] + scale.logarithm(kernel)
                    leaf, leaf_scale = _near_one(layout.put_on(squares[kernel], arriving), before)
                    tape.watch(leaf)
                    sources[kernel].append(leaf)
                    scales[kernel].append(leaf_scale)
                    energy[target] = leaf, leaf_scale
                case Rule(sources=inputs, target=target, energy_map=energy_map):
                    parts, common = _common([energy[s] for s in inputs])
                    energy[target] = _near_one(energy_map.apply(*parts), common)
                case Wall(sources=inputs):
                    ends += [energy[s] for s in inputs]
        ends += [energy[tensor] for tensor, _ in recipe.outputs]
        parts, _ = _common(ends) if ends else ([tf.zeros([1])], None)
        total = tf.add_n([tf.reduce_sum(part) for part in parts])
    outgoing = tape.gradient(total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # A derivative by a vector over its scale is as much larger.
    ahead = [list(zip(each, map(tf.negative, s), strict=True)) for each, s in zip(outgoing, scales, strict=True)]
    sides = ([_common(uses)[0] if uses else [] for uses in side] for side in (incoming, ahead))
    return _stacked(*sides, [(tf.ones([k.layout.inputs]), tf.ones([k.layout.outputs])) for k in recipe.kernels], 1.0)


Scaled = tuple[tf.Tensor, tf.Tensor]
"""An energy over its scale, and the scale's logarithm."""


_NO_SCALE = -1e30


def _near_one(energy: tf.Tensor, scale: tf.Tensor) -> Scaled:
    largest = tf.stop_gradient(tf.reduce_max(energy))
    unit = tf.where((largest > 0) & tf.math.is_finite(largest), largest, 1.0)
    # A vector of zeros has no scale: it must not set that of what it is added to.
    return energy / unit, tf.where(largest > 0, scale + tf.math.log(unit), _NO_SCALE)


def _common(energies: Sequence[Scaled]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Energies over one scale, the largest."""
    scale = tf.reduce_max(tf.stack([scale for _, scale in energies]))
    return [energy * tf.exp(each - scale) for energy, each in energies], scale


def _stacked(incoming: Sequence[Any], outgoing: Sequence[Any], kernel_energies: KernelEnergies, end: float) -> Energies:
    backs = [_stack(e, n[0], end) for e, n in zip(incoming, kernel_energies, strict=True)]
    return backs, [_stack(e, n[1], end) for e, n in zip(outgoing, kernel_energies, strict=True)]


def _stack(uses: Sequence[Array], like: Array, end: float) -> Array:
    # A kernel whose surroundings are not known stands between ends on both sides.
    uses = uses or [filled(like, end)]
    return np.stack(uses) if isinstance(like, np.ndarray) else tf.stack(uses)


def channel_energies(model: Any) -> dict[str, ChannelEnergies]:
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
        kernel.path: ChannelEnergies(_used(back), _used(ahead))
        for kernel, back, ahead in zip(recipe.kernels, incoming, outgoing, strict=True)
    }


def _used(energies: tf.Tensor) -> np.ndarray:
    array = energies.numpy()
    return array[0] if len(array) == 1 else array
