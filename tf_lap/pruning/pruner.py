"""The pruner: a model's recipe and the four choices, turned into masks and zeros."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import Allocation, Sparsity, check_sparsity, per_kernel
from tf_lap.graph.layer_filters import Filters
from tf_lap.graph.neighbors import find_neighbors
from tf_lap.graph.resolver import resolve
from tf_lap.graph.scale import Scale
from tf_lap.patterns import Pattern, limit
from tf_lap.pruning.constraints import Enforcement
from tf_lap.pruning.host_update import engine
from tf_lap.pruning.mask_update import AROUND, BETWEEN, Gains, Updater
from tf_lap.pruning.options import (
    MEASURED,
    check_choices,
    check_final,
    data_for,
    fitting,
    given_neighbors,
    not_finite,
    skipped_kernels,
)
from tf_lap.report import PruningReport, report_of
from tf_lap.samples import Representative
from tf_lap.scores import Score
from tf_lap.warn import warn

# More zeros than asked are worth a warning from this fraction of a kernel on. A few may be there by chance, as in
# bfloat16, and the last blocks of a kernel may be smaller than others.
_CLEARLY = 0.05
_SHOWN = 3  # kernels that a warning names


class Pruner:
    """Prunes a model step by step; what `prune` and `LAPCallback` are made of, and what custom training loops use.

    Example:

    >>> pruner = tf_lap.Pruner(model)
    >>> pruner.update(0.5)  # choose masks, zero the weights
    >>> pruner.freeze()     # from now on optimizers keep them zero
    >>> round(pruner.sparsity, 2)
    0.5
    >>> pruner.release()    # nothing of it is left on the model

    In a custom loop either `freeze` before the first step (optimizers then keep zeros at zero), or call `apply`
    after each step.

    Args:
        model: a built Keras model; its kernels are changed in place.
        score: how much a weight matters: "lookahead", "magnitude", "random", "lookahead_activation", "obd" or
            "obd_lookahead" (these three take `data`), or an object of `tf_lap.scores`.
        allocation: how many weights each kernel keeps: "uniform", "global", "erk" or "lamp", or an object of
            `tf_lap.allocation`.
        pattern: in what shape weights go: "unstructured", "2:4" (any N:M: N of every M consecutive inputs of an output
            stay), "block:1x4" (blocks of 1 output by 4 consecutive inputs go whole), or an object of `tf_lap.patterns`.
        order: "simultaneous", or "forward" or "backward": kernels are pruned one after another along the graph,
            so that each sees what was already pruned of its neighbours.
        filters: which layers to prune: a regular expression searched in the layer's path, a list of them, or a
            function of a layer. All by default.
        neighbors: overrides the graph for some kernels: a mapping from a layer path or regular expression to
            `(paths of the kernels before, paths of the kernels after)`.
        data: what scores that need it are measured over: typical inputs as an array (for several inputs a list of them
            or a mapping by name), a `tf.data.Dataset`, or a function that returns an iterable of batches.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, not built or without a prunable kernel; a
            choice that is not known; filters or neighbours that match nothing or do not fit.
    """

    def __init__(
        self,
        model: Any,
        *,
        score: str | Score | Mapping[str, Any] = "lookahead",
        allocation: str | Allocation | Mapping[str, Any] = "uniform",
        pattern: str | Pattern | Mapping[str, Any] = "unstructured",
        order: str = "simultaneous",
        filters: Filters = None,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
        data: Representative = None,
    ) -> None:
        self.score, self.allocation, self.pattern, self.order = check_choices(score, allocation, pattern, order)
        self.model = model
        self._recipe = resolve(model)
        self._data = data_for(self.score, data, model)
        self._neighbors = find_neighbors(self._recipe)
        self._skipped = skipped_kernels(self._recipe, filters, model)
        kernels = self._recipe.kernels
        self._targets = [i for i, kernel in enumerate(kernels) if kernel.path not in self._skipped]
        self._paths = [kernels[i].path for i in self._targets]
        self._sizes = [kernels[i].layout.size for i in self._targets]
        self._kept = list(self._sizes)
        self._named: set[str] | None = None  # the kernels that mappings of sparsities named; None: no mapping yet
        self._holds_zeros = False
        self._masks = [tf.Variable(tf.ones(kernels[i].layout.shape, tf.bool), trainable=False) for i in self._targets]
        override = given_neighbors(self._recipe, neighbors or {}, self.score)
        for number in override:
            path = kernels[number].path
            previous, following = ([kernels[k].path for k in side] for side in override[number])
            self._neighbors[path] = type(self._neighbors[path])(
                tuple(previous), tuple(following), ("given by the user",)
            )
        self._updater = Updater(
            self._recipe,
            self._targets,
            self._masks,
            self.score,
            self.allocation,
            self.pattern,
            override,
            Scale.of(self._recipe),
        )
        self._engine = engine(self._updater)
        variables = {kernels[i].path: kernels[i].variable for i in self._targets}
        self._enforcement = Enforcement(model, variables, self._masks)
        if self._recipe.untraced and self.score.needs_energies:
            warn(
                f"model {model.name!r}: the call of {', '.join(self._recipe.untraced)} cannot be followed, so kernels "
                "in and beside it are ranked without the energies on that side; report() has the reasons"
            )

    @property
    def masks(self) -> dict[str, tf.Tensor]:
        """The masks by layer path: bool tensors of the kernels' shapes, True where the weight stays."""
        return {path: tf.convert_to_tensor(mask) for path, mask in zip(self._paths, self._masks, strict=True)}

    @property
    def sparsity(self) -> float:
        """The fraction of weights that are zero now in the pruned kernels together, counted in the weights."""
        counted = [self._is_named(path) for path in self._paths]
        nonzero = itertools.compress(self._enforcement.nonzero(), counted)
        return 1.0 - sum(nonzero) / sum(itertools.compress(self._sizes, counted))

    @property
    def drops_weights(self) -> bool:
        """Whether the masks drop any weight by now."""
        return self._kept != self._sizes

    def _is_named(self, path: str) -> bool:
        return self._named is None or path in self._named

    @property
    def patterned(self) -> bool:
        """Whether the masks that were chosen have the pattern by now: one that grows has it at its end."""
        if self.pattern.sparsity is None:
            return True
        layouts = [self._recipe.kernels[target].layout for target in self._targets]
        chosen = [self._is_named(path) for path in self._paths]
        least = [self.pattern.least(layout) for layout in layouts]
        return all(n <= m for n, m, named in zip(self._kept, least, chosen, strict=True) if named)

    def check(self, sparsity: Any = 0.0) -> None:
        """Raises what `update` would raise for this sparsity, and changes nothing.

        Raises:
            TypeError, ValueError: as `update`.
        """
        self._keep(self._fractions(sparsity))
        self._measure({})

    def check_final(self, sparsity: Any) -> None:
        """Raises what `update` would raise for this sparsity, or if masks at it do not have the pattern yet.

        Raises:
            TypeError, ValueError: as `update`.
        """
        fractions = self._fractions(sparsity)
        for fraction in fractions.values():
            check_final(self.pattern, fraction)
        self._keep(fractions)

    def update(self, sparsity: Sparsity, *, steps: int = 1) -> None:
        """Chooses masks at a sparsity and zeroes what they drop. Weights dropped before never come back.

        The first update takes the zeros that are in the kernels for pruned weights, as `hold_zeros` does.

        Args:
            sparsity: the fraction of zeros, in [0, 1), or a mapping from layer paths or regular expressions to
                fractions; kernels that a mapping does not name stay as they are.
            steps: in how many equal parts, counted from nothing pruned, with new scores for each.

        Raises:
            ValueError: a sparsity outside [0, 1) or beyond the pattern's, a mapping key that matches nothing, or a
                kernel, or a normalization layer beside one, that holds NaN or infinity, or makes what is measured
                over data so. Nothing is changed then.
            TypeError: a sparsity that is neither a number nor a mapping.
        """
        if isinstance(steps, bool) or not hasattr(steps, "__index__") or steps < 1:
            raise ValueError(f"steps={steps!r}: expected a whole number of at least 1")
        fractions = self._fractions(sparsity)
        parts = [
            self._keep({path: f * (part / steps) for path, f in fractions.items()}) for part in range(1, steps + 1)
        ]
        before = self._holds_zeros
        if not before:
            self.hold_zeros(sparsity)
        try:
            for keep in parts:
                self._choose(keep)
        except ValueError:
            if not before:  # the zeros of weights that are not sound say nothing of those that replace them
                self._forget()
            raise
        self._note_names(sparsity)
        self._enforcement.apply_averages()

    def _choose(self, keep: Sequence[int]) -> None:
        """Updates all masks once."""
        gains = self._gains()
        if self.order == "simultaneous":
            updated = self._engine.update(keep, gains)
            if not _finite(updated.totals, updated.around) and self._rescale(updated.totals):
                updated = self._engine.update(keep, gains)
            self._check_finite(updated.totals, updated.around, updated.between)
            self._kept = [int(kept) for kept in updated.kept]
            self._rescale(updated.totals)
        else:
            self._update_in_turn(keep, gains)

    def _rescale(self, totals: np.ndarray) -> bool:
        """Measures with another scale from now on, where the weights have moved away from the present one.

        Args:
            totals: as `Updater.measure` gives them.

        Returns:
            Whether the scale is another one now.
        """
        sizes = [kernel.layout.size for kernel in self._recipe.kernels]
        if not self._updater.scale.is_left_by(totals, sizes):
            return False
        scale = Scale.of(self._recipe)
        if scale == self._updater.scale:  # a kernel of zeros has none
            return False
        self._updater = dataclasses.replace(self._updater, scale=scale)
        self._engine = engine(self._updater)
        return True

    def _forget(self) -> None:
        for mask in self._masks:
            mask.assign(tf.ones_like(mask))
        self._kept, self._holds_zeros = list(self._sizes), False

    def hold_zeros(self, sparsity: Sparsity | None = None) -> None:
        """Takes the zeros that are in the kernels now for pruned weights, so that they stay zero.

        A kernel that is zero altogether was not pruned but initialised so, and is left free. The first `update` does
        this by itself; `LAPCallback` does it when a fit begins. Zeros that lie otherwise than the pattern wants stay
        too, so that a kernel may keep fewer weights than the pattern would.

        Args:
            sparsity: what is asked of the kernels now, as in `update`. Where they have clearly more zeros than that,
                a warning says that these stay. None: no warning.
        """
        self._holds_zeros = True
        for i, (mask, variable) in enumerate(zip(self._masks, self._enforcement.kernels.values(), strict=True)):
            live = tf.convert_to_tensor(mask) & tf.not_equal(tf.convert_to_tensor(variable), 0)
            count = int(tf.math.count_nonzero(live))
            if 0 < count < self._kept[i]:
                mask.assign(live)
                self._kept[i] = count
        sparser = [] if sparsity is None else self._sparser_than(self._fractions(sparsity))
        if sparser:
            warn(
                f"model {self.model.name!r} has more zeros already than is asked now: {'; '.join(sparser)}. They stay "
                "zero. To go on from them without this warning, ask for as many (initial_sparsity of a schedule). To "
                "let them train again, fit once without pruning"
            )

    def _sparser_than(self, fractions: Mapping[str, float]) -> list[str]:
        """What to say of kernels whose masks drop clearly more than is asked at these fractions."""
        keep = self._keep(fractions)
        units = [self.pattern.units(self._recipe.kernels[target].layout) for target in self._targets]
        if self.allocation.pooled:
            groups = [("all kernels together", sum(self._kept), sum(self._sizes), keep[0], sum(units))]
        else:
            each_kernel = zip(self._paths, self._kept, self._sizes, keep, units, strict=True)
            groups = [(repr(path), *counts) for path, *counts in each_kernel if path in fractions]
        sparser = [
            f"{name} {1 - kept / size:.1%}, asked {1 - wished / of:.1%}"
            for name, kept, size, wished, of in groups
            if wished / of - kept / size > _CLEARLY
        ]
        return sparser[:_SHOWN] + ([f"and {len(sparser) - _SHOWN} more kernels"] if len(sparser) > _SHOWN else [])

    def _note_names(self, sparsity: Sparsity) -> None:
        """Remembers which kernels mappings of sparsities named: others are reported as skipped."""
        if isinstance(sparsity, Mapping):
            self._named = (self._named or set()) | self._fractions(sparsity).keys()
        else:
            self._named = None

    def _gains(self) -> Gains:
        if not self._data:
            return {}
        gains = self.score.gains(self.model, self._recipe, self._targets, self._data)
        for number, gain in gains.items():
            if not bool(tf.reduce_all(tf.math.is_finite(gain))):
                raise ValueError(MEASURED.format(repr(self._recipe.kernels[number].path)))
        return gains

    def _update_in_turn(self, keep: Sequence[int], gains: Gains) -> None:
        kernel_energies = self._measure(gains)
        targets = range(len(self._targets))
        for target in targets if self.order == "forward" else reversed(targets):
            energies, _ = self._engine.all_energies(kernel_energies, gains)
            kernel_energies[self._targets[target]], self._kept[target] = self._engine.choose_one(
                target, energies, keep, gains
            )

    def apply(self) -> None:
        """Zeroes all pruned weights: after an optimizer's step that knows nothing of the masks, or after a restore."""
        self._enforcement.apply()

    def freeze(self) -> None:
        """Lets optimizers keep pruned weights at zero from now on, by the kernels' constraints, until `release`.

        A training step that was traced before must be traced anew. For `fit` of the pruner's own model this is done
        here; a step of your own, or a model around this one, must be compiled again.

        Raises:
            ValueError: the masks of another pruner or callback are on the model.
        """
        self._enforcement.attach()

    @property
    def enforcement(self) -> Enforcement:
        """What holds the masks on the kernels."""
        return self._enforcement

    def release(self) -> None:
        """Takes off the model what `freeze` put there. The zeros stay until somebody trains them away."""
        self._enforcement.release()

    def report(self) -> PruningReport:
        """What is pruned, layer by layer, and what is skipped and why."""
        kept = dict(zip(self._paths, self._kept, strict=True))
        unnamed = [path for path in self._paths if not self._is_named(path)]
        skipped = {**self._skipped, **dict.fromkeys(unnamed, "the mapping of sparsities does not name it")}
        census = dict(zip(self._paths, self._enforcement.census(), strict=True))
        layouts = {kernel.path: kernel.layout for kernel in self._recipe.kernels}
        limits = {path: limit(self.pattern, layouts[path], kept[path]) for path in self._paths}
        notes = {path: text for path, text in limits.items() if text is not None}
        return report_of(self.model, self._recipe, self._neighbors, kept, skipped, census, notes)

    def restore(self, masks: Mapping[str, np.ndarray], sparsity: Sparsity = 0.0) -> None:
        """Takes over masks by layer path, in place of the present ones, and zeroes what they drop.

        Args:
            masks: bool arrays of the kernels' shapes, True where the weight stays.
            sparsity: what they were chosen for: of a mapping, the report takes which layers it speaks of.

        Raises:
            ValueError: the paths or shapes are not those of this pruner's kernels.
        """
        self._check_masks(masks)
        for path, variable in zip(self._paths, self._masks, strict=True):
            variable.assign(masks[path])
        self._kept = [int(np.count_nonzero(masks[path])) for path in self._paths]
        self._note_names(sparsity)
        self._holds_zeros = True
        self.apply()

    def agrees(self, masks: Mapping[str, np.ndarray]) -> bool:
        """Whether every weight that these masks drop is zero now.

        Raises:
            ValueError: the paths or shapes are not those of this pruner's kernels.
        """
        self._check_masks(masks)
        kernels = self._enforcement.kernels
        return all(not np.any(tf.convert_to_tensor(kernels[path]).numpy()[~masks[path]]) for path in self._paths)

    def adopt(self, other: Pruner) -> None:
        """Takes over the masks of another pruner of the same model, for the kernels that both prune."""
        theirs = {**self.masks, **other.masks}
        self.restore({path: theirs[path].numpy() for path in self._paths})
        self._named = other._named

    def only_here(self, other: Pruner) -> list[str]:
        """The paths of kernels that this pruner prunes, and the other does not."""
        theirs = {id(variable) for variable in other._enforcement.kernels.values()}
        return [path for path, variable in self._enforcement.kernels.items() if id(variable) not in theirs]

    def covers(self, other: Pruner) -> bool:
        """Whether both prune the very same kernels."""
        ours, theirs = self._enforcement.kernels, other._enforcement.kernels
        return ours.keys() == theirs.keys() and all(ours[path] is theirs[path] for path in ours)

    def _check_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        expected = {path: tuple(mask.shape) for path, mask in zip(self._paths, self._masks, strict=True)}
        given = {path: tuple(mask.shape) for path, mask in masks.items()}
        if given != expected:
            raise ValueError(
                f"the masks are of another model, or of other filters: they have {given}, the kernels that are pruned "
                f"here {expected}. Use the model and the filters that they were made with"
            )

    def _keep(self, fractions: Mapping[str, float]) -> list[int]:
        if self.allocation.pooled and len(fractions) < len(self._paths):
            raise ValueError(
                "this allocation ranks all kernels together and takes one sparsity, not a mapping of some of them: "
                "use filters to leave layers out"
            )
        layouts = [self._recipe.kernels[target].layout for target in self._targets]
        given = [fitting(self.pattern, fractions.get(path, 0.0)) for path in self._paths]
        units = [self.pattern.units(layout) for layout in layouts]
        keep = self.allocation.keep(units, given, [layout.shape for layout in layouts])
        least = [self.pattern.least(layout) for layout in layouts]
        return [max(each) for each in zip(keep, [sum(least)] if self.allocation.pooled else least, strict=True)]

    def _fractions(self, sparsity: Any) -> dict[str, float]:
        """The sparsities of the kernels to prune; a mapping may name skipped ones too, but not only such."""
        everything = [kernel.path for kernel in self._recipe.kernels]
        named = per_kernel(check_sparsity("sparsity", sparsity), everything)
        fractions = {path: fraction for path, fraction in named.items() if path not in self._skipped}
        if not fractions:
            reasons = ", ".join(f"{path!r}: {self._skipped[path]}" for path in named)
            raise ValueError(f"sparsity={sparsity!r} names only layers that are not pruned: {reasons}")
        return fractions

    def _measure(self, gains: Gains) -> list[Any]:
        kernel_energies, totals = self._engine.measure(gains)
        _, around = self._engine.all_energies(kernel_energies, gains)
        if self._rescale(totals):
            kernel_energies, totals = self._engine.measure(gains)
            _, around = self._engine.all_energies(kernel_energies, gains)
        self._check_finite(totals, around, self._engine.between_sound())
        return list(kernel_energies)

    def _check_finite(self, totals: np.ndarray, around: np.ndarray, between: bool) -> None:
        for kernel, fine in zip(self._recipe.kernels, np.isfinite(totals), strict=True):
            if not fine:
                raise ValueError(not_finite(kernel))
        for kernel, fine in zip(self._recipe.kernels, around, strict=True):
            if not fine:
                raise ValueError(AROUND.format(repr(kernel.path)))
        if not between:
            for name, variables in self._updater.between.items():
                if not all(bool(tf.reduce_all(tf.math.is_finite(compat.value(v)))) for v in variables):
                    raise ValueError(f"{BETWEEN} (layer {name!r})")


def _finite(totals: np.ndarray, around: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(totals)) and np.all(around))
