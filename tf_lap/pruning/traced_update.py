"""Mask updates as functions that TensorFlow traces once: for kernels on accelerators."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_lap.graph.energy import Energies, KernelEnergies
from tf_lap.graph.measurer import Gains
from tf_lap.pruning.mask_update import Updater, UpdateResult


class TracedUpdater:
    """What one pruner computes where its kernels are on an accelerator: weights, scores and masks stay there.

    Each function is traced at its first call, and not again: counts and energies are tensors. It has the methods of
    `HostUpdater`, and gives counts and flags as arrays like that.

    Args:
        updater: the model, the masks of its kernels, and the choices.
    """

    def __init__(self, updater: Updater) -> None:
        self._measurer = updater.measurer
        # Partials: TensorFlow counts the tracings of a method over all instances, and warns of the fifth pruner.
        trace = functools.partial(tf.function, autograph=False)
        self.traced_measure = trace(functools.partial(self._measurer.measure))
        self.traced_around = trace(functools.partial(self._measurer.energies_around))
        self.traced_update = trace(functools.partial(updater.update))
        self.traced_choose = [
            trace(functools.partial(updater.choose_one, target)) for target in range(len(updater.targets))
        ]

    def measure(self, gains: Gains) -> tuple[KernelEnergies, np.ndarray]:
        """As `Measurer.measure`."""
        kernel_energies, totals = self.traced_measure(gains)
        return kernel_energies, totals.numpy()

    def energies_around(self, kernel_energies: KernelEnergies, gains: Gains) -> tuple[Energies, np.ndarray]:
        """As `Measurer.energies_around`."""
        energies, finite = self.traced_around(kernel_energies, gains)
        return energies, finite.numpy()

    def is_finite_between(self) -> bool:
        """As `Measurer.is_finite_between`."""
        return bool(self._measurer.is_finite_between())

    def update(self, keep: Sequence[int], gains: Gains) -> UpdateResult:
        """As `Updater.update`."""
        result = self.traced_update(tf.constant(keep, tf.int32), gains)
        return UpdateResult(*(field.numpy() for field in result))

    def choose_one(
        self, target: int, energies: Energies, keep: Sequence[int], gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], int]:
        """As `Updater.choose_one`."""
        kernel_energies, kept = self.traced_choose[target](energies, tf.constant(keep, tf.int32), gains)
        return kernel_energies, int(kept)
