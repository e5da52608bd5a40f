"""One mask update, on the device: energies, scores, selection, masks, weights zeroed.

Everything here is TensorFlow operations over the model's variables; what crosses to the host is one flag a kernel,
so that a kernel that is not finite is named before anything changes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import Allocation, best_first
from tf_lap.energy import Energies, Norms, far_sweep, sweep
from tf_lap.enforce import masked
from tf_lap.graph import Recipe
from tf_lap.patterns import Pattern, Ranked
from tf_lap.scores import Score
from tf_lap.selection import batches, keep_largest

Override = dict[int, tuple[tuple[int, ...], tuple[int, ...]]]
"""Kernel -> the kernels that feed it and that read it, in place of what the graph says."""

AROUND = (
    "the energies around layer {} are not finite: a normalization layer beside it holds NaN, infinity or a negative "
    "variance, or weights beside it are too large for float32"
)


Gains = dict[int, tf.Tensor]
"""Kernel -> what its weights are multiplied by before they are scored, where that is anything."""


class Traced(NamedTuple):
    """The functions of an `Updater` as traced ones."""

    measure: Callable[[Gains], tuple[Norms, tf.Tensor]]
    all_energies: Callable[[Norms, Gains], tuple[Energies, tf.Tensor]]
    choose: Callable[[Energies, tf.Tensor, Gains], tf.Tensor]
    choose_one: Callable[[int, Energies, tf.Tensor, Gains], tuple[tuple[tf.Tensor, ...], tf.Tensor]]


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
    """

    recipe: Recipe
    targets: Sequence[int]
    masks: Sequence[tf.Variable]
    score: Score
    allocation: Allocation
    pattern: Pattern
    override: Override

    @functools.cached_property
    def traced(self) -> Traced:
        """The same functions, traced once each: counts and energies are tensors, so nothing is traced again.

        Tracing takes much longer than a plain call: worth it for many updates.
        """
        # Partials: TensorFlow counts the tracings of a method over all instances, and warns of the fifth pruner.
        trace = functools.partial(tf.function, autograph=False)
        one_by_one = [trace(functools.partial(self.choose_one, target)) for target in range(len(self.targets))]
        return Traced(
            trace(functools.partial(self.measure)),
            trace(functools.partial(self.all_energies)),
            trace(functools.partial(self.choose)),
            lambda target, energies, keep, gains: one_by_one[target](energies, keep, gains),
        )

    def measure(self, gains: Gains) -> tuple[Norms, tf.Tensor]:
        """The norms of all kernels, and a flag for each: whether its squares sum up to something finite."""
        norms = [self._norms(number, gains) for number in range(len(self.recipe.kernels))]
        return norms, tf.stack([tf.math.is_finite(tf.reduce_sum(read)) for read, _ in norms])

    def _seen(self, number: int, gains: Gains) -> tf.Tensor:
        """A kernel's weights as they are scored."""
        weights = compat.value(self.recipe.kernels[number].variable)
        return weights * gains[number] if number in gains else weights

    def _norms(self, number: int, gains: Gains) -> tuple[tf.Tensor, tf.Tensor]:
        return self.recipe.kernels[number].layout.norms(self._seen(number, gains))

    def all_energies(self, norms: Norms, gains: Gains) -> tuple[Energies, tf.Tensor]:
        """The energies around all kernels, and a flag for each: whether they are finite."""
        if self.score.looks:
            incoming, outgoing = self._around(norms, gains)
            for kernel, (previous, following) in self.override.items():
                incoming[kernel] = _fed([norms[p][1] for p in previous], norms[kernel][0])
                outgoing[kernel] = _fed([norms[f][0] for f in following], norms[kernel][1])
        else:
            incoming = [tf.ones_like(read)[tf.newaxis] for read, _ in norms]
            outgoing = [tf.ones_like(put)[tf.newaxis] for _, put in norms]
        # A bound on the kernel's scores. Sums, because a maximum may pass a NaN over.
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
            return sweep(self.recipe, norms)
        weights = [self._seen(number, gains) for number in range(len(self.recipe.kernels))]
        return far_sweep(self.recipe, weights, distance)

    def choose(self, energies: Energies, keep: tf.Tensor, gains: Gains) -> tf.Tensor:
        """Chooses and applies the masks of all targets; returns how many weights each keeps.

        Args:
            energies: as `all_energies` gives them.
            keep: int32, how many of the pattern's things each target keeps, or all together where they are pooled.
            gains: what weights are multiplied by before they are scored.
        """
        everything = list(range(len(self.targets)))
        if self.allocation.pooled:
            return self._choose(everything, energies, keep, gains, [everything])
        sizes = [self.recipe.kernels[target].layout.size for target in self.targets]
        kept = [self._choose(batch, energies, keep[batch[0] : batch[-1] + 1], gains) for batch in batches(sizes)]
        return tf.concat(kept, axis=0)

    def choose_one(
        self, target: int, energies: Energies, keep: tf.Tensor, gains: Gains
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """Chooses and applies the mask of one target; returns the norms of its kernel afterwards and its kept count.

        Args:
            target: which one, a Python integer.
            energies: as `all_energies` gives them.
            keep: an int32 scalar.
            gains: as `choose` takes them.
        """
        kept = self._choose([target], energies, keep[tf.newaxis], gains)[0]
        with tf.control_dependencies([kept]):
            return self._norms(self.targets[target], gains), kept

    def _choose(
        self,
        targets: Sequence[int],
        energies: Energies,
        keep: tf.Tensor,
        gains: Gains,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> tf.Tensor:
        """Ranks some targets, in groups, and applies their masks; returns how many weights each keeps."""
        groups = groups or [[i] for i in range(len(targets))]
        live = [tf.convert_to_tensor(self.masks[target]) for target in targets]
        ranked: list[Ranked] = []
        for g, group in enumerate(groups):
            layouts = [self.recipe.kernels[self.targets[targets[i]]].layout for i in group]
            more = keep[g] > sum(map(self.pattern.least, layouts))
            ranked += [self._ranked(targets[i], live[i], energies, more, gains) for i in group]
        chosen, _ = keep_largest(*zip(*ranked, strict=True), keep, groups)
        return tf.stack([self._apply(*each) for each in zip(targets, chosen, live, strict=True)])

    def _ranked(self, target: int, live: tf.Tensor, energies: Energies, more: tf.Tensor, gains: Gains) -> Ranked:
        kernel = self.recipe.kernels[self.targets[target]]
        weights = compat.value(kernel.variable)
        scores = self._scores(target, self._seen(self.targets[target], gains), energies)
        pooled = self.pattern.pool(Ranked(masked(scores, live), weights, live), kernel.layout)
        ranked = self.allocation.comparable(pooled.scores, pooled.live, self.score.norm_order)
        pooled = self.pattern.protect(pooled._replace(scores=ranked), kernel.layout, more)
        return pooled._replace(scores=best_first(pooled.scores, pooled.live)) if self.allocation.pooled else pooled

    def _scores(self, target: int, weights: tf.Tensor, energies: Energies) -> tf.Tensor:
        number = self.targets[target]
        kernel = self.recipe.kernels[number]
        scores = self.score.score(kernel, weights, energies[0][number], energies[1][number])
        if tuple(scores.shape) != kernel.layout.shape:
            raise ValueError(
                f"score={self.score!r} gives scores of shape {tuple(scores.shape)} for the kernel of layer "
                f"{kernel.path!r}, whose shape is {kernel.layout.shape}"
            )
        # abs also turns -0.0, whose sign bit would read as a negative number, into 0.0.
        return tf.abs(scores)

    def _apply(self, target: int, chosen: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
        mask, kernel = self.masks[target], self.recipe.kernels[self.targets[target]]
        mask.assign(self.pattern.expand(chosen, live, kernel.layout))
        compat.assign(kernel.variable, masked(kernel.variable, mask))
        return tf.math.count_nonzero(mask, dtype=tf.int32)


def _fed(norms: Sequence[tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    """The sum of neighbours' norms in the channels of `like`: `(1, channels)`, ones where there is no neighbour.

    A neighbour with a multiple of the channels (behind a Flatten) adds up over it; one with a fraction of them repeats.
    """
    if not norms:
        return tf.ones_like(like)[tf.newaxis]
    width = like.shape[0]
    parts = []
    for norm in norms:
        if norm.shape[0] >= width:
            parts.append(tf.reduce_sum(tf.reshape(norm, (-1, width)), axis=0))
        else:
            parts.append(tf.tile(norm, [width // norm.shape[0]]))
    return tf.add_n(parts)[tf.newaxis]
