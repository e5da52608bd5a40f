"""The sweep through all kernels before and behind each kernel, up to the ends of the network.

Energy goes once round a loop over time, to a kernel and behind it.

Through many layers energies would leave float32's range. So each tensor's energy is kept as a vector near 1 and the
logarithm of its scale. The outgoing energies are the derivatives of what the ends of the network receive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.energy_maps import Reader
from tf_lap.graph.model_graph import BoundaryStep, KernelStep, ProductStep, Recipe, RuleStep
from tf_lap.graph.scale import Scale

ScaledEnergy: TypeAlias = tuple[tf.Tensor, tf.Tensor]
"""An energy divided by its scale, `(channels,)`, and the natural logarithm of the scale, `()`, both float32."""

ZERO = tf.UnconnectedGradients.ZERO

# The logarithm for an energy of zeros: it must not set the scale of energies that it is added to.
_NO_SCALE = -1e30


def sweep_to_ends(
    recipe: Recipe, squares: Sequence[tf.Tensor], scale: Scale, read: Reader = compat.value
) -> tuple[list[list[tf.Tensor]], list[list[tf.Tensor]]]:
    """The energies around every use of every kernel, through all kernels before and behind it.

    Args:
        recipe: the resolved model.
        squares: for each kernel the squares of its weights, `(inputs of a group, outputs)`, float32.
        scale: what the weights were multiplied by.
        read: reads the variables between the kernels into tensors.

    Returns:
        For each kernel the incoming energies `(inputs,)` of its uses, and the outgoing energies `(outputs,)`, float32.
        The energies of each kernel are divided by a number of its own.
    """
    # A loop over time reads what the time step before put out: here, what a first time step puts out.
    looped: dict[int, ScaledEnergy] = {}
    loop_steps = recipe.loop_steps
    if loop_steps:
        nothing = {step.target: (tf.zeros([1]), tf.constant(_NO_SCALE)) for step in loop_steps}
        energies = _sweep_forward(recipe, squares, scale, read, nothing)[0]
        looped = {step.target: _put_energy(recipe, step, energies, squares, scale) for step in loop_steps}
    uses = recipe.kernel_uses
    # What a loop puts out is read at the next time step. Its gradients are those of a last time step.
    with tf.GradientTape(persistent=bool(loop_steps), watch_accessed_variables=False) as tape:
        for energy, _ in looped.values():
            tape.watch(energy)
        energies, ends = _sweep_forward(recipe, squares, scale, read, looped, tape)
        end_energies, end_scale = _to_common_scale(ends) if ends else ([tf.zeros([1])], tf.zeros([]))
        leaving = [tf.add_n([tf.reduce_sum(energy) for energy in end_energies])]
        repeated = [_put_energy(recipe, step, energies, squares, scale) for step in loop_steps]
    reads = [(tf.ones([]), end_scale)]
    if loop_steps:
        put_before = [energies[step.target][0] for step in loop_steps]
        last_reads = tape.gradient(leaving, put_before, unconnected_gradients=ZERO)
        for step, last_read, (energy, log_scale) in zip(loop_steps, last_reads, repeated, strict=True):
            leaving.append(energy)
            reads.append((last_read, end_scale + log_scale - energies[step.target][1]))
    put_energies = [energies[use.target][0] for use in uses]
    scaled_reads, read_scale = _to_common_scale(reads)
    gradients = tape.gradient(leaving, put_energies, scaled_reads, unconnected_gradients=ZERO)
    incoming: list[list[Any]] = [[None] * kernel.uses for kernel in recipe.kernels]
    outgoing: list[list[Any]] = [[None] * kernel.uses for kernel in recipe.kernels]
    for (kernel, number, source, target), gradient in zip(uses, gradients, strict=True):
        layout = recipe.kernels[kernel].layout
        # The derivative is by an energy that was divided by its scale. That by the energy itself is divided by it, too.
        sides = energies[source], (gradient, read_scale - energies[target][1])
        before, behind = sides[::-1] if (kernel, number) in recipe.transposed_uses else sides
        incoming[kernel][number] = tf.broadcast_to(before[0], [layout.inputs]), before[1]
        outgoing[kernel][number] = tf.broadcast_to(behind[0], [layout.outputs]), behind[1]
    return _drop_scales(incoming), _drop_scales(outgoing)


def _sweep_forward(
    recipe: Recipe,
    squares: Sequence[tf.Tensor],
    scale: Scale,
    read: Reader,
    looped: Mapping[int, ScaledEnergy],
    tape: tf.GradientTape | None = None,
) -> tuple[list[ScaledEnergy], list[ScaledEnergy]]:
    """The energy of each tensor, and what the ends of the network receive.

    Args:
        recipe: as in `sweep_to_ends`, as the next three.
        squares: likewise.
        scale: likewise.
        read: likewise.
        looped: the energies of tensors that loops over time read.
        tape: watches what kernels put out.
    """
    energies: list[ScaledEnergy] = [(tf.ones([1]), tf.zeros([]))] * recipe.tensor_count
    for tensor, energy in looped.items():
        energies[tensor] = energy
    ends: list[ScaledEnergy] = []
    for step in recipe.steps:
        match step:
            case KernelStep():
                if step.target not in looped:
                    energies[step.target] = _put_energy(recipe, step, energies, squares, scale)
                    if tape is not None:
                        tape.watch(energies[step.target][0])
            case RuleStep():
                parts, log_scale = _to_common_scale([energies[source] for source in step.sources])
                energies[step.target] = _normalize(step.energy_map.freeze(read).apply(*parts), log_scale)
                if tape is not None and step.kernel is not None:
                    tape.watch(energies[step.target][0])
            case ProductStep():  # each of the two is read by the other, as the derivatives of their product say
                (left, left_scale), (right, right_scale) = energies[step.left], energies[step.right]
                ends.append((left * step.energy_map.apply(right), left_scale + right_scale))
            case BoundaryStep():
                ends += [energies[source] for source in step.sources]
    return energies, ends + [energies[tensor] for tensor, _ in recipe.outputs]


def _put_energy(
    recipe: Recipe, step: KernelStep, energies: Sequence[ScaledEnergy], squares: Sequence[tf.Tensor], scale: Scale
) -> ScaledEnergy:
    """What a use of a kernel puts out."""
    layout, (energy, log_scale) = recipe.kernels[step.kernel].layout, energies[step.source]
    if step.is_transposed:
        put_energy = layout.propagate_back(squares[step.kernel], tf.broadcast_to(energy, [layout.outputs]))
    else:
        put_energy = layout.propagate(squares[step.kernel], tf.broadcast_to(energy, [layout.inputs]))
    return _normalize(put_energy, log_scale + scale.logarithm(step.kernel))


def _normalize(energy: tf.Tensor, log_scale: tf.Tensor) -> ScaledEnergy:
    """An energy `(channels,)` over its largest number, which goes into the scale."""
    largest = tf.stop_gradient(tf.reduce_max(energy))
    unit = tf.where((largest > 0) & tf.math.is_finite(largest), largest, 1.0)
    return energy / unit, tf.where(largest > 0, log_scale + tf.math.log(unit), _NO_SCALE)


def _to_common_scale(energies: Sequence[ScaledEnergy]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Energies over the largest of their scales, and the logarithm of that scale."""
    largest = tf.reduce_max(tf.stack([log_scale for _, log_scale in energies]))
    return [energy * tf.exp(log_scale - largest) for energy, log_scale in energies], largest


def _drop_scales(energies: Sequence[Sequence[ScaledEnergy]]) -> list[list[tf.Tensor]]:
    """The energies of each kernel's uses on a scale that its uses share."""
    return [_to_common_scale(uses)[0] if uses else [] for uses in energies]
