"""Which kernels of a model are pruned, and how many weights each keeps at a sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lap.allocation import Allocation, Auto, Sparsity, assign_sparsities, check_sparsity
from tf_lap.channels.plan import ChannelPlan
from tf_lap.compat.types import Model, Variable
from tf_lap.graph.layouts import Layout
from tf_lap.graph.model_graph import Recipe
from tf_lap.patterns import Channels, Pattern, limit
from tf_lap.pruning.options import FROZEN, check_final, explain_skipped, match_pattern
from tf_lap.report.coverage import OPT_IN

# More zeros than the sparsity asks for are worth a warning from this fraction of a kernel on. A few may be there by
# chance, as in bfloat16, and the last blocks of a kernel may be smaller than others.
_CLEAR_EXCESS = 0.05
_MAX_NAMED = 3  # kernels in a warning


class Targets:
    """The kernels of a model that are pruned.

    Args:
        recipe: the resolved model.
        skipped: why other kernels are not pruned, by layer path.
        allocation: how many weights each keeps.
        pattern: in what shape weights go.
        named: the opt-in kernels among the skipped ones that mappings have named, which are pruned too.
        by_kernel: whether each kernel has a sparsity of its own, which decides what the allocation "auto" is.
        channels: the groups of channels that go whole; None where weights go.

    Attributes:
        allocation: how many weights each keeps, with what "auto" stands for in its place.
        skipped: why other kernels are not pruned, without those that were named.
        numbers: the kernels' numbers in the recipe.
        paths: the paths of their layers.
        layouts: their plain layouts.
        sizes: how many weights they have.
        channels: as the argument.
    """

    def __init__(
        self,
        recipe: Recipe,
        skipped: Mapping[str, str],
        allocation: Allocation,
        pattern: Pattern,
        named: Collection[str] = (),
        by_kernel: bool = False,
        channels: ChannelPlan | None = None,
    ) -> None:
        self._recipe, self._skipped, self._allocation, self._pattern = recipe, skipped, allocation, pattern
        self._by_kernel, self.channels = by_kernel, channels
        self._opt_in = {path for path, reason in skipped.items() if reason == OPT_IN}
        self.skipped = {path: reason for path, reason in skipped.items() if path not in named}
        self.numbers = [i for i, kernel in enumerate(recipe.kernels) if kernel.path not in self.skipped]
        self.paths = [recipe.kernels[i].path for i in self.numbers]
        self.layouts: list[Layout] = [recipe.kernels[i].layout.plain for i in self.numbers]
        self.sizes = [layout.size for layout in self.layouts]
        is_alone = len(self.numbers) < 2
        self.allocation = allocation.resolve(by_kernel or is_alone) if isinstance(allocation, Auto) else allocation
        self._units = [pattern.units(layout) for layout in self.layouts]
        self._least = [pattern.least(layout) for layout in self.layouts]

    @classmethod
    def of(
        cls, model: Model, recipe: Recipe, skipped: Mapping[str, str], allocation: Allocation, pattern: Pattern
    ) -> Targets:
        """The kernels of a model, by the pattern's kind: those that are not skipped, or those with whole channels.

        Raises:
            ValueError: the pattern removes channels, and none can go.
        """
        if not isinstance(pattern, Channels):
            return cls(recipe, skipped, allocation, pattern)
        frozen = [path for path, reason in skipped.items() if reason == FROZEN]
        channels = ChannelPlan.of(model, recipe, pattern, skipped, frozen)
        return cls(recipe, channels.explain_skipped(), allocation, pattern, channels=channels)

    def fractions(self, sparsity: Any) -> dict[str, float]:
        """The sparsities by layer path, without those of skipped kernels.

        An opt-in kernel has one where a key of a mapping is its path or matches all of it. See `including`.

        Raises:
            TypeError, ValueError: no sparsity, or a mapping that names skipped kernels alone.
        """
        everything = [kernel.path for kernel in self._recipe.kernels]
        checked = check_sparsity("sparsity", sparsity)
        named = assign_sparsities(checked, everything, self._opt_in)
        fractions = {p: fraction for p, fraction in named.items() if self._skipped.get(p, OPT_IN) == OPT_IN}
        if not fractions:
            reasons = explain_skipped({path: self._skipped[path] for path in assign_sparsities(checked, everything)})
            raise ValueError(f"sparsity={sparsity!r} names only layers that are not pruned: {reasons}")
        return fractions

    def find_named(self, sparsity: Sparsity) -> list[str]:
        """The paths of the kernels that a sparsity is about: with whole channels all kernels that lose any."""
        fractions = self.fractions(sparsity)
        return list(fractions) if self.channels is None else self.channels.find_members(fractions)

    def variables(self) -> dict[str, Variable]:
        """The kernels, by layer path."""
        return {p: self._recipe.kernels[i].variable for p, i in zip(self.paths, self.numbers, strict=True)}

    def by_number(self, masks: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
        """The masks of these kernels by the kernels' numbers, given all by layer path."""
        return {number: masks[path] for path, number in zip(self.paths, self.numbers, strict=True)}

    def including(self, paths: Collection[str]) -> Targets:
        """These kernels, and the opt-in ones among `paths`."""
        named = {path for path in self._opt_in if path in paths or path not in self.skipped}
        if named.isdisjoint(self.skipped):
            return self
        return self._with(named, self._by_kernel)

    def aimed_at(self, sparsity: Sparsity) -> Targets:
        """These kernels, the opt-in ones that a mapping names, and what the allocation "auto" is at this sparsity.

        Raises:
            TypeError, ValueError: as `fractions`.
        """
        fractions = self.fractions(sparsity)
        targets = self.including(fractions)
        # Some kernels may have no sparsity now, such as those that an earlier mapping has named.
        by_kernel = isinstance(sparsity, Mapping) or len(fractions) < len(targets.paths)
        if by_kernel == self._by_kernel:
            return targets
        named = self._opt_in.intersection(targets.paths)
        return self._with(named, by_kernel)

    def _with(self, named: Collection[str], by_kernel: bool) -> Targets:
        return Targets(self._recipe, self._skipped, self._allocation, self._pattern, named, by_kernel, self.channels)

    @property
    def allocation_note(self) -> str:
        """What the allocation "auto" is now, in words; empty where it was not chosen, or nothing is to be divided."""
        if not isinstance(self._allocation, Auto) or len(self.numbers) < 2:
            return ""
        if self._by_kernel:
            return 'allocation "auto": "uniform", because kernels have sparsities of their own'
        return 'allocation "auto": "lamp", which ranks all kernels together'

    def count_kept(self, fractions: Mapping[str, float]) -> list[int]:
        """How many units (weights, or the pattern's blocks of them) each kernel keeps; one count where they are pooled.

        Args:
            fractions: sparsities by layer path, all of them of these kernels; those that are not named keep all.

        Raises:
            ValueError: a sparsity beyond the pattern's, or of some kernels where all are ranked together.
        """
        if self.allocation.pooled and len(fractions) < len(self.paths):
            raise ValueError(
                "this allocation ranks all kernels together and takes one sparsity, not a mapping of some of them: "
                "use filters to leave layers out"
            )
        if self.channels is not None:
            return self.channels.count_kept(self.allocation, fractions)
        sparsities = [match_pattern(self._pattern, fractions.get(path, 0.0)) for path in self.paths]
        keep = self.allocation.keep(self._units, sparsities, [layout.shape for layout in self.layouts])
        least = [sum(self._least)] if self.allocation.pooled else self._least
        return [max(counts) for counts in zip(keep, least, strict=True)]

    def count_parts(self, sparsity: Sparsity, steps: int) -> list[list[int]]:
        """What `count_kept` gives for each part of a sparsity. Each drops the same share of what is left before it.

        Raises:
            TypeError, ValueError: as `fractions` and `count_kept`; steps that are no whole number of at least 1.
        """
        if isinstance(steps, bool) or not hasattr(steps, "__index__") or steps < 1:
            raise ValueError(f"steps={steps!r}: expected a whole number of at least 1")
        fractions = self.fractions(sparsity)
        shares = [part / steps for part in range(1, steps)]
        parts = [{path: 1 - (1 - fraction) ** share for path, fraction in fractions.items()} for share in shares]
        return [self.count_kept(part) for part in [*parts, fractions]]

    def check_final(self, sparsity: Any) -> None:
        """Raises unless masks of this sparsity can be chosen, and have the pattern.

        Raises:
            TypeError, ValueError: as `fractions` and `keep`; a sparsity at which the pattern is not reached.
        """
        fractions = self.fractions(sparsity)
        for fraction in fractions.values():
            check_final(self._pattern, fraction)
        self.aimed_at(sparsity).count_kept(fractions)

    def explain_limits(self, kept: Sequence[int]) -> dict[str, str]:
        """Why kernels keep more weights than was asked for, by layer path.

        Args:
            kept: how many weights each kernel keeps.
        """
        texts = (limit(self._pattern, *target) for target in zip(self.layouts, kept, strict=True))
        return {path: text for path, text in zip(self.paths, texts, strict=True) if text is not None}

    def have_pattern(self, kept: Sequence[int], named: Collection[str]) -> bool:
        """Whether masks that keep so many weights have the pattern by now: N:M is complete at its own sparsity alone.

        Args:
            kept: how many weights each kernel keeps.
            named: the paths of the kernels to look at.
        """
        if self._pattern.sparsity is None:
            return True
        return all(n <= least for path, n, least in zip(self.paths, kept, self._least, strict=True) if path in named)

    def describe_sparser(self, kept: Sequence[int], sparsity: Sparsity) -> str:
        """What to say of a model whose kernels have clearly more zeros than a sparsity asks for; empty if none has.

        Args:
            kept: how many weights each kernel keeps.
            sparsity: what is asked.
        """
        if self.channels is not None:
            return ""  # the zeros of weights say nothing of whole channels
        fractions = self.fractions(sparsity)
        aimed = self.aimed_at(sparsity)
        keep = aimed.count_kept(fractions)
        if aimed.allocation.pooled:
            groups = [("all kernels together", sum(kept), sum(self.sizes), keep[0], sum(self._units))]
        else:
            groups = [
                (repr(path), count, size, goal, units)
                for path, count, size, goal, units in zip(self.paths, kept, self.sizes, keep, self._units, strict=True)
                if path in fractions
            ]
        sparser = [
            f"{name} {1 - count / size:.1%}, asked {1 - goal / units:.1%}"
            for name, count, size, goal, units in groups
            if goal / units - count / size > _CLEAR_EXCESS
        ]
        if not sparser:
            return ""
        more = [f"and {len(sparser) - _MAX_NAMED} more kernels"] if len(sparser) > _MAX_NAMED else []
        return (
            f"has more zeros already than is asked now: {'; '.join(sparser[:_MAX_NAMED] + more)}. They stay zero. To "
            "go on from them without this warning, ask for at least as many. To let them train again, fit once without "
            "pruning"
        )


@dataclasses.dataclass(frozen=True)
class NamedKernels:
    """The kernels that mappings of sparsities have named: the report calls all others skipped.

    Attributes:
        paths: their paths. None where the last sparsity was for all.
    """

    paths: frozenset[str] | None = None

    def after(self, sparsity: Sparsity, targets: Targets) -> NamedKernels:
        """The same after an update at a sparsity."""
        if not isinstance(sparsity, Mapping):
            return NamedKernels()
        return NamedKernels((self.paths or frozenset()).union(targets.find_named(sparsity)))

    def select(self, paths: Collection[str]) -> list[str]:
        """Those of some kernels that are among them."""
        return [path for path in paths if self.paths is None or path in self.paths]

    def explain_skipped(self, targets: Targets) -> dict[str, str]:
        """Why kernels are not pruned, by layer path, those among them that were not named."""
        named = self.select(targets.paths)
        unnamed = [path for path in targets.paths if path not in named]
        return {**targets.skipped, **dict.fromkeys(unnamed, "the mapping of sparsities does not name it")}
