"""Callbacks that wait until a model is as sparse as it shall be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_HOOKS = (
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)


class WaitingCallbacks:
    """Callbacks that are told of nothing but the fit's beginning and end until they are let go.

    A callback that keeps the best weights, such as `EarlyStopping(restore_best_weights=True)` or
    `ModelCheckpoint(save_best_only=True)`, would else keep those of an early epoch, which are good because few of
    them were pruned.

    Args:
        callbacks: callbacks of the Keras whose model is trained.

    Raises:
        TypeError: one of them is no callback.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = list(callbacks)
        self._waiting = True
        for callback in self._callbacks:
            if not all(hasattr(callback, hook) for hook in ("set_model", *_HOOKS)):
                raise TypeError(f"once_sparse: {callback!r} is no Keras callback")

    def __len__(self) -> int:
        return len(self._callbacks)

    def begin_training(self, model: Any, params: Any) -> None:
        """Tells them of the model and of the beginning of the fit."""
        self._waiting = True
        for callback in self._callbacks:
            callback.set_params(params)
            callback.set_model(model)
            callback.on_train_begin()

    def let_go(self, epoch: int) -> None:
        """From now on they are told of everything; the epoch that runs counts as their first."""
        if not self._waiting:
            return
        self._waiting = False
        self.tell("on_epoch_begin", epoch)

    def tell(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of each, unless they wait."""
        if not self._waiting:
            for callback in self._callbacks:
                getattr(callback, hook)(*arguments)

    def end_training(self, logs: Any) -> None:
        """Tells them that the fit ends, which is when they restore weights."""
        for callback in self._callbacks:
            callback.on_train_end(logs)


REMEDY = (
    "Pass callbacks that keep the best weights as LAPCallback(..., once_sparse=[...]), or fine-tune in a second fit "
    "with PreserveSparsity"
)
"""What helps where a callback kept the weights of an epoch in which fewer were pruned."""


class EarlyCheckpoints:
    """Finds files of `ModelCheckpoint(save_best_only=True)` that were written last before the model was sparse.

    Args:
        callbacks: all callbacks of a fit.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._checkpoints = [callback for callback in callbacks if getattr(callback, "save_best_only", False)]
        self._best = [None] * len(self._checkpoints)

    def note(self) -> None:
        """Remembers what is best by now: called as long as the final sparsity is not reached."""
        self._best = [checkpoint.best for checkpoint in self._checkpoints]

    def warning(self) -> str | None:
        """What to tell users when training has ended; None where all files are of sparse models, or never written."""
        early = [
            checkpoint.filepath
            for checkpoint, best in zip(self._checkpoints, self._best, strict=True)
            if best is not None and np.isfinite(best) and checkpoint.best == best
        ]
        if not early:
            return None
        return (
            f"ModelCheckpoint wrote the best epoch to {', '.join(map(repr, early))} before the final sparsity was "
            f"reached, so that model is less sparse. {REMEDY}"
        )
