"""One mask update as tensors, which can be traced: measure, choose masks, zero what they drop.

It is made of TensorFlow operations over the model's variables, which stay where they are. Only a few numbers for each
kernel cross to the host: how many weights it keeps, and whether it and the energies around it are finite. Where one is
not, nothing is changed, and the pruner names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.energy import Energies
from tf_lap.graph.energy_maps import Array
from tf_lap.graph.measurer import Gains, Measurer
from tf_lap.pruning.mask_selection import KernelWeights, MaskSelection
from tf_lap.topk.traced_select import split_into_batches


class UpdateResult(NamedTuple):
    """What an update gives: tensors from a graph, else arrays. Where something is not finite, nothing was changed.

    Attributes:
        totals: those of `Measurer.measure`; one that is not finite stands for a kernel that is not.
        finite_around: the flags of `Measurer.energies_around`.
        finite_between: that of `Measurer.is_finite_between`.
        kept: how many weights each target keeps.
    """

    totals: Array
    finite_around: Array
    finite_between: Array
    kept: Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Updater:
    """What one pruner computes.

    Attributes:
        selection: the model, and how masks are chosen.
        targets: which kernels of the recipe are pruned.
        masks: a bool variable for each target, True where the weight stays.
    """

    selection: MaskSelection
    targets: Sequence[int]
    masks: Sequence[tf.Variable]

    @property
    def measurer(self) -> Measurer:
        """What measures the model."""
        return self.selection.measurer

    def update(self, keep: tf.Tensor, gains: Gains) -> UpdateResult:
        """One update of all targets at once.

        Args:
            keep: int32, how many units each target keeps, or all together where they are pooled.
            gains: what weights are multiplied by before they are scored.
        """
        kernel_energies, totals = self.measurer.measure(gains)
        energies, finite_around = self.measurer.energies_around(kernel_energies, gains)
        finite_between = self.measurer.is_finite_between()
        kept = tf.cond(
            tf.reduce_all(tf.math.is_finite(totals)) & tf.reduce_all(finite_around) & finite_between,
            lambda: self._choose_all(energies, keep, gains),
            lambda: tf.zeros([len(self.targets)], tf.float64),
        )
        return UpdateResult(totals, finite_around, finite_between, kept)

    def choose_one(
        self, target: int, energies: Energies, keep: tf.Tensor, gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """Chooses and applies the mask of one target; returns the energies of its kernel afterwards and its kept count.

        Args:
            target: which one, a Python integer.
            energies: as `Measurer.energies_around` gives them.
            keep: as `update` takes it.
            gains: likewise.
        """
        kept = self._choose([target], energies, keep, gains, [[0]])[0]
        with tf.control_dependencies([kept]):
            return self.measurer.measure_kernel(self.targets[target], gains), kept

    @functools.cached_property
    def _batches(self) -> list[tuple[list[int], list[list[int]]]]:
        """Which targets are chosen at once, and which of these are ranked together."""
        everything = list(range(len(self.targets)))
        if self.selection.allocation.pooled:
            return [(everything, [everything])]
        sizes = [self.measurer.recipe.kernels[target].layout.size for target in self.targets]
        return [(batch, [[i] for i in range(len(batch))]) for batch in split_into_batches(sizes)]

    def _choose_all(self, energies: Energies, keep: tf.Tensor, gains: Gains) -> tf.Tensor:
        kept: list[tf.Tensor] = []
        for batch, groups in self._batches:
            # One batch after the other: what they need meanwhile adds up.
            with tf.control_dependencies(kept[-1:]):
                kept.append(self._choose(batch, energies, keep, gains, groups))
        return tf.concat(kept, axis=0)

    def _choose(
        self, targets: Sequence[int], energies: Energies, keep: tf.Tensor, gains: Gains, groups: list[list[int]]
    ) -> tf.Tensor:
        """Ranks some targets, in groups, and applies their masks; how many weights each keeps, float64.

        Args:
            targets: which.
            energies: as `Measurer.energies_around` gives them.
            keep: as `update` takes it.
            gains: likewise.
            groups: which of these targets are ranked together.
        """
        keep = keep if self.selection.allocation.pooled else keep[targets[0] : targets[-1] + 1]
        variables = [self.measurer.recipe.kernels[self.targets[target]].variable for target in targets]
        kernels = [
            KernelWeights(
                self.targets[target], tf.convert_to_tensor(variable), tf.convert_to_tensor(self.masks[target])
            )
            for target, variable in zip(targets, variables, strict=True)
        ]
        masks = self.selection.select(kernels, energies, keep, gains, groups).masks
        for target, variable, mask, kernel in zip(targets, variables, masks, kernels, strict=True):
            self.masks[target].assign(mask)
            compat.assign(variable, tf.where(mask, kernel.values, tf.zeros([], kernel.values.dtype)))
        return tf.stack([tf.reduce_sum(tf.cast(mask, tf.float64)) for mask in masks])
