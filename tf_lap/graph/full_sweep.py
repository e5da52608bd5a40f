"""The sweep through all kernels before and behind each kernel, up to the ends of the network.

Through many layers energies would leave float32's range. So each tensor's energy is kept as a vector near 1 and the
logarithm of its scale. The outgoing energies are the derivatives of what the ends of the network receive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.energy_maps import Reader
from tf_lap.graph.model_graph import BoundaryStep, KernelStep, Recipe, RuleStep
from tf_lap.graph.scale import Scale

ScaledEnergy: TypeAlias = tuple[tf.Tensor, tf.Tensor]
"""An energy divided by its scale, `(channels,)`, and the natural logarithm of the scale, `()`, both float32."""

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
    incoming: list[list[ScaledEnergy]] = [[] for _ in recipe.kernels]
    put_energies: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    put_scales: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    energies: list[ScaledEnergy] = [(tf.ones([1]), tf.zeros([]))] * recipe.tensor_count
    ends: list[ScaledEnergy] = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for step in recipe.steps:
            match step:
                case KernelStep(kernel=kernel):
                    layout = recipe.kernels[kernel].layout
                    energy, log_scale = energies[step.source]
                    energy = tf.broadcast_to(energy, [layout.inputs])
                    incoming[kernel].append((energy, log_scale))
                    put_energy, put_scale = _normalize(
                        layout.propagate(squares[kernel], energy), log_scale + scale.logarithm(kernel)
                    )
                    tape.watch(put_energy)
                    put_energies[kernel].append(put_energy)
                    put_scales[kernel].append(put_scale)
                    energies[step.target] = put_energy, put_scale
                case RuleStep():
                    parts, log_scale = _to_common_scale([energies[source] for source in step.sources])
                    energies[step.target] = _normalize(step.energy_map.freeze(read).apply(*parts), log_scale)
                case BoundaryStep():
                    ends += [energies[source] for source in step.sources]
        ends += [energies[tensor] for tensor, _ in recipe.outputs]
        end_energies = _to_common_scale(ends)[0] if ends else [tf.zeros([1])]
        total = tf.add_n([tf.reduce_sum(energy) for energy in end_energies])
    gradients = tape.gradient(total, put_energies, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # The derivative is by an energy that was divided by its scale. That by the energy itself is divided by the scale.
    outgoing = [
        [(gradient, -log_scale) for gradient, log_scale in zip(*uses, strict=True)]
        for uses in zip(gradients, put_scales, strict=True)
    ]
    return _drop_scales(incoming), _drop_scales(outgoing)


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
