"""One mask update as a graph, on the device: energies, scores, selection, masks, weights zeroed.

All but the energies, which may be arrays too, are TensorFlow operations over the model's variables. What crosses to the
host are two flags a kernel, so that the pruner can name one that is not finite (nothing is changed then), and how many
weights each keeps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import Allocation, best_first
from tf_lap.graph.energy import Energies, KernelEnergies, far_sweep, filled, on_host, sweep
from tf_lap.graph.energy_maps import Array, Gather, Reader
from tf_lap.graph.kernels import Layout
from tf_lap.graph.resolver import Recipe, Rule
from tf_lap.graph.scale import Scale
from tf_lap.patterns import Pattern, Ranked
from tf_lap.scores import Score
from tf_lap.topk.sort_keys import ranks
from tf_lap.topk.traced_select import batches, keep_largest

Override = dict[int, tuple[tuple[int, ...], tuple[int, ...]]]
"""Kernel -> the kernels that feed it and that read it, in place of what the graph says."""

AROUND = (
    "the energies around layer {} are not finite: a normalization layer beside it holds NaN, infinity or a negative "
    "variance, or weights beside it are too large for float32: restore sound weights, or rescale those that are too "
    "large"
)

BETWEEN = (
    "a layer between the kernels, such as a normalization, holds NaN or infinity: restore sound weights before pruning"
)

Gains = dict[int, tf.Tensor]
"""Kernel -> what its weights are multiplied by before they are scored, where that is anything."""


class Updated(NamedTuple):
    """What an update gives: tensors from a graph, else arrays.

    Attributes:
        totals: those of `Updater.measure`; one that is not finite stands for a kernel that is not.
        around: those of `Updater.all_energies`.
        between: that of `Updater.between_sound`. Where one of these is False, or a total is not finite, nothing was
            changed.
        kept: how many weights each target keeps.
    """

    totals: Array
    around: Array
    between: Array
    kept: Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Updater:
    """What one pruner computes.

    Attributes:
        recipe: the resolved model.
        targets: which kernels of the recipe are pruned.
        masks: a bool variable for each target, True where the weight stays.
        score: how much a weight matters.
        allocation: whether kernels are ranked apart or together.
        pattern: in what shape weights go.
        override: neighbours given by the user.
        scale: what the weights of each kernel are multiplied by before they are measured.
    """

    recipe: Recipe
    targets: Sequence[int]
    masks: Sequence[tf.Variable]
    score: Score
    allocation: Allocation
    pattern: Pattern
    override: Override
    scale: Scale

    def measure(self, gains: Gains) -> tuple[KernelEnergies, tf.Tensor]:
        """The energies of all kernels, and for each the sum of its squares before it is put on the common scale."""
        kernel_energies = self._kernel_energies(range(len(self.recipe.kernels)), gains)
        totals = [tf.reduce_sum(read) / self.scale.factor(number) for number, (read, _) in enumerate(kernel_energies)]
        return kernel_energies, tf.stack(totals)

    @functools.cached_property
    def between(self) -> dict[str, list[Any]]:
        """The weights of layers that are no kernels but have a channel rule, by the names of the layers."""
        kernels = {id(kernel.variable) for kernel in self.recipe.kernels}
        layers = dict.fromkeys(step.layer for step in self.recipe.steps if isinstance(step, Rule))
        weights = {
            layer.name: [v for v in compat.own_weights(layer) if id(v) not in kernels and compat.is_kernel_variable(v)]
            for layer in layers
        }
        return {name: variables for name, variables in weights.items() if variables}

    def between_sound(self) -> tf.Tensor:
        """Whether the weights of layers between the kernels are finite: a bool scalar.

        Not all of them show in the energies: the variance of a normalization does, its shift does not.
        """
        weights = [tf.reshape(compat.value(v), [-1]) for variables in self.between.values() for v in variables]
        return tf.reduce_all(tf.math.is_finite(tf.concat(weights, axis=0))) if weights else tf.constant(True)

    def _seen(self, number: int, gains: Gains, weights: tf.Tensor) -> tf.Tensor:
        """A kernel's weights as they are scored."""
        values = compat.value(weights)
        unit = self.scale.unit(number)
        if unit != 1:
            values *= unit
        return values * gains[number] if number in gains else values

    def _kernel_energies(self, numbers: Sequence[int], gains: Gains) -> KernelEnergies:
        kernels = [self.recipe.kernels[number] for number in numbers]
        kernel_energies = [
            kernel.layout.energies(self._seen(number, gains, kernel.variable))
            for number, kernel in zip(numbers, kernels, strict=True)
        ]
        factors = [self.scale.factor(number) for number in numbers]
        return [
            energies if factor == 1 else (energies[0] * factor, energies[1] * factor)
            for energies, factor in zip(kernel_energies, factors, strict=True)
        ]

    def all_energies(
        self, kernel_energies: KernelEnergies, gains: Gains, read: Reader | None = None
    ) -> tuple[Energies, tf.Tensor]:
        """The energies around all kernels, and a flag for each: whether they are finite.

        Args:
            kernel_energies: as `measure` gives them, or as arrays.
            gains: as `update` takes them.
            read: reads variables into arrays like the kernel energies; by default as they are now.
        """
        if self.score.needs_energies:
            incoming, outgoing = self._around(kernel_energies, gains, read)
            for kernel, (previous, following) in self.override.items():
                incoming[kernel] = _fed(
                    [kernel_energies[p][1] for p in previous], kernel_energies[kernel][0], self.scale
                )
                outgoing[kernel] = _fed(
                    [kernel_energies[f][0] for f in following], kernel_energies[kernel][1], self.scale
                )
        else:
            incoming = [filled(read, 1.0)[np.newaxis] for read, _ in kernel_energies]
            outgoing = [filled(put, 1.0)[np.newaxis] for _, put in kernel_energies]
        # A bound on the kernel's scores. Sums, because a maximum may pass a NaN over.
        if on_host(kernel_energies):
            bounds = [
                np.sqrt(back).sum() * np.sqrt(ahead).sum() * np.sqrt(read.sum())
                for back, ahead, (read, _) in zip(incoming, outgoing, kernel_energies, strict=True)
            ]
            return (incoming, outgoing), np.isfinite(bounds)
        finite = [
            tf.math.is_finite(
                tf.reduce_sum(tf.sqrt(back)) * tf.reduce_sum(tf.sqrt(ahead)) * tf.sqrt(tf.reduce_sum(read))
            )
            for back, ahead, (read, _) in zip(incoming, outgoing, kernel_energies, strict=True)
        ]
        return (incoming, outgoing), tf.stack(finite)

    def _around(self, kernel_energies: KernelEnergies, gains: Gains, read: Reader | None) -> Energies:
        distance = self.score.distance
        if distance == 1:
            return sweep(self.recipe, kernel_energies, self.scale, read)
        weights = [self._seen(number, gains, k.variable) for number, k in enumerate(self.recipe.kernels)]
        return far_sweep(self.recipe, weights, distance, self.scale)

    def update(self, keep: tf.Tensor, gains: Gains) -> Updated:
        """One update of all targets at once.

        Args:
            keep: int32, how many of the pattern's things each target keeps, or all together where they are pooled.
            gains: what weights are multiplied by before they are scored.
        """
        kernel_energies, totals = self.measure(gains)
        energies, around = self.all_energies(kernel_energies, gains)
        between = self.between_sound()
        kept = tf.cond(
            tf.reduce_all(tf.math.is_finite(totals)) & tf.reduce_all(around) & between,
            lambda: self._choose_all(energies, keep, gains),
            lambda: tf.zeros([len(self.targets)], tf.float64),
        )
        return Updated(totals, around, between, kept)

    @functools.cached_property
    def _batches(self) -> list[tuple[list[int], list[list[int]]]]:
        """Which targets are chosen at once, and which of these are ranked together."""
        everything = list(range(len(self.targets)))
        if self.allocation.pooled:
            return [(everything, [everything])]
        sizes = [self.recipe.kernels[target].layout.size for target in self.targets]
        return [(batch, [[i] for i in range(len(batch))]) for batch in batches(sizes)]

    def _choose_all(self, energies: Energies, keep: tf.Tensor, gains: Gains) -> tf.Tensor:
        kept: list[tf.Tensor] = []
        for batch, groups in self._batches:
            # One batch after the other: what they need meanwhile adds up.
            with tf.control_dependencies(kept[-1:]):
                kept.append(self._choose(batch, energies, keep, gains, groups))
        return tf.concat(kept, axis=0)

    def choose_one(
        self, target: int, energies: Energies, keep: tf.Tensor, gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """Chooses and applies the mask of one target; returns the energies of its kernel afterwards and its kept count.

        Args:
            target: which one, a Python integer.
            energies: as `all_energies` gives them.
            keep: as `update` takes it.
            gains: likewise.
        """
        kept = self._choose([target], energies, keep, gains, [[0]])[0]
        with tf.control_dependencies([kept]):
            return self._kernel_energies([self.targets[target]], gains)[0], kept

    def _choose(
        self, targets: Sequence[int], energies: Energies, keep: tf.Tensor, gains: Gains, groups: list[list[int]]
    ) -> tf.Tensor:
        """Ranks some targets, in groups, and applies their masks; how many weights each keeps.

        Args:
            targets: which.
            energies: as `all_energies` gives them.
            keep: as `update` takes it.
            gains: likewise.
            groups: which of these targets are ranked together.
        """
        keep = keep if self.allocation.pooled else keep[targets[0] : targets[-1] + 1]
        variables = [self.recipe.kernels[self.targets[target]].variable for target in targets]
        weights = [tf.convert_to_tensor(variable) for variable in variables]
        live = [tf.convert_to_tensor(self.masks[target]) for target in targets]
        masks = self.new_masks(targets, weights, live, energies, keep, gains, groups)
        for target, variable, mask, weight in zip(targets, variables, masks, weights, strict=True):
            self.masks[target].assign(mask)
            compat.assign(variable, tf.where(mask, weight, tf.zeros([], weight.dtype)))
        return tf.stack([tf.reduce_sum(tf.cast(mask, tf.float64)) for mask in masks])

    def new_masks(
        self,
        targets: Sequence[int],
        weights: Sequence[tf.Tensor],
        live: Sequence[tf.Tensor],
        energies: Energies,
        keep: tf.Tensor,
        gains: Gains,
        groups: list[list[int]],
    ) -> list[tf.Tensor]:
        """The masks of some targets, bool.

        Args:
            targets: which.
            weights: the values of each.
            live: for each a bool tensor, False where a weight is pruned already.
            energies: as `all_energies` gives them.
            keep: int32, how many of the pattern's things each group keeps.
            gains: as `update` takes them.
            groups: which of these targets are ranked together.
        """
        layouts = [self.recipe.kernels[self.targets[target]].layout for target in targets]
        least = [self.pattern.least(layout) for layout in layouts]
        more = {i: keep[g] > sum(least[k] for k in group) for g, group in enumerate(groups) for i in group}
        ranked = [
            self.ranked(target, weights[i], live[i], more[i], energies, gains) for i, target in enumerate(targets)
        ]
        chosen = keep_largest(ranks(ranked), keep, groups).masks
        return [self.expanded(*parts) for parts in zip(targets, chosen, live, strict=True)]

    def expanded(self, target: int, kept: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
        """A kernel's mask where its pattern's things are kept as given and its weights live as given.

        Raises:
            ValueError: a pattern of the user's gives a mask of another shape or dtype.
        """
        kernel = self.recipe.kernels[self.targets[target]]
        mask = self.pattern.expand(kept, live, kernel.layout)
        if tuple(mask.shape) != kernel.layout.shape or mask.dtype != tf.bool:
            raise ValueError(
                f"pattern={self.pattern!r} gives a mask of shape {tuple(mask.shape)} and dtype {mask.dtype.name} for "
                f"the kernel of layer {kernel.path!r}: return bool of shape {kernel.layout.shape}"
            )
        return mask

    def ranked(
        self, target: int, weights: tf.Tensor, live: tf.Tensor, more: tf.Tensor, energies: Energies, gains: Gains
    ) -> Ranked:
        """What is ranked in place of a target's weights: see `Pattern.pool` and `Pattern.protect`.

        Args:
            target: which target.
            weights: its values.
            live: bool, False where a weight is pruned already.
            more: a bool scalar, as `Pattern.protect` takes it.
            energies: as `all_energies` gives them.
            gains: as `update` takes them.
        """
        scores = tf.where(live, self.scores(self.targets[target], weights, energies, gains), 0.0)
        layout = self.recipe.kernels[self.targets[target]].layout
        return self._pooled(layout, Ranked(scores, compat.value(weights), live), more)

    def _pooled(self, layout: Layout, scored: Ranked, more: tf.Tensor) -> Ranked:
        pooled = self.pattern.pool(scored, layout)
        ranked = self.allocation.comparable(pooled.scores, pooled.live, self.score.norm_order)
        pooled = self.pattern.protect(pooled._replace(scores=ranked), layout, more)
        return pooled._replace(scores=best_first(pooled.scores, pooled.live)) if self.allocation.pooled else pooled

    def scores(self, number: int, weights: tf.Tensor, energies: Energies, gains: Gains) -> tf.Tensor:
        """The scores of a kernel's weights, non-negative.

        Args:
            number: the kernel's number in the recipe.
            weights: its values.
            energies: as `all_energies` gives them.
            gains: as `update` takes them.
        """
        kernel = self.recipe.kernels[number]
        incoming, outgoing = (tf.convert_to_tensor(side[number]) for side in energies)
        scores = self.score.score(kernel, self._seen(number, gains, weights), incoming, outgoing)
        if tuple(scores.shape) != kernel.layout.shape:
            raise ValueError(
                f"score={self.score!r} gives scores of shape {tuple(scores.shape)} for the kernel of layer "
                f"{kernel.path!r}, whose shape is {kernel.layout.shape}: return one for each weight, in that shape"
            )
        # Else a -0.0 would come before all numbers.
        return tf.abs(scores)


def _fed(kernel_energies: Sequence[Array], like: Array, scale: Scale) -> Array:
    """The sum of neighbours' energies in the channels of `like`: `(1, channels)`, those of an end where there is none.

    A neighbour with a multiple of the channels (behind a Flatten) adds up over it; one with a fraction of them repeats.
    """
    if not kernel_energies:
        return filled(like, scale.end())[np.newaxis]
    width = like.shape[0]
    parts = []
    for energies in kernel_energies:
        channels = energies.shape[0]
        repeated = Gather(np.arange(width) % channels if channels < width else np.arange(channels).reshape(-1, width).T)
        parts.append(repeated.apply(energies) * max(1, channels // width))
    return sum(parts[1:], start=parts[0])[np.newaxis]
