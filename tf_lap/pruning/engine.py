"""Chooses a pruner's masks: in the right scale, on the host or on an accelerator, all at once or one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import Allocation
from tf_lap.channels.plan import ChannelPlan
from tf_lap.compat.types import Model
from tf_lap.graph.energy import KernelEnergies
from tf_lap.graph.measurer import Gains
from tf_lap.graph.scale import Scale
from tf_lap.pruning.channel_update import score_channels, update_channels
from tf_lap.pruning.host_update import HostUpdater
from tf_lap.pruning.mask_update import Updater
from tf_lap.pruning.soundness import MEASURED, find_fault
from tf_lap.pruning.traced_update import TracedUpdater


def choose_runner(updater: Updater) -> HostUpdater | TracedUpdater:
    """What runs an update: NumPy where the kernels are in the host's memory, else functions that are traced."""
    on_host = all(compat.is_on_host(kernel.variable) for kernel in updater.measurer.recipe.kernels)
    return HostUpdater(updater) if on_host else TracedUpdater(updater)


class Engine:
    """Chooses masks, once for each call of `update`.

    Args:
        model: the model.
        updater: its kernels, their masks, and how these are chosen.
        order: "simultaneous", "forward" or "backward".
        data: batches that the score is measured over; none where it needs none.
        channels: the groups of channels that go whole; None where weights go.
    """

    def __init__(
        self, model: Model, updater: Updater, order: str, data: Sequence[Any], channels: ChannelPlan | None = None
    ) -> None:
        self._model, self._order, self.data, self._channels = model, order, data, channels
        self.updater = updater
        self.runner = choose_runner(updater)

    def retarget(self, targets: Sequence[int], masks: Sequence[tf.Variable], allocation: Allocation) -> None:
        """Chooses masks of other kernels, or by another allocation, from now on.

        Args:
            targets: their numbers in the recipe.
            masks: a bool variable for each.
            allocation: whether kernels are ranked apart or together.
        """
        selection = dataclasses.replace(self.updater.selection, allocation=allocation)
        self.updater = dataclasses.replace(self.updater, selection=selection, targets=targets, masks=masks)
        self.runner = choose_runner(self.updater)

    def check(self) -> None:
        """Raises what `update` would raise for weights that are not finite.

        Raises:
            ValueError: a kernel, or a layer beside one, that is not finite.
        """
        self._measure({})

    def update(self, keep: Sequence[int]) -> list[int]:
        """Chooses all masks once, and zeroes what they drop.

        Args:
            keep: how many units each target keeps, or all together where they are pooled. With whole channels: how many
                each group of them keeps.

        Returns:
            How many weights each target keeps.

        Raises:
            ValueError: as `check`, or what is measured over data is not finite; nothing is changed then.
        """
        gains = self._measure_gains(self.updater.targets)
        if self._channels is not None:
            return update_channels(self._channels, self.updater, self._score_channels(gains), keep)
        if self._order != "simultaneous":
            return self._update_in_turn(keep, gains)
        result = self.runner.update(keep, gains)
        is_finite = bool(np.all(np.isfinite(result.totals)) and np.all(result.finite_around))
        if not is_finite and self._rescale(result.totals):
            result = self.runner.update(keep, gains)
        self._check_finite(result.totals, result.finite_around, result.finite_between, gains)
        self._rescale(result.totals)
        return [int(kept) for kept in result.kept]

    def score_channels(self) -> np.ndarray:
        """How much each class of channels matters: float64 `(classes,)`, not negative.

        Raises:
            ValueError: as `update`.
        """
        return self._score_channels(self._measure_gains(self.updater.targets))

    def _score_channels(self, gains: Gains) -> np.ndarray:
        assert self._channels is not None
        kernel_energies = self._measure(gains)
        energies, _ = self.runner.energies_around(kernel_energies, gains)
        return score_channels(self._channels, self.updater.selection, kernel_energies, energies, gains)

    def _update_in_turn(self, keep: Sequence[int], gains: Gains) -> list[int]:
        kernel_energies = self._measure(gains)
        targets = list(enumerate(self.updater.targets))
        kept = [0] * len(targets)
        follows_order = self._order == "forward" and not self.updater.selection.score.gains_in_energies
        for target, number in targets if self._order == "forward" else reversed(targets):
            if follows_order and target and number in gains:
                gains = {**gains, **self._measure_gains([number])}
            energies, _ = self.runner.energies_around(kernel_energies, gains)
            kernel_energies[number], kept[target] = self.runner.choose_one(target, energies, keep, gains)
        return kept

    def _measure(self, gains: Gains) -> KernelEnergies:
        kernel_energies, totals = self.runner.measure(gains)
        if self._rescale(totals):
            kernel_energies, totals = self.runner.measure(gains)
        _, finite_around = self.runner.energies_around(kernel_energies, gains)
        self._check_finite(totals, finite_around, self.runner.is_finite_between(), gains)
        return list(kernel_energies)

    def _measure_gains(self, targets: Sequence[int]) -> Gains:
        if not self.data:
            return {}
        recipe = self.updater.measurer.recipe
        gains = self.updater.selection.score.gains(self._model, recipe, targets, self.data)
        for number, gain in gains.items():
            if not bool(tf.reduce_all(tf.math.is_finite(gain))):
                raise ValueError(MEASURED.format(repr(recipe.kernels[number].path)))
        return gains

    def _rescale(self, totals: np.ndarray) -> bool:
        """Measures with another scale from now on, where the weights have moved away from the present one.

        Args:
            totals: as `Measurer.measure` gives them.

        Returns:
            Whether the scale is another one now.
        """
        measurer = self.updater.measurer
        sizes = [kernel.layout.size for kernel in measurer.recipe.kernels]
        if not measurer.scale.is_left_by(totals, sizes):
            return False
        scale = Scale.of(measurer.recipe)
        if scale == measurer.scale:  # a kernel of zeros has none
            return False
        selection = dataclasses.replace(self.updater.selection, measurer=dataclasses.replace(measurer, scale=scale))
        self.updater = dataclasses.replace(self.updater, selection=selection)
        self.runner = choose_runner(self.updater)
        return True

    def _check_finite(self, totals: np.ndarray, finite_around: np.ndarray, finite_between: bool, gains: Gains) -> None:
        fault = find_fault(self.updater.measurer, totals, finite_around, bool(finite_between), gains)
        if fault:
            raise ValueError(fault)
