"""A pruning schedule inside one training: with the steps that it takes from the fit, asked in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tf_lap.allocation import Sparsity
from tf_lap.schedule import LookaheadPruningSchedule

Schedule = LookaheadPruningSchedule | Callable[[int], tuple[Any, Any]]
"""A schedule of this package, or a function of a step that returns `(should_prune, sparsity)`."""


class FitSchedule:
    """When masks are updated in a training, and how far.

    Args:
        schedule: the user's.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    @property
    def final_sparsity(self) -> Sparsity | None:
        """The sparsity at the schedule's end; None where a function does not say."""
        return self._schedule.final_sparsity if isinstance(self._schedule, LookaheadPruningSchedule) else None

    @property
    def has_end(self) -> bool:
        """Whether the schedule says, or will say once it has its steps, when the final sparsity is reached."""
        return not self._has_steps or self.last_step is not None

    @property
    def mapping(self) -> Sparsity:
        """The schedule's mapping, which says of which layers it speaks; 0.0 where it has none."""
        return self.final_sparsity if isinstance(self.final_sparsity, Mapping) else 0.0

    @property
    def last_step(self) -> int | None:
        """The step by which the final sparsity is reached; None where that is not known."""
        return getattr(self._schedule, "last_step", None) if self._has_steps else None

    @property
    def _has_steps(self) -> bool:
        return getattr(self._schedule, "has_steps", True)

    def check_length(self, steps_per_epoch: int | None) -> None:
        """Raises ValueError where the schedule takes its steps from a fit that does not know its length."""
        if not self._has_steps and not steps_per_epoch:
            raise ValueError(
                f"{self._schedule} takes its steps from the length of the fit, and this fit does not know how many "
                "steps an epoch has: give begin_step, end_step and frequency, or pass steps_per_epoch to fit"
            )

    def settle(self, steps_per_epoch: int | None, first_step: int, epochs: int) -> None:
        """Gives a schedule that leaves its steps to the training those of this fit.

        Args:
            steps_per_epoch: how many steps an epoch has.
            first_step: the step with which epoch 0 begins, or would have begun.
            epochs: the epoch before which the fit ends.
        """
        if not self._has_steps:
            self.check_length(steps_per_epoch)
            self._schedule = self._schedule.for_training(
                first_step + epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch, first_step=first_step
            )

    def is_due(self, step: int) -> bool:
        """Whether masks are updated at a step."""
        if isinstance(self._schedule, LookaheadPruningSchedule):
            return self._schedule.is_due(step)
        return bool(self._ask(step)[0])

    def asks_at(self, step: int) -> Sparsity | None:
        """The sparsity that is asked at a step whether or not masks are updated then; None where that is not known.

        What a function returns for a step at which masks are not updated means nothing.
        """
        if isinstance(self._schedule, LookaheadPruningSchedule):
            return self.sparsity_at(step) if step >= self._schedule.begin_step else 0.0
        return self.sparsity_at(step) if self.is_due(step) else None

    def sparsity_at(self, step: int) -> Sparsity:
        """The sparsity at a step: a float, or a mapping from layer paths or regular expressions to floats."""
        if isinstance(self._schedule, LookaheadPruningSchedule):
            return self._schedule.sparsity_at(step)
        _, sparsity = self._ask(step)
        return {k: float(v) for k, v in sparsity.items()} if isinstance(sparsity, Mapping) else float(sparsity)

    def shortfall(self, reached: int) -> str | None:
        """What to tell users whose training does not reach the final sparsity; None where it does.

        Args:
            reached: the step with which the training ends.
        """
        last = self.last_step
        if last is None or reached >= last:
            return None
        begin = getattr(self._schedule, "begin_step", last)
        if begin == last:
            remedy = f"set begin_step={reached} or less (or begin_epoch to where that is)"
        elif begin < reached:
            remedy = f"set end_step={reached} or less (or end_epoch to where that is)"
        else:
            remedy = f"set end_step={reached} or less, and begin_step to less than that"
        return (
            f"at step {reached}, before the pruning schedule does at step {last}: the final sparsity is not reached. "
            f"Train {last - reached} steps more, or {remedy}."
        )

    def _ask(self, step: int) -> tuple[Any, Any]:
        answer = self._schedule(step)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"pruning_schedule returned {answer!r} for step {step}: expected (should_prune, sparsity)")
        return answer
