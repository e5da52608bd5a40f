"""Mask updates as functions that TensorFlow traces once: for kernels on accelerators."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_lap.graph.energy import Energies, KernelEnergies
from tf_lap.pruning.mask_update import Gains, Updated, Updater


class TracedUpdater:
    """What one pruner computes where its kernels are on an accelerator: weights, scores and masks stay there.

    Each function is traced at its first call, and not again: counts and energies are tensors. It has the methods of
    `HostUpdater`, and gives counts and flags as arrays like that.

    Args:
        updater: the model, the masks of its kernels, and the choices.
    """

    def __init__(self, updater: Updater) -> None:
        self._updater = updater
        # Partials: TensorFlow counts the tracings of a method over all instances, and warns of the fifth pruner.
        trace = functools.partial(tf.function, autograph=False)
        self.measured = trace(functools.partial(updater.measure))
        self.surrounded = trace(functools.partial(updater.all_energies))
        self.updated = trace(functools.partial(updater.update))
        self.chosen = [trace(functools.partial(updater.choose_one, target)) for target in range(len(updater.targets))]

    def measure(self, gains: Gains) -> tuple[KernelEnergies, np.ndarray]:
        """As `Updater.measure`."""
        kernel_energies, totals = self.measured(gains)
        return kernel_energies, totals.numpy()

    def all_energies(self, kernel_energies: KernelEnergies, gains: Gains) -> tuple[Energies, np.ndarray]:
        """As `Updater.all_energies`."""
        energies, finite = self.surrounded(kernel_energies, gains)
        return energies, finite.numpy()

    def between_sound(self) -> bool:
        """As `Updater.between_sound`."""
        return bool(self._updater.between_sound())

    def update(self, keep: Sequence[int], gains: Gains) -> Updated:
        """As `Updater.update`."""
        updated = self.updated(tf.constant(keep, tf.int32), gains)
        return Updated(*(field.numpy() for field in updated))

    def choose_one(
        self, target: int, energies: Energies, keep: Sequence[int], gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], int]:
        """As `Updater.choose_one`."""
        kernel_energies, kept = self.chosen[target](energies, tf.constant(keep, tf.int32), gains)
        return kernel_energies, int(kept)
