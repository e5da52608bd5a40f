"""Which channels a pruner may remove, how many of each group stay, and the masks without the others."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lap.allocation import Allocation, keep_count, protect_best
from tf_lap.channels.groups import SINGLE, ChannelGroup, find_groups
from tf_lap.compat.types import Model
from tf_lap.costs.channel_costs import ChannelCosts, find_channel_costs
from tf_lap.graph.coupling import Coupling, find_coupling
from tf_lap.graph.layouts import Layout
from tf_lap.graph.model_graph import Recipe
from tf_lap.patterns import Channels

_MAX_REASONS = 3
"""How many reasons an error names for each group."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelPlan:
    """What of a model can be removed by whole channels.

    Attributes:
        model: the model.
        recipe: what it is resolved to.
        coupling: its classes of channels.
        groups: all groups of channels, those that are blocked among them.
        pattern: to which multiples widths are rounded.
    """

    model: Model
    recipe: Recipe
    coupling: Coupling
    groups: tuple[ChannelGroup, ...]
    pattern: Channels

    @classmethod
    def of(
        cls,
        model: Model,
        recipe: Recipe,
        pattern: Channels,
        skipped: Mapping[str, str],
        frozen: Collection[str] = (),
    ) -> ChannelPlan:
        """The plan for a model.

        Args:
            model: the model.
            recipe: what it is resolved to.
            pattern: the pattern.
            skipped: why kernels are not pruned, by path. For a depthwise kernel, which follows what it reads, it does
                not count.
            frozen: those of them that must not change, so that they lose no channel that they read either.

        Raises:
            ValueError: every group is blocked, or the model does not take inputs of the pattern's shape.
            TypeError: that is no shape.
        """
        coupling = find_coupling(recipe)
        kernels = list(enumerate(recipe.kernels))
        producers = {
            number: f"{kernel.path!r} is {skipped[kernel.path]}"
            for number, kernel in kernels
            if kernel.path in skipped and not (kernel.is_opt_in and kernel.layout.is_grouped)
        }
        readers = {
            number: f"{kernel.path!r} reads it and is {skipped[kernel.path]}"
            for number, kernel in kernels
            if kernel.path in frozen
        }
        grouped = {kernel.path for kernel in recipe.kernels if kernel.layout.is_grouped}
        groups = tuple(
            cls._leave_whole(group, pattern, grouped) for group in find_groups(recipe, coupling, producers, readers)
        )
        plan = cls(model, recipe, coupling, groups, pattern)
        if pattern.input_shape is not None:
            _ = plan.costs  # raises where the model does not take that shape
        if not plan.prunable:
            reasons = "; ".join(f"{group.name!r} ({group.width}): {_list_reasons(group.blocked)}" for group in groups)
            raise ValueError(f"pattern={str(pattern)!r}: no channel of this model can be removed. {reasons}")
        return plan

    @staticmethod
    def _leave_whole(group: ChannelGroup, pattern: Channels, grouped: Collection[str]) -> ChannelGroup:
        """A group, blocked where the pattern leaves it whole; `grouped` are the paths of kernels that act in groups."""
        if group.blocked:
            return group
        reason = ""
        if not pattern.group_wise and sum(path not in grouped for path in group.producers) > 1:
            reason = "several kernels put it out, and group_wise=False leaves it whole"
        elif group.width * group.multiple <= pattern.round_to:
            reason = f"it has {group.width * group.multiple} channels, and round_to={pattern.round_to} keeps as many"
        return dataclasses.replace(group, blocked=(reason,)) if reason else group

    @functools.cached_property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups whose channels can be removed."""
        return tuple(group for group in self.groups if not group.blocked)

    @functools.cached_property
    def costs(self) -> ChannelCosts:
        """What the model's channels cost.

        Raises:
            ValueError: an input has axes of unknown size, and the pattern does not say them.
        """
        return find_channel_costs(self.model, self.recipe, self.coupling, input_shape=self.pattern.input_shape)

    def explain_skipped(self) -> dict[str, str]:
        """Why kernels have no weight that goes with a channel, by path."""
        removable = np.concatenate([group.classes for group in self.prunable])
        reasons = {path: ", ".join(group.blocked) for group in self.groups for path in group.producers if group.blocked}
        return {
            kernel.path: reasons.get(kernel.path, SINGLE)
            for kernel, *sides in zip(
                self.recipe.kernels, self.coupling.kernel_inputs, self.coupling.kernel_outputs, strict=True
            )
            if not np.any(np.isin(np.concatenate(sides), removable))
        }

    def count_kept(self, allocation: Allocation, fractions: Mapping[str, float]) -> list[int]:
        """How many channels each group that can be pruned keeps; one count where all are ranked together.

        Args:
            allocation: whether they are.
            fractions: sparsities by the path of a kernel that puts the channels out; groups without one keep all.

        Raises:
            ValueError: kernels of one group have different sparsities.
        """
        names = {group.name for group in self.prunable}
        sparsities = []
        for group in self.prunable:
            others = names - {group.name}  # a kernel that names another group speaks for that one
            named = {path: fractions[path] for path in group.producers if path in fractions and path not in others}
            if len(set(named.values())) > 1:
                raise ValueError(f"sparsity: {named} put out the same channels; give all of them one sparsity")
            sparsities.append(next(iter(named.values()), 0.0))
        widths = [group.width for group in self.prunable]
        if allocation.pooled:
            return allocation.keep(widths, sparsities, [(width,) for width in widths])
        return [
            self.round_count(group, keep_count(group.width, s))
            for group, s in zip(self.prunable, sparsities, strict=True)
        ]

    def find_members(self, fractions: Mapping[str, float]) -> list[str]:
        """The paths of the kernels that put out or read channels of groups with a sparsity."""
        named = [group for group in self.prunable if not fractions.keys().isdisjoint(group.producers)]
        members = {path for group in named for path in (*group.producers, *group.readers)}
        return [kernel.path for kernel in self.recipe.kernels if kernel.path in members]

    def round_count(self, group: ChannelGroup, count: int) -> int:
        """A number of channels of a group, as the pattern rounds it: to the nearest multiple, but never to none."""
        step = self.pattern.round_to // math.gcd(self.pattern.round_to, group.multiple)
        return min(group.width, max(step, step * round(count / step)))

    def choose(self, scores: np.ndarray, alive: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """Which classes stay.

        Args:
            scores: of the classes, `(classes,)`, not negative.
            alive: bool `(classes,)`, False where one is removed already.
            counts: how many channels each group that can be pruned keeps.

        Returns:
            Bool `(classes,)`. Of equal scores the first stay.
        """
        kept = alive.copy()
        for group, count in zip(self.prunable, counts, strict=True):
            order = np.argsort(np.where(alive[group.classes], -scores[group.classes], np.inf), kind="stable")
            kept[group.classes[order[count:]]] = False
        return kept

    def divide(self, scores: np.ndarray, alive: np.ndarray, total: int, allocation: Allocation) -> list[int]:
        """How many channels each group keeps when all are ranked together; each keeps at least one.

        Args:
            scores: as `choose` takes them.
            alive: likewise.
            total: how many channels all groups keep together.
            allocation: what makes scores of several groups comparable.
        """
        comparable = [compare_scores(scores[g.classes], alive[g.classes], allocation) for g in self.prunable]
        together = np.concatenate(comparable)
        kept = np.zeros(len(together), bool)
        kept[np.argsort(-together, kind="stable")[:total]] = True
        ends = np.cumsum([len(part) for part in comparable])[:-1]
        parts = np.split(kept, ends)
        return [
            self.round_count(group, int(np.count_nonzero(part)))
            for group, part in zip(self.prunable, parts, strict=True)
        ]

    def expand(self, number: int, kept: np.ndarray) -> np.ndarray:
        """The mask of a kernel, bool of its shape: False where a weight reads or puts out a class that goes."""
        sides = (self.coupling.kernel_inputs[number], self.coupling.kernel_outputs[number])
        layout = self.recipe.kernels[number].layout
        return np.broadcast_to(layout.find_between(*(kept[classes] for classes in sides)), layout.shape)

    def find_alive(self, masks: Mapping[int, np.ndarray]) -> np.ndarray:
        """The classes with any weight that stays: bool `(classes,)`.

        Args:
            masks: bool arrays of the kernels' shapes, by number, of all kernels that have a channel which can go.
        """
        alive = np.ones(self.coupling.count, bool)
        alive[np.concatenate([group.classes for group in self.prunable])] = False
        for number, mask in masks.items():
            by_input, by_output = sum_sides(self.recipe.kernels[number].layout, mask)
            alive[self.coupling.kernel_inputs[number][by_input > 0]] = True
            alive[self.coupling.kernel_outputs[number][by_output > 0]] = True
        return alive


def compare_scores(scores: np.ndarray, alive: np.ndarray, allocation: Allocation) -> np.ndarray:
    """The scores of a group's channels as they compare with those of others: infinity for the best, -1 for dead ones.

    Args:
        scores: of the channels, `(width,)`, not negative.
        alive: bool of that shape.
        allocation: what makes them comparable. Its norm is L2: the scores are norms themselves.
    """
    live = tf.constant(alive)
    comparable = allocation.comparable(tf.constant(np.where(alive, scores, 0), tf.float32), live, 2)
    return np.where(alive, protect_best(comparable, live), -1)


def sum_sides(layout: Layout, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of squares of an array of a kernel's shape by input channel and by output channel, float32."""
    by_input, by_output = layout.energies(tf.constant(values, tf.float32))
    return np.asarray(by_input), np.asarray(by_output)


def _list_reasons(reasons: Sequence[str]) -> str:
    """The first of several reasons, and how many more there are."""
    more = len(reasons) - _MAX_REASONS
    return ", ".join(reasons[:_MAX_REASONS]) + (f" and {more} more" if more > 0 else "")
