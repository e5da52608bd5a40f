"""Batches that a fit reads without training on them, because a training that was killed did so already."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any


class PassOver:
    """Stands in for a model's training function until its data is where a snapshot was taken.

    It serves the fit that is running when it is made. In any other it gives way at once: nothing tells it that a fit
    was interrupted.

    Attributes:
        inner: the training function.
        executions: how many of its calls are still passed over.

    Args:
        model: the model that is being fitted.
        data_of: what gives the object that iterates over the data of the fit that a model is in.
        batches: how many batches to read before the first call.
        executions: how many calls to pass over then.
        size: how many batches a call takes.
    """

    def __init__(self, model: Any, data_of: Callable[[Any], Any], batches: int, executions: int, size: int) -> None:
        self.inner = model.train_function
        self.executions = executions
        self._model, self._data_of = weakref.ref(model), data_of
        self._data = weakref.ref(data_of(model))
        self._batches, self._size = batches, size

    def __call__(self, iterator: Iterator[Any]) -> Any:
        """Reads the batches of a call that is done already, or trains."""
        model = self._model()
        if self._data_of(model) is self._data():
            _read(iterator, self._batches)
            self._batches = 0
            if self.executions:
                self.executions -= 1
                _read(iterator, self._size)
                return {}
        model.train_function = self.inner
        return self.inner(iterator)


def _read(iterator: Iterator[Any], batches: int) -> None:
    for _ in range(batches):
        if next(iterator, None) is None:  # the last call of an epoch may take fewer
            return


def passes_over(model: Any) -> bool:
    """Whether the next call of the training function passes its batches over."""
    return isinstance(model.train_function, PassOver) and model.train_function.executions > 0


def trains_again(model: Any) -> None:
    """Takes away what a fit that was interrupted meanwhile has left."""
    if isinstance(model.train_function, PassOver):
        model.train_function = model.train_function.inner
