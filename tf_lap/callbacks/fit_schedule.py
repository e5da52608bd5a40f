"""A pruning schedule inside one training: with the steps that it takes from the fit, called with plain numbers."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

from tf_lap.allocation import Sparsity
from tf_lap.schedule import LookaheadPruningSchedule
from tf_lap.warn import warn

Schedule = LookaheadPruningSchedule | Callable[[int], tuple[Any, Any]]
"""A schedule of this package, or a function of a step that returns `(should_prune, sparsity)`."""


def as_schedule(pruning_schedule: Schedule | Sparsity, needs_end: bool) -> Schedule:
    """The schedule that a user means.

    Args:
        pruning_schedule: the user's: a schedule, or the final sparsity.
        needs_end: whether the schedule must say when it reaches the final sparsity.

    Raises:
        TypeError: it cannot be called.
        ValueError: it does not say when it reaches the final sparsity, and that is needed.
    """
    if isinstance(pruning_schedule, (numbers.Real, Mapping)) and not isinstance(pruning_schedule, bool):
        pruning_schedule = LookaheadPruningSchedule(pruning_schedule)
    if not callable(pruning_schedule) or isinstance(pruning_schedule, type):
        raise TypeError(
            f"pruning_schedule={pruning_schedule!r}: expected the final sparsity, such as 0.9, or a "
            "tf_lap.LookaheadPruningSchedule, for example LookaheadPruningSchedule(0.9, end_step=1000)"
        )
    if needs_end and not FitSchedule(pruning_schedule).has_end:
        raise ValueError(
            f"once_sparse is given, and pruning_schedule={pruning_schedule!r} does not say when it reaches the "
            "final sparsity: use a tf_lap.LookaheadPruningSchedule"
        )
    return pruning_schedule


class FitSchedule:
    """When masks are updated in a training, and how far.

    Args:
        schedule: the user's.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._has_warned = False

    @property
    def final_sparsity(self) -> Sparsity | None:
        """The sparsity at the schedule's end; None where a function does not say."""
        return self._schedule.final_sparsity if isinstance(self._schedule, LookaheadPruningSchedule) else None

    @property
    def has_end(self) -> bool:
        """Whether the schedule says, or will say once it has its steps, when the final sparsity is reached."""
        return self._lacks_steps or self.last_step is not None

    @property
    def has_warned(self) -> bool:
        """Whether `warn_if_short` has warned."""
        return self._has_warned

    @property
    def last_step(self) -> int | None:
        """The step by which the final sparsity is reached; None where that is not known."""
        return None if self._lacks_steps else getattr(self._schedule, "last_step", None)

    @property
    def _lacks_steps(self) -> bool:
        return isinstance(self._schedule, LookaheadPruningSchedule) and not self._schedule.has_steps

    def check_length(self, steps_per_epoch: int | None) -> None:
        """Raises ValueError where the schedule takes its steps from a fit that does not know its length."""
        if self._lacks_steps:
            _require_length(self._schedule, steps_per_epoch)

    def take_steps_from_fit(self, steps_per_epoch: int | None, first_step: int, epochs: int) -> None:
        """Gives a schedule that leaves its steps to the training those of this fit.

        Args:
            steps_per_epoch: how many steps an epoch has; None where the fit does not know.
            first_step: the step with which epoch 0 begins, or would have begun.
            epochs: the epoch before which the fit ends.

        Raises:
            ValueError: as `check_length`.
        """
        schedule = self._schedule
        if isinstance(schedule, LookaheadPruningSchedule) and not schedule.has_steps:
            length = _require_length(schedule, steps_per_epoch)
            self._schedule = schedule.for_training(
                first_step + epochs * length, steps_per_epoch=length, first_step=first_step
            )

    @property
    def alternates(self) -> bool:
        """Whether the schedule has dense phases, in which pruned weights may return."""
        return isinstance(self._schedule, LookaheadPruningSchedule) and self._schedule.alternates

    def is_dense(self, step: int) -> bool:
        """Whether a step lies in a dense phase."""
        return isinstance(self._schedule, LookaheadPruningSchedule) and self._schedule.is_dense(step)

    def is_due(self, step: int) -> bool:
        """Whether masks are updated at a step."""
        if isinstance(self._schedule, LookaheadPruningSchedule):
            return self._schedule.is_due(step)
        return bool(self._call(step)[0])

    def is_final(self, step: int) -> bool:
        """Whether the final sparsity is reached by a step."""
        return self.last_step is not None and step >= self.last_step

    def due_sparsity(self, steps: range) -> Sparsity | None:
        """The sparsity at the last of these steps at which masks are updated; None where they are at none of them."""
        due_steps = [step for step in steps if self.is_due(step)]
        return self.sparsity_at(due_steps[-1]) if due_steps else None

    def demanded_sparsity(self, step: int) -> Sparsity | None:
        """The sparsity that the zeros of a training which goes on at a step are held against; None where there is none.

        None is where dense phases alternate with sparse ones, since zeros need not stay, and where it is not known. Of
        another schedule that is its final one: where the kernels are less sparse than that, nothing is given up,
        however the schedule begins. Of a function it is the sparsity at this step. What it returns for a step at which
        masks are not updated means nothing.
        """
        if self.alternates:
            return None
        if self.final_sparsity is not None:
            return self.final_sparsity
        return self.sparsity_at(step) if self.is_due(step) else None

    def sparsity_at(self, step: int) -> Sparsity:
        """The sparsity at a step: a float, or a mapping from layer paths or regular expressions to floats."""
        if isinstance(self._schedule, LookaheadPruningSchedule):
            return self._schedule.sparsity_at(step)
        _, sparsity = self._call(step)
        return {k: float(v) for k, v in sparsity.items()} if isinstance(sparsity, Mapping) else float(sparsity)

    def warn_if_short(self, end: int, verb: str) -> None:
        """Warns of a training that does not reach the final sparsity: once, also where `fit` is called for each epoch.

        Args:
            end: the step with which the training ends.
            verb: "ends" or "ended".
        """
        shortfall = self._describe_shortfall(end)
        if shortfall and not self._has_warned:
            self._has_warned = True
            warn(f"this training {verb} {shortfall}")

    def _describe_shortfall(self, end: int) -> str | None:
        """By how much a training that ends with step `end` is too short, and what helps; None where it is not."""
        last_step = self.last_step
        if last_step is None or end >= last_step:
            return None
        begin_step = getattr(self._schedule, "begin_step", last_step)
        if begin_step == last_step:
            remedy = f"set begin_step={end} or less (or begin_epoch to where that is)"
        elif begin_step < end:
            remedy = f"set end_step={end} or less (or end_epoch to where that is)"
        else:
            remedy = f"set end_step={end} or less, and begin_step to less than that"
        return (
            f"at step {end}, before the pruning schedule does at step {last_step}: the final sparsity is not reached. "
            f"Train {last_step - end} steps more, or {remedy}."
        )

    def _call(self, step: int) -> tuple[Any, Any]:
        answer = self._schedule(step)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"pruning_schedule returned {answer!r} for step {step}: expected (should_prune, sparsity)")
        return answer


def _require_length(schedule: Schedule, steps_per_epoch: int | None) -> int:
    if not steps_per_epoch:
        raise ValueError(
            f"pruning_schedule={schedule} takes its steps from the length of the fit, and this fit does not know how "
            "many steps an epoch has. Pass steps_per_epoch to fit and a dataset that repeats (dataset.repeat()), give "
            "the dataset its length with dataset.apply(tf.data.experimental.assert_cardinality(batches)), or give the "
            "schedule its steps: tf_lap.LookaheadPruningSchedule(..., begin_step=..., end_step=..., frequency=...)"
        )
    return steps_per_epoch
