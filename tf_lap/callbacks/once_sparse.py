"""Callbacks that wait until a model has its final sparsity, and warnings of those that did not wait."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from tf_lap.compat.types import Callback, Model

_HOOKS = (
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_end",
)


class WaitingCallbacks:
    """Callbacks that are told of nothing but the fit's beginning and end until their wait ends.

    From then on they are told of everything but single batches of validation. Without the wait, a callback that keeps
    the best weights, such as `EarlyStopping(restore_best_weights=True)` or `ModelCheckpoint(save_best_only=True)`,
    would keep those of an early epoch. These are good because few weights were pruned then.

    Args:
        callbacks: callbacks of the Keras whose model is trained, or a single one.

    Attributes:
        callbacks: the callbacks.

    Raises:
        TypeError: one of them is no callback.
    """

    def __init__(self, callbacks: Sequence[Callback] | Callback) -> None:
        self.callbacks: list[Callback] = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        self._is_waiting = True
        for callback in self.callbacks:
            if not all(hasattr(callback, hook) for hook in ("set_model", *_HOOKS)):
                raise TypeError(f"once_sparse: {callback!r} is no Keras callback")

    def __getstate__(self) -> dict[str, Any]:
        # Without the model, which is neither copied nor pickled with a callback.
        callbacks = [copy.copy(callback) for callback in self.callbacks]
        for callback in callbacks:
            callback.set_model(None)
        return {**vars(self), "callbacks": callbacks}

    def begin_training(self, model: Model, params: Any) -> None:
        """Tells the callbacks of the model, and that the fit begins."""
        self._is_waiting = True
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(model)
            callback.on_train_begin()

    def end_wait(self, epoch: int) -> None:
        """Tells the callbacks of everything from now on; the epoch that runs counts as their first."""
        if not self._is_waiting:
            return
        self._is_waiting = False
        self.tell("on_epoch_begin", epoch)

    def tell(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of each callback, unless they wait."""
        if not self._is_waiting:
            for callback in self.callbacks:
                getattr(callback, hook)(*arguments)

    def end_training(self, logs: Any) -> None:
        """Tells the callbacks that the fit ends, which is when they restore weights."""
        for callback in self.callbacks:
            callback.on_train_end(logs)


REMEDY = (
    "Pass callbacks that keep the best weights as LAPCallback(..., once_sparse=[...]), or fine-tune in a second fit "
    "with PreserveSparsity"
)
"""What helps where a callback has kept the weights of an epoch in which fewer were pruned."""


class EarlyCheckpoints:
    """Finds files of `ModelCheckpoint(save_best_only=True)` that were last written before the model was sparse.

    Args:
        callbacks: all callbacks of a fit that begins.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        attributes = ("best", "filepath")
        self._checkpoints = [
            callback
            for callback in callbacks
            if getattr(callback, "save_best_only", False) and all(hasattr(callback, name) for name in attributes)
        ]
        self._best_at_start = self._best_before_sparse = [checkpoint.best for checkpoint in self._checkpoints]

    def accept_files(self) -> None:
        """Accepts the files that are there: a training that goes on had its final sparsity before."""
        self._best_at_start = self._best_before_sparse = [checkpoint.best for checkpoint in self._checkpoints]

    def note_best(self) -> None:
        """Remembers the best values so far. Called as long as the final sparsity is not reached."""
        self._best_before_sparse = [checkpoint.best for checkpoint in self._checkpoints]

    def warning(self) -> str | None:
        """What to tell users when training has ended; None where no file is of a model that was less sparse."""
        checkpoints = zip(self._checkpoints, self._best_at_start, self._best_before_sparse, strict=True)
        early_files = [
            checkpoint.filepath
            for checkpoint, at_start, before_sparse in checkpoints
            # The best value changed before the model was sparse, so a file was written. It has not changed since, so
            # the file was not written again.
            if before_sparse != at_start and checkpoint.best == before_sparse
        ]
        if not early_files:
            return None
        return (
            f"ModelCheckpoint wrote the best epoch to {', '.join(map(repr, early_files))} before the final sparsity "
            f"was reached, so that model is less sparse. {REMEDY}"
        )
