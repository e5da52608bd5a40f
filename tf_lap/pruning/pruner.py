"""The pruner: a model's recipe and the four choices, turned into masks and zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap.allocation import AllocationLike, Sparsity
from tf_lap.channels.budget import Budget, fit_budget
from tf_lap.channels.report import report_channels
from tf_lap.compat.types import Variable
from tf_lap.graph.layer_filters import Filters
from tf_lap.graph.neighbors import find_neighbors, name_neighbors
from tf_lap.graph.resolver import resolve
from tf_lap.patterns import PatternLike
from tf_lap.pruning.constraints import Enforcement
from tf_lap.pruning.engine import Engine
from tf_lap.pruning.mask_selection import MaskSelection
from tf_lap.pruning.mask_update import Updater
from tf_lap.pruning.masks import Masks, are_in_force, check_masks
from tf_lap.pruning.options import Options, find_skipped_kernels, read_batches, read_override, read_repair_batches
from tf_lap.pruning.repairing import PendingRepair
from tf_lap.pruning.soundness import describe_untraced
from tf_lap.pruning.targets import NamedKernels, Targets
from tf_lap.reconstruction.methods import RepairLike, read_methods
from tf_lap.reconstruction.report import RepairReport
from tf_lap.report import PruningReport, make_report
from tf_lap.samples import Representative
from tf_lap.scores import ScoreLike
from tf_lap.warn import warn


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
        score: how much a weight matters: "lookahead", "magnitude" or "random"; with `data` "wanda", "lookahead_wanda",
            "obs", "obs_lookahead", "lookahead_activation", "obd" or "obd_lookahead"; or an object of `tf_lap.scores`.
        allocation: how many weights each kernel keeps: "auto", "uniform", "global", "erk" or "lamp", or an object of
            `tf_lap.allocation`. "auto" is "lamp", and "uniform" where kernels have sparsities of their own.
        pattern: in what shape weights go: "unstructured", "2:4" (any N:M: N of every M consecutive inputs of an output
            stay), "block:1x4" (blocks of 1 output by 4 consecutive inputs go whole), or an object of `tf_lap.patterns`.
        order: "simultaneous", or "forward" or "backward": kernels are pruned one after another along the graph,
            so that each sees what was already pruned of its neighbours.
        filters: which layers to prune: a regular expression searched in paths, a list of them, a function of a layer,
            or "xnnpack": what devices run sparse (docs/devices.md). All by default. Embeddings and depthwise kernels
            are pruned only where a filter, or a key of a mapping of sparsities, is their path or matches all of it.
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
        score: ScoreLike = "lookahead",
        allocation: AllocationLike = "auto",
        pattern: PatternLike = "unstructured",
        order: str = "simultaneous",
        filters: Filters = None,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
        data: Representative = None,
    ) -> None:
        options = Options.of(score, allocation, pattern, order, filters, neighbors, data)
        self.score, self.allocation, self.pattern = options.score, options.allocation, options.pattern
        self.order, self.model = options.order, model
        self._recipe = resolve(model)
        self._neighbors = find_neighbors(self._recipe)
        skipped = find_skipped_kernels(self._recipe, filters, model)
        self._targets = Targets.of(model, self._recipe, skipped, self.allocation, self.pattern)
        variables = self.kernels_with(())
        self._masks, self._named = Masks(variables), NamedKernels()
        self._repaired: RepairReport | None = None  # by the last update
        override = read_override(self._recipe, neighbors or {}, self.score)
        self._neighbors.update(name_neighbors(self._recipe, override))
        selection = MaskSelection.of(self._recipe, override, self.score, self._targets.allocation, self.pattern)
        updater = Updater(selection, self._targets.numbers, self._masks.variables)
        self._engine = Engine(model, updater, self.order, read_batches(self.score, data, model), self._targets.channels)
        self._enforcement = Enforcement(model, variables, self._masks.variables)
        if self._recipe.untraced and self.score.needs_energies:
            warn(f"model {model.name!r}: {describe_untraced(self._recipe)}")

    @property
    def masks(self) -> dict[str, tf.Tensor]:
        """The masks by layer path: bool tensors of the kernels' shapes, True where the weight stays."""
        return self._masks.by_path()

    @property
    def sparsity(self) -> float:
        """The fraction of weights that are zero now in the pruned kernels together, counted in the weights."""
        return self._enforcement.measure_sparsity(self._named.select(self._targets.paths))

    @property
    def drops_weights(self) -> bool:
        """Whether the masks drop any weight by now."""
        return self._masks.drop_weights()

    @property
    def patterned(self) -> bool:
        """Whether the masks have the pattern by now: N:M is complete at its own sparsity alone."""
        return self._targets.have_pattern(self._masks.kept, self._named.select(self._targets.paths))

    def fit_budget(self, budget: Budget) -> dict[str, float]:
        """The sparsities of groups of channels, by name, with which the model costs no more than a budget.

        Args:
            budget: as in `prune`.

        Raises:
            TypeError, ValueError: no budget, one that cannot be reached, or a pattern other than "channels".
        """
        return fit_budget(budget, self._targets.channels, self._engine.score_channels)

    def check(self, sparsity: Any = None) -> None:
        """Raises what `update` would raise for this sparsity, and changes nothing.

        Args:
            sparsity: as in `update`. None: only whether the weights can be measured.

        Raises:
            TypeError, ValueError: as `update`.
        """
        if sparsity is not None:
            self._targets.aimed_at(sparsity).count_kept(self._targets.fractions(sparsity))
        self._engine.check()

    def check_final(self, sparsity: Any) -> None:
        """Raises what `update` would raise for this sparsity, or if masks at it do not have the pattern yet.

        Raises:
            TypeError, ValueError: as `update`.
        """
        self._targets.check_final(sparsity)

    def update(
        self,
        sparsity: Sparsity,
        *,
        steps: int = 1,
        repair: RepairLike = None,
        data: Representative = None,
        verbose: int = 0,
    ) -> None:
        """Chooses masks at a sparsity and zeroes what they drop. Weights dropped before come back by `densify` alone.

        The first update takes the zeros that are in the kernels for pruned weights, as `hold_zeros` does.

        Args:
            sparsity: the fraction of zeros, in [0, 1), or a mapping from layer paths or regular expressions to
                fractions; kernels that a mapping does not name stay as they are. Embeddings and depthwise kernels are
                named by their path, or by an expression that matches all of it.
            steps: in how many parts, with new scores and a repair for each. Each drops the same share of what is left.
            repair: what the kept weights do to make up for the others: as `method` of `tf_lap.repair`.
            data: what repair is measured over; by default the data of the pruner, if any.
            verbose: 1 prints what is being repaired.

        Raises:
            TypeError, ValueError: a sparsity that is none, outside [0, 1) or beyond the pattern's, a mapping key that
                matches nothing, or weights or normalizations, or what is measured over data, that are not finite.
                Nothing is changed then.
        """
        batches = read_repair_batches(repair, data, self._engine.data, self.model)
        methods = read_methods(repair, bool(batches))
        self._repaired = None
        if not methods:
            self._choose_masks(sparsity, steps)
            return
        pending = PendingRepair(self.model, self._recipe, self._targets.aimed_at(sparsity).numbers, methods, batches)
        before = self._masks.snapshot()

        def repair_part() -> None:
            self._repaired = pending.run(self._targets.by_number(self._masks.values()), verbose)

        try:
            self._choose_masks(sparsity, steps, repair_part)
        except BaseException:
            pending.undo()
            self._masks.roll_back(before)
            raise

    def _choose_masks(self, sparsity: Sparsity, steps: int, finish_part: Callable[[], None] = lambda: None) -> None:
        targets = self._targets.aimed_at(sparsity)
        parts = targets.count_parts(sparsity, steps)
        if targets.paths != self._targets.paths:
            self._engine.check()  # kernels are added only where the update will do
        self._aim(targets)
        before = self._masks.have_taken_zeros
        if not before:
            self.hold_zeros(sparsity)
        try:
            for keep in parts:
                self._masks.kept = self._engine.update(keep)
                finish_part()
        except BaseException as error:
            if isinstance(error, ValueError) and not before:
                # The zeros of weights that are not sound say nothing of those that replace them.
                self._masks.forget()
            else:
                self._masks.recount()  # some may have changed
            raise
        self._named = self._named.after(sparsity, self._targets)
        self._enforcement.zero_averages()

    def hold_zeros(self, sparsity: Sparsity | None = None) -> None:
        """Takes the zeros that are in the kernels now for pruned weights, so that they stay zero.

        A kernel that is zero altogether was initialised so, and is left free. The first `update` does this by itself,
        and `LAPCallback` when a fit begins. A kernel may then keep fewer weights than the pattern asks for.

        Args:
            sparsity: what is asked of the kernels now, as in `update`. Where they have clearly more zeros than that,
                a warning says that these stay. None: no warning.
        """
        if sparsity is not None:
            self.take_in(sparsity)
        self._masks.drop_zeros()
        if sparsity is not None and (sparser := self._targets.describe_sparser(self._masks.kept, sparsity)):
            warn(f"model {self.model.name!r} {sparser}")

    def densify(self, sparsity: Sparsity | None = None) -> None:
        """Lets pruned weights train again, from zero, until the next `update`, which chooses among all weights anew.

        This begins a dense phase of AC/DC (Peste et al., 2021). Nothing else brings pruned weights back.

        Args:
            sparsity: a sparsity as in `update`, where the kernels that a mapping names are meant. None: all.

        Raises:
            TypeError, ValueError: as `update`.
        """
        self._masks.reset(None if sparsity is None else self._targets.fractions(sparsity))

    def take_in(self, sparsity: Sparsity) -> None:
        """Adds the opt-in kernels that a mapping of sparsities names to those that are pruned, with all their weights.

        `update` does this by itself. `LAPCallback` does it when a fit begins, before masks are on the kernels.

        Raises:
            TypeError, ValueError: as `update`.
        """
        if isinstance(sparsity, Mapping):
            self._aim(self._targets.including(self._targets.fractions(sparsity)))

    def _aim(self, targets: Targets) -> None:
        """Takes on targets that hold the present ones, and their allocation."""
        if targets is self._targets:
            return
        added = set(targets.paths).difference(self._targets.paths)
        self._targets = targets
        if added:
            variables = self.kernels_with(())
            self._masks.include(variables)
            self._enforcement.include(variables, self._masks.variables)
        self._engine.retarget(targets.numbers, self._masks.variables, targets.allocation)
        if added and self._masks.have_taken_zeros:
            self._masks.drop_zeros(added)

    def apply(self) -> None:
        """Zeroes all pruned weights: after an optimizer's step that knows nothing of the masks, or after a restore."""
        self._enforcement.apply()

    def freeze(self) -> None:
        """Lets optimizers keep pruned weights at zero from now on, by the kernels' constraints, until `release`.

        The other weights train on: `trainable` is not touched. A training step that was traced before must be traced
        anew. For `fit` of the pruner's own model this is done here; a step of your own, or a model around this one,
        must be compiled again.

        Raises:
            ValueError: the masks of another pruner or callback are attached to the model.
        """
        self._enforcement.attach()

    @property
    def enforcement(self) -> Enforcement:
        """What attaches the masks to the kernels."""
        return self._enforcement

    def release(self) -> None:
        """Takes off the model what `freeze` put there. The zeros stay until somebody trains them away."""
        self._enforcement.detach()

    def report(self) -> PruningReport:
        """What is pruned, layer by layer, and what is skipped and why."""
        kept = dict(zip(self._targets.paths, self._masks.kept, strict=True))
        skipped = self._named.explain_skipped(self._targets)
        census = dict(zip(self._targets.paths, self._enforcement.count_revived_and_zero(), strict=True))
        notes = self._targets.explain_limits(self._masks.kept)
        about = (self.score.sides, self._targets.allocation_note)
        report = make_report(self.model, self._recipe, self._neighbors, kept, skipped, census, notes, *about)
        channels = report_channels(self._targets.channels, self._targets.by_number(self._masks.values()))
        return dataclasses.replace(report, repair=self._repaired, channels=channels)

    def restore(self, masks: Mapping[str, np.ndarray], sparsity: Sparsity = 0.0) -> None:
        """Takes over masks by layer path, in place of the present ones, and zeroes what they drop.

        Args:
            masks: bool arrays of the kernels' shapes, True where the weight stays.
            sparsity: what they were chosen for. Layers that a mapping does not name are skipped in the report.

        Raises:
            ValueError: the paths or shapes are not those of this pruner's kernels.
        """
        check_masks(masks, self.kernels_with(masks))
        self._aim(self._targets.including(masks))
        self._aim(self._targets.aimed_at(sparsity))
        self._masks.replace(masks)
        self._named = self._named.after(sparsity, self._targets)
        self.apply()

    def agrees(self, masks: Mapping[str, np.ndarray]) -> bool:
        """Whether every weight that these masks drop is zero now; ValueError where they are of other kernels."""
        return are_in_force(masks, self.kernels_with(masks))

    def kernels_with(self, paths: Collection[str]) -> dict[str, Variable]:
        """The kernels that are pruned, and the opt-in ones among `paths`, by layer path."""
        return self._targets.including(paths).variables()

    def adopt(self, other: Pruner) -> None:
        """Takes over the masks of another pruner of the same model, for the kernels that both prune.

        Opt-in kernels that mappings have named to the other one are pruned here too.
        """
        self._aim(self._targets.including(other._targets.paths))
        masks = {**self.masks, **other.masks}
        self.restore({path: masks[path].numpy() for path in self._targets.paths})
        self._named = other._named
