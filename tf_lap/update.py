"""One mask update, on the device: energies, scores, selection, masks, weights zeroed.

Everything here is TensorFlow operations over the model's variables. What crosses to the host are two flags a kernel, so
that the pruner can name one that is not finite (nothing is changed then), and how many weights each keeps.
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
from tf_lap.energy import Energies, Norms, far_sweep, filled, on_host, sweep
from tf_lap.energy_maps import Array, Gather
from tf_lap.fused import fused
from tf_lap.graph import Recipe, Rule
from tf_lap.kernels import Layout
from tf_lap.patterns import Pattern, Ranked
from tf_lap.ranks import ranks
from tf_lap.scale import Scale
from tf_lap.scores import Score
from tf_lap.selection import WEIGHTS_AT_ONCE, Kept, batches, count, keep_largest

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


MISLED = -1
"""In place of how many weights a kernel keeps: its search was misled, and nothing of it was changed."""


class Updated(NamedTuple):
    """What an update gives.

    Attributes:
        totals: those of `Updater.measure`; one that is not finite stands for a kernel that is not.
        around: those of `Updater.all_energies`.
        between: that of `Updater.between_sound`. Where one of these is False, or a total is not finite, nothing was
            changed.
        kept: float64, how many weights each target keeps, or MISLED.
        energies: by which they were ranked.
    """

    totals: tf.Tensor
    around: tf.Tensor
    between: tf.Tensor
    kept: tf.Tensor
    energies: Energies


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

    def measure(self, gains: Gains) -> tuple[Norms, tf.Tensor]:
        """The norms of all kernels, and for each the sum of its squares before it is put on the common scale."""
        norms = self._norms(range(len(self.recipe.kernels)), gains)
        totals = [tf.reduce_sum(read) / self.scale.factor(number) for number, (read, _) in enumerate(norms)]
        return norms, tf.stack(totals)

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

    def _norms(self, numbers: Sequence[int], gains: Gains) -> Norms:
        kernels = [self.recipe.kernels[number] for number in numbers]

        def summed(weights: list[tf.Tensor]) -> list[tuple[tf.Tensor, tf.Tensor]]:
            seen = [self._seen(number, gains, each) for number, each in zip(numbers, weights, strict=True)]
            return [kernel.layout.partial_sums(each) for kernel, each in zip(kernels, seen, strict=True)]

        parts = fused(summed)([tf.convert_to_tensor(kernel.variable) for kernel in kernels])
        norms = [kernel.layout.sums(part) for kernel, part in zip(kernels, parts, strict=True)]
        factors = [self.scale.factor(number) for number in numbers]
        return [
            norm if factor == 1 else (norm[0] * factor, norm[1] * factor)
            for norm, factor in zip(norms, factors, strict=True)
        ]

    def all_energies(self, norms: Norms, gains: Gains) -> tuple[Energies, tf.Tensor]:
        """The energies around all kernels, and a flag for each: whether they are finite."""
        if self.score.looks:
            incoming, outgoing = self._around(norms, gains)
            for kernel, (previous, following) in self.override.items():
                incoming[kernel] = _fed([norms[p][1] for p in previous], norms[kernel][0], self.scale)
                outgoing[kernel] = _fed([norms[f][0] for f in following], norms[kernel][1], self.scale)
        else:
            incoming = [filled(read, 1.0)[np.newaxis] for read, _ in norms]
            outgoing = [filled(put, 1.0)[np.newaxis] for _, put in norms]
        # A bound on the kernel's scores. Sums, because a maximum may pass a NaN over.
        if on_host(norms):
            bounds = [
                np.sqrt(back).sum() * np.sqrt(ahead).sum() * np.sqrt(read.sum())
                for back, ahead, (read, _) in zip(incoming, outgoing, norms, strict=True)
            ]
            return (incoming, outgoing), np.isfinite(bounds)
        finite = [
            tf.math.is_finite(
                tf.reduce_sum(tf.sqrt(back)) * tf.reduce_sum(tf.sqrt(ahead)) * tf.sqrt(tf.reduce_sum(read))
            )
            for back, ahead, (read, _) in zip(incoming, outgoing, norms, strict=True)
        ]
        return (incoming, outgoing), tf.stack(finite)

    def _around(self, norms: Norms, gains: Gains) -> Energies:
        distance = getattr(self.score, "distance", 1)
        if distance == 1:
            return sweep(self.recipe, norms, self.scale)
        weights = [self._seen(number, gains, k.variable) for number, k in enumerate(self.recipe.kernels)]
        return far_sweep(self.recipe, weights, distance, self.scale)

    def update(self, keep: tf.Tensor, gains: Gains) -> Updated:
        """One update of all targets at once.

        Args:
            keep: int32, how many of the pattern's things each target keeps, or all together where they are pooled.
            gains: what weights are multiplied by before they are scored.
        """
        norms, totals = self.measure(gains)
        energies, around = self.all_energies(norms, gains)
        between = self.between_sound()
        kept = tf.cond(
            tf.reduce_all(tf.math.is_finite(totals)) & tf.reduce_all(around) & between,
            lambda: self._choose_all(energies, keep, gains),
            lambda: tf.zeros([len(self.targets)], tf.float64),
        )
        return Updated(totals, around, between, kept, energies)

    def completed(self, updated: Updated, keep: tf.Tensor, gains: Gains) -> list[int]:
        """How many weights each target keeps, after targets whose search was misled have been chosen anew.

        Args:
            updated: what `update` gave, with nothing in it that is not finite.
            keep: as `update` took it.
            gains: likewise.
        """
        kept = updated.kept.numpy()
        for batch, groups in self._batches:
            if kept[batch[0]] == MISLED:
                kept[batch] = self._choose(batch, updated.energies, keep, gains, groups)
        return [int(count) for count in kept]

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
        large = False
        for batch, groups in self._batches:
            weights = sum(self.recipe.kernels[self.targets[i]].layout.size for i in batch)
            # Two at a time, and a large one alone: what they need meanwhile adds up.
            large, beside = weights > WEIGHTS_AT_ONCE, large
            with tf.control_dependencies(kept[-1:] if large or beside else kept[-2:-1]):
                kept.append(self._choose(batch, energies, keep, gains, groups))
        return tf.concat(kept, axis=0)

    def choose_one(
        self, target: int, energies: Energies, keep: tf.Tensor, gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """Chooses and applies the mask of one target; returns the norms of its kernel afterwards and its kept count.

        Args:
            target: which one, a Python integer.
            energies: as `all_energies` gives them.
            keep: as `update` takes it.
            gains: likewise.
        """
        kept = self._choose([target], energies, keep, gains, [[0]])[0]
        with tf.control_dependencies([kept]):
            return self._norms([self.targets[target]], gains)[0], kept

    def _choose(
        self, targets: Sequence[int], energies: Energies, keep: tf.Tensor, gains: Gains, groups: list[list[int]]
    ) -> tf.Tensor:
        """Ranks some targets, in groups, and applies their masks; how many weights each keeps, or MISLED.

        Args:
            targets: which.
            energies: as `all_energies` gives them.
            keep: as `update` takes it.
            gains: likewise.
            groups: which of these targets are ranked together.
        """
        keep = keep if self.allocation.pooled else keep[targets[0] : targets[-1] + 1]
        kernels = [self.recipe.kernels[self.targets[target]] for target in targets]
        layouts = [kernel.layout for kernel in kernels]
        live = [tf.convert_to_tensor(self.masks[target]) for target in targets]
        weights = [tf.convert_to_tensor(kernel.variable) for kernel in kernels]

        least = [self.pattern.least(layout) for layout in layouts]
        more = {i: keep[g] > sum(least[k] for k in group) for g, group in enumerate(groups) for i in group}
        ordered = self._ranks(targets, weights, live, [more[i] for i in range(len(targets))], energies, gains)

        def finished(chosen: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor | None]:
            masks = [self.pattern.expand(*each) for each in zip(chosen, live, layouts, strict=True)]
            sparse = [tf.where(mask, w, tf.zeros([], w.dtype)) for mask, w in zip(masks, weights, strict=True)]
            # What was chosen has been counted; what a pattern makes of it has not.
            counted = all(mask is each for mask, each in zip(masks, chosen, strict=True))
            return masks, sparse, None if counted else tf.stack([count(mask) for mask in masks])

        def applied(found: Kept) -> tf.Tensor:
            masks, sparse, kept = found.masks
            for target, kernel, mask, weight in zip(targets, kernels, masks, sparse, strict=True):
                _replace(self.masks[target], mask)
                compat.assign(kernel.variable, weight)
            return found.counts if kept is None else kept

        # The search of all weights is rare, and as large as all the rest: it is not traced, `completed` does it.
        misled = functools.partial(tf.fill, [len(targets)], tf.constant(MISLED, tf.float64))
        return keep_largest(ordered, keep, groups, finished, applied, misled if tf.inside_function() else None)

    def _ranks(
        self,
        targets: Sequence[int],
        weights: list[tf.Tensor],
        live: list[tf.Tensor],
        more: Sequence[tf.Tensor],
        energies: Energies,
        gains: Gains,
    ) -> list[tf.Tensor]:
        """What `keep_largest` takes, for some targets; `more` as patterns take it."""

        def scored(weights: list[tf.Tensor], live: list[tf.Tensor]) -> list[tf.Tensor]:
            kinds = zip(targets, weights, live, strict=True)
            return [tf.where(alive, self._scores(target, w, energies, gains), 0.0) for target, w, alive in kinds]

        def pooled(scores: list[tf.Tensor], weights: list[tf.Tensor], live: list[tf.Tensor]) -> list[Ranked]:
            things = map(Ranked, scores, map(compat.value, weights), live)
            layouts = [self.recipe.kernels[self.targets[target]].layout for target in targets]
            return [self._pooled(*each) for each in zip(layouts, things, more, strict=True)]

        if is_elementwise(self.score, self.allocation, self.pattern):
            return fused(lambda w, kept: ranks(pooled(scored(w, kept), w, kept)))(weights, live)
        scores = (fused(scored) if is_elementwise(self.score) else scored)(weights, live)
        return fused(ranks)(pooled(scores, weights, live))

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
        scores = tf.where(live, self._scores(target, weights, energies, gains), 0.0)
        layout = self.recipe.kernels[self.targets[target]].layout
        return self._pooled(layout, Ranked(scores, compat.value(weights), live), more)

    def _pooled(self, layout: Layout, scored: Ranked, more: tf.Tensor) -> Ranked:
        pooled = self.pattern.pool(scored, layout)
        ranked = self.allocation.comparable(pooled.scores, pooled.live, self.score.norm_order)
        pooled = self.pattern.protect(pooled._replace(scores=ranked), layout, more)
        return pooled._replace(scores=best_first(pooled.scores, pooled.live)) if self.allocation.pooled else pooled

    def _scores(self, target: int, weights: tf.Tensor, energies: Energies, gains: Gains) -> tf.Tensor:
        number = self.targets[target]
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

    def measure(self, gains: Gains) -> tuple[Norms, np.ndarray]:
        """As `Updater.measure`."""
        norms, totals = self.measured(gains)
        return norms, totals.numpy()

    def all_energies(self, norms: Norms, gains: Gains) -> tuple[Energies, np.ndarray]:
        """As `Updater.all_energies`."""
        energies, finite = self.surrounded(norms, gains)
        return energies, finite.numpy()

    def between_sound(self) -> bool:
        """As `Updater.between_sound`."""
        return bool(self._updater.between_sound())

    def update(self, keep: Sequence[int], gains: Gains) -> Updated:
        """As `Updater.update`, with targets whose search was misled chosen anew."""
        counts = tf.constant(keep, tf.int32)
        updated = self.updated(counts, gains)
        arrays = Updated(*(field.numpy() for field in updated[:4]), updated.energies)
        sound = bool(np.isfinite(arrays.totals).all() and arrays.around.all() and arrays.between)
        return arrays._replace(kept=self._updater.completed(updated, counts, gains)) if sound else arrays

    def choose_one(
        self, target: int, energies: Energies, keep: Sequence[int], gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], int]:
        """As `Updater.choose_one`."""
        counts = tf.constant(keep, tf.int32)
        norms, kept = self.chosen[target](energies, counts, gains)
        if kept == MISLED:
            norms, kept = self._updater.choose_one(target, energies, counts, gains)
        return norms, int(kept)


def _replace(mask: tf.Variable, new: tf.Tensor) -> None:
    """Assigns a new mask."""
    large = mask.shape.num_elements() > WEIGHTS_AT_ONCE
    if not large or tf.inside_function() or isinstance(mask, tf.distribute.DistributedValues):
        mask.assign(new)
    else:
        # Into memory of its own, although TensorFlow copies it at each read from then on: a new piece of memory at each
        # update, among those that are needed meanwhile only, leaves holes.
        mask[...].assign(new)


def is_elementwise(*choices: Any) -> bool:
    """Whether XLA does well at what these objects do; what a subclass of theirs does is not known."""
    return all(vars(type(choice)).get("elementwise", False) for choice in choices)


def _fed(norms: Sequence[Array], like: Array, scale: Scale) -> Array:
    """The sum of neighbours' norms in the channels of `like`: `(1, channels)`, those of an end where there is none.

    A neighbour with a multiple of the channels (behind a Flatten) adds up over it; one with a fraction of them repeats.
    """
    if not norms:
        return filled(like, scale.end())[np.newaxis]
    width = like.shape[0]
    parts = []
    for norm in norms:
        channels = norm.shape[0]
        repeated = Gather(np.arange(width) % channels if channels < width else np.arange(channels).reshape(-1, width).T)
        parts.append(repeated.apply(norm) * max(1, channels // width))
    return sum(parts[1:], start=parts[0])[np.newaxis]
