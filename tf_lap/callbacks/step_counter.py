"""How many training steps are done: what Keras tells callbacks, made exact."""

from __future__ import annotations

from typing import Any

from tf_lap import compat


class StepCounter:
    """Counts the steps of one fit.

    With `steps_per_execution` Keras tells callbacks of the first batch of an execution and of the last that it asked
    for. Where the number of batches is not known, the last execution may run fewer, and only the optimizer's own
    counter tells how many. That counter stands still where something else trains the model.

    Args:
        model: the model that is trained.
        steps_per_epoch: how many steps an epoch has, or None where that is not known.
    """

    def __init__(self, model: Any, steps_per_epoch: int | None) -> None:
        self._model = model
        self._steps_per_epoch = steps_per_epoch
        self._first_batch = 0
        self._first_iteration = self._last_iteration = compat.iterations(model)
        self._accumulation = compat.gradient_accumulation_steps(model)
        self._batches = self._counted = 0
        self._missing = 0  # batches of the last execution that the optimizer did not count
        self._optimizer_counts = True

    def begin(self, batch: int) -> None:
        """Notes the first batch of an execution.

        Args:
            batch: its number in the epoch, as Keras tells `on_train_batch_begin`.
        """
        self._first_batch = batch

    def end(self, batch: int) -> int:
        """How many steps were done since the last execution ended.

        Args:
            batch: the last batch of this one, as Keras tells `on_train_batch_end`.
        """
        batch = compat.last_batch(self._model, self._first_batch, batch)
        if self._steps_per_epoch:
            return max(min(batch, self._steps_per_epoch - 1) - self._first_batch, 0) + 1
        asked = batch - self._first_batch + 1
        if asked == 1:
            return 1
        self._batches += asked
        now = compat.iterations(self._model)
        moved, self._last_iteration = now - self._last_iteration, now
        stands_still = now == self._first_iteration and self._batches >= self._accumulation
        # Not the first of its epoch: so the one before was not the last, and ran all that it was asked for.
        was_whole = self._missing and self._first_batch > 0
        if stands_still or was_whole:
            self._optimizer_counts = False
        if not self._optimizer_counts:
            steps = self._batches - self._counted
        elif self._accumulation > 1:
            steps = moved
        else:
            steps = min(moved, asked)
            self._missing = asked - steps
        self._counted += steps
        return steps
