"""Batches that a fit reads without training on them, because a training that was killed did so already."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from tf_lap.compat.types import Model


class BatchSkipper:
    """Stands in for a model's training function until its data is where a snapshot was taken.

    It serves the fit that is running when it is made. In any other fit it puts the training function back at once:
    nothing tells it that a fit was interrupted.

    Attributes:
        train_function: the training function.
        executions: how many of its calls are still skipped.

    Args:
        model: the model that is being fitted.
        data_of: gives the object that iterates over the data of the fit that a model is in.
        batches: how many batches to read before the first call.
        executions: how many calls to skip after that.
        size: how many batches a call takes.
    """

    def __init__(self, model: Model, data_of: Callable[[Model], Any], batches: int, executions: int, size: int) -> None:
        self.train_function = model.train_function
        self.executions = executions
        # Weak, since the model holds this object; only the model's fit calls it, so the model is alive then.
        self._model: Callable[[], Model] = weakref.ref(model)
        self._data_of = data_of
        self._data = weakref.ref(data_of(model))
        self._batches, self._size = batches, size

    def __call__(self, iterator: Iterator[Any]) -> Any:
        """Reads the batches of a call that is done already, or trains."""
        model = self._model()
        if self._data_of(model) is self._data():
            _read_batches(iterator, self._batches)
            self._batches = 0
            if self.executions:
                self.executions -= 1
                _read_batches(iterator, self._size)
                return {}
        model.train_function = self.train_function
        return self.train_function(iterator)


def _read_batches(iterator: Iterator[Any], batches: int) -> None:
    for _ in range(batches):
        if next(iterator, None) is None:  # the last call of an epoch may take fewer
            return


def is_skipping_batches(model: Model) -> bool:
    """Whether the next call of the training function skips its batches."""
    return isinstance(model.train_function, BatchSkipper) and model.train_function.executions > 0


def stop_skipping_batches(model: Model) -> None:
    """Puts the training function back where an interrupted fit has left a `BatchSkipper` in its place."""
    if isinstance(model.train_function, BatchSkipper):
        model.train_function = model.train_function.train_function
