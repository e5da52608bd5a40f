"""How many training steps are done, exactly; what Keras tells callbacks is not always exact."""

from __future__ import annotations

from tf_lap import compat
from tf_lap.compat.types import Model


class StepCounter:
    """Counts the steps of one fit.

    With `steps_per_execution` Keras tells callbacks of the first batch of an execution and of the last batch that it
    requested. Where the number of batches is not known, the last execution may run fewer, and only the optimizer's
    counter tells how many. That counter stands still where something else trains the model.

    Args:
        model: the model that is trained.
        steps_per_epoch: how many steps an epoch has, or None where that is not known.
    """

    def __init__(self, model: Model, steps_per_epoch: int | None) -> None:
        self._model = model
        self._steps_per_epoch = steps_per_epoch
        self._first_batch = 0
        self._first_iteration = self._last_iteration = compat.iterations(model)
        self._accumulation = compat.gradient_accumulation_steps(model)
        self._batches = self._steps = 0  # in executions of several batches
        self._uncounted = 0  # batches of the last execution that the optimizer did not count
        self._optimizer_counts = True

    def begin(self, batch: int) -> None:
        """Notes the first batch of an execution.

        Args:
            batch: its number in the epoch, as Keras tells `on_train_batch_begin`.
        """
        self._first_batch = batch

    def end(self, batch: int) -> int:
        """Counts an execution, and returns how many steps it did.

        Args:
            batch: the last batch of the execution, as Keras tells `on_train_batch_end`.
        """
        batch = compat.last_batch(self._model, self._first_batch, batch)
        if self._steps_per_epoch:
            return max(min(batch, self._steps_per_epoch - 1) - self._first_batch, 0) + 1
        requested = batch - self._first_batch + 1
        if requested == 1:
            return 1
        self._batches += requested
        iteration = compat.iterations(self._model)
        counted, self._last_iteration = iteration - self._last_iteration, iteration
        stands_still = iteration == self._first_iteration and self._batches >= self._accumulation
        # This execution is not the first of its epoch. So the one before was not the last, and ran all its batches.
        ran_uncounted = self._uncounted and self._first_batch > 0
        if stands_still or ran_uncounted:
            self._optimizer_counts = False
        if not self._optimizer_counts:
            steps = self._batches - self._steps
        elif self._accumulation > 1:
            steps = counted
        else:
            steps = min(counted, requested)
            self._uncounted = requested - steps
        self._steps += steps
        return steps
