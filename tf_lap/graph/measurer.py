"""Measuring a model: the energies of its kernels, those around them, and whether all of them are finite.

With a reader of tensors everything here is a tensor, and can be traced. With a reader of arrays it is NumPy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Variable
from tf_lap.graph.energy import Energies, KernelEnergies, far_sweep, filled, is_on_host, sweep
from tf_lap.graph.energy_maps import Array, Gather, Reader
from tf_lap.graph.model_graph import Recipe, RuleStep
from tf_lap.graph.scale import Scale
from tf_lap.graph.scaled_weights import ScaledWeights

Override = Mapping[int, tuple[Sequence[int], Sequence[int]]]
"""Kernel -> the kernels that feed it and that read it, in place of what the graph says."""

Gains = Mapping[int, Any]
"""Kernel -> what its weights are multiplied by before they are measured and scored, where that is anything."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Measurer:
    """What measures a model's energies.

    Attributes:
        recipe: the resolved model.
        scale: what the weights of each kernel are multiplied by before they are measured.
        distance: how many kernels on a side energy comes from: 0 none, 1 the neighbours, None the whole path.
        override: neighbours given by the user.
        has_plain_energies: whether energies are those of the weights as they are, whatever gains there are.
    """

    recipe: Recipe
    scale: Scale
    distance: int | None = 1
    override: Override = dataclasses.field(default_factory=dict)
    has_plain_energies: bool = False

    def measure(self, gains: Gains, read: Reader = compat.value) -> tuple[KernelEnergies, Array]:
        """The energies of all kernels, and for each the sum of its squares before it is put on the common scale.

        Args:
            gains: what weights are multiplied by first.
            read: reads variables, into tensors or arrays.

        Returns:
            The kernel energies, and float32 of shape `(kernels,)`.
        """
        numbers = range(len(self.recipe.kernels))
        kernel_energies = [self.measure_kernel(number, gains, read) for number in numbers]
        on_host = is_on_host(kernel_energies)
        add_up = np.sum if on_host else tf.reduce_sum
        totals = [add_up(by_input) / self.scale.factor(i) for i, (by_input, _) in enumerate(kernel_energies)]
        return kernel_energies, np.asarray(totals) if on_host else tf.stack(totals)

    def measure_kernel(self, number: int, gains: Gains, read: Reader = compat.value) -> tuple[Array, Array]:
        """The energies of one kernel, on the scale that all kernels share."""
        kernel = self.recipe.kernels[number]
        weights = read(kernel.variable)
        gains = self.energy_gains(gains)
        if isinstance(weights, np.ndarray):
            weights = weights.reshape(kernel.layout.shape)  # a vector has one axis only
            scaled = ScaledWeights.of(kernel.layout, weights, self.scale.unit(number), gains.get(number))
            by_input, by_output = scaled.energies(kernel.layout.plain)
            factor: Any = np.float32(self.scale.factor(number))
        else:
            by_input, by_output = kernel.layout.energies(self.scaled(number, gains, weights))
            factor = self.scale.factor(number)
        return (by_input, by_output) if factor == 1 else (by_input * factor, by_output * factor)

    def energy_gains(self, gains: Gains) -> Gains:
        """What kernels are multiplied by before their energies are measured."""
        return {} if self.has_plain_energies else gains

    def scaled(self, number: int, gains: Gains, weights: Array) -> tf.Tensor:
        """A kernel's weights as they are measured and scored: a float32 tensor of its shape."""
        values = compat.value(weights)
        unit = self.scale.unit(number)
        if unit != 1:
            values *= unit
        return values * gains[number] if number in gains else values

    def energies_around(
        self, kernel_energies: KernelEnergies, gains: Gains, read: Reader = compat.value
    ) -> tuple[Energies, Array]:
        """The energies around all kernels, and for each kernel whether they are finite: bool of shape `(kernels,)`.

        Args:
            kernel_energies: as `measure` gives them.
            gains: as `measure` took them.
            read: reads variables into arrays like the kernel energies.
        """
        if self.distance == 0:
            incoming = [filled(by_input, 1.0)[np.newaxis] for by_input, _ in kernel_energies]
            outgoing = [filled(by_output, 1.0)[np.newaxis] for _, by_output in kernel_energies]
        else:
            incoming, outgoing = self._sweep(kernel_energies, gains, read)
            for kernel, (previous, following) in self.override.items():
                by_input, by_output = kernel_energies[kernel]
                incoming[kernel] = _fed([kernel_energies[p][1] for p in previous], by_input, self.scale)
                outgoing[kernel] = _fed([kernel_energies[f][0] for f in following], by_output, self.scale)
        # A bound on the kernel's scores. Sums, because a maximum may pass a NaN over.
        if is_on_host(kernel_energies):
            bounds = [
                np.sqrt(back).sum() * np.sqrt(ahead).sum() * np.sqrt(by_input.sum())
                for back, ahead, (by_input, _) in zip(incoming, outgoing, kernel_energies, strict=True)
            ]
            return (incoming, outgoing), np.isfinite(bounds)
        finite = [
            tf.math.is_finite(
                tf.reduce_sum(tf.sqrt(back)) * tf.reduce_sum(tf.sqrt(ahead)) * tf.sqrt(tf.reduce_sum(by_input))
            )
            for back, ahead, (by_input, _) in zip(incoming, outgoing, kernel_energies, strict=True)
        ]
        return (incoming, outgoing), tf.stack(finite)

    def _sweep(self, kernel_energies: KernelEnergies, gains: Gains, read: Reader) -> Energies:
        if self.distance == 1:
            return sweep(self.recipe, kernel_energies, self.scale, read)
        gains = self.energy_gains(gains)
        weights = [self.scaled(number, gains, read(k.variable)) for number, k in enumerate(self.recipe.kernels)]
        return far_sweep(
            self.recipe, weights, self.distance, self.scale, lambda variable: tf.convert_to_tensor(read(variable))
        )

    @functools.cached_property
    def variables_between(self) -> dict[str, list[Variable]]:
        """The weights of layers that are no kernels but have a channel rule, by the names of the layers."""
        kernels = {id(kernel.variable) for kernel in self.recipe.kernels}
        layers = dict.fromkeys(step.layer for step in self.recipe.steps if isinstance(step, RuleStep))
        weights = {
            layer.name: [v for v in compat.own_weights(layer) if id(v) not in kernels and compat.is_kernel_variable(v)]
            for layer in layers
        }
        return {name: variables for name, variables in weights.items() if variables}

    def is_finite_between(self, read: Reader = compat.value) -> Array:
        """Whether the weights of layers between the kernels are finite: a bool, or a bool scalar tensor.

        Not all of them show in the energies: the variance of a normalization does, its shift does not.
        """
        arrays = [read(variable) for variables in self.variables_between.values() for variable in variables]
        if all(isinstance(array, np.ndarray) for array in arrays):
            return all(bool(np.isfinite(array).all()) for array in arrays)
        return tf.reduce_all(tf.math.is_finite(tf.concat([tf.reshape(array, [-1]) for array in arrays], axis=0)))


def _fed(energies: Sequence[Array], like: Array, scale: Scale) -> Array:
    """The sum of neighbours' energies in the channels of `like`: `(1, channels)`, those of an end where there is none.

    A neighbour with a multiple of the channels (behind a Flatten) adds up over it; one with a fraction of them repeats.
    """
    if not energies:
        return filled(like, scale.end())[np.newaxis]
    width = like.shape[0]
    parts = []
    for energy in energies:
        channels = energy.shape[0]
        repeated = Gather(np.arange(width) % channels if channels < width else np.arange(channels).reshape(-1, width).T)
        parts.append(repeated.apply(energy) * max(1, channels // width))
    return sum(parts[1:], start=parts[0])[np.newaxis]
