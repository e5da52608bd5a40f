"""The callback that keeps a whole training on disk, so that a killed one ends as if it had not been killed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_lap import compat
from tf_lap.callbacks import snapshot
from tf_lap.callbacks.claims import check_single_backup, find_handover, find_mask_setter, hand_over
from tf_lap.callbacks.lap_callback import LAPCallback
from tf_lap.callbacks.snapshot import DamagedError, Position, Snapshot, Value
from tf_lap.compat import callback_lists, callback_states, fits
from tf_lap.compat.callback_states import CallbackState
from tf_lap.compat.types import Callback
from tf_lap.files import AnyPath, as_path, remove_unfinished
from tf_lap.warn import warn

_LATEST, _PREVIOUS = "tf_lap_snapshot.zip", "tf_lap_snapshot_previous.zip"
_FILES_OF_KERAS = ("latest.weights.h5", "chief")
_SEVERAL_WORKERS = (tf.distribute.MultiWorkerMirroredStrategy, tf.distribute.ParameterServerStrategy)


class BackupAndRestore(compat.Callback):
    """Backs up a training while `model.fit` runs, and goes on with it when the same `fit` is started again.

    It takes the arguments of `keras.callbacks.BackupAndRestore` and serves in its place, for Keras 3 and tf_keras
    models, pruned or not. All that training moves is in one file:

    - weights, the statistics of normalization layers, seed generators;
    - all variables of the optimizers: learning rate, momentum, averages, loss scale, gradients that are being
      accumulated;
    - step and masks of a `LAPCallback` or `PreserveSparsity` in the same fit, and the epoch;
    - what `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` remember: the best value and weights, and how long
      they have waited.

    A new file takes the place of the old one only when it is complete. So whenever a training is killed, also while the
    file is written, the next start goes on from a state that belongs together. Variables keep every bit.

    Its place among the callbacks does not matter: it saves when all of them have ended the epoch.

    The resumed training ends bit for bit as one that was never killed, where training itself is deterministic and the
    data of each epoch comes in the same order. That holds for

    - arrays, shuffled or not, after `keras.utils.set_random_seed` (a Keras 3 `fit` then takes the same order in each
      epoch; a tf_keras `fit` draws one an epoch, and the orders of the epochs done are drawn again);
    - a `tf.data.Dataset` that gives the same elements when its script is run again, one iterator an epoch, or one for
      all with `repeat()` and `steps_per_epoch`; also with `shuffle(..., seed=...)`, unless its length is not known;
    - a generator that gives the same elements when its script is run again: what was read before is read again.

    The states of Python's, NumPy's and TensorFlow's global generators are put back as they were when the epoch began.
    What a data pipeline draws from them in its own threads, as a `PyDataset` that `fit` shuffles does, is not restored.
    Dropout of tf_keras keeps its state in a variable only after
    `tf_keras.backend.experimental.enable_tf_random_generator()`. What callbacks of other classes remember is not in the
    snapshot, nor are metrics of an epoch that was begun.

    With a whole number as `save_freq`, a training goes on inside an epoch: batches that were trained on are read again
    and passed over, so no step is done twice. Callbacks are called for these batches too, with empty logs, and
    the logs of that epoch are means over the other batches.

    This is no subclass of `keras.callbacks.BackupAndRestore`: it would override every method, and a `fit` of
    tf_keras does not take that class.

    Example:

    >>> schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=4, frequency=1)
    >>> callbacks = [tf_lap.LAPCallback(schedule), tf_lap.BackupAndRestore("backup")]
    >>> history = model.fit(x, y, batch_size=16, epochs=2, callbacks=callbacks, verbose=0)

    Args:
        backup_dir: a local directory for the file. Each fit of a script needs its own directory.
        save_freq: `"epoch"`, or after how many batches to save.
        double_checkpoint: keeps the file before the last one too, and uses it where the last one is damaged.
        delete_checkpoint: removes the file when training ends.

    Raises:
        TypeError, ValueError: a directory or a `save_freq` of another kind; and at the start of `fit` a model that is
            not built or is trained by several workers, a `LAPCallback(backup_dir=...)` or another BackupAndRestore in
            the same fit, a directory with a backup of Keras's own callback, a damaged file, or one of another model or
            optimizer. Neither model nor optimizer is changed then.
        OSError: the file cannot be read or written. The masks are taken off the model then.
    """

    # Set when an epoch begins.
    _position: Position

    def __init__(
        self,
        backup_dir: AnyPath,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        self.backup_dir = str(as_path(backup_dir, "backup_dir"))
        if not os.fspath(backup_dir) or "://" in os.fsdecode(backup_dir):
            raise ValueError(
                f"backup_dir={backup_dir!r}: expected a directory of this machine. Elsewhere "
                "keras.callbacks.BackupAndRestore writes too"
            )
        self.save_freq = save_freq
        self._batches_between_saves = _count_batches(save_freq)
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._latest, self._previous = Path(self.backup_dir) / _LATEST, Path(self.backup_dir) / _PREVIOUS
        self._first_epoch: int | None = None  # of the training; known when its first epoch begins
        self._random: Any = None
        self._callbacks: list[Callback] = []  # of the fit, with those that wait in another callback
        self._restored_callbacks: Sequence[CallbackState] = ()
        self._saves_after_others = False
        self._variables: dict[str, list[tuple[str, list[tf.Variable]]]] = {}
        self._has_begun = self._is_due = self._skips_batch = False
        self._batch = self._unsaved_batches = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Puts back what the snapshot holds, if there is one."""
        self._check_fit()
        compat.stop_skipping_batches(self.model)
        fits.forget_start(self.model)
        remove_unfinished(self._latest)
        restored = self._load()
        self._variables = fits.variables(self.model)
        self._has_begun = self._is_due = False
        self._unsaved_batches = 0
        self._first_epoch = None
        callbacks = callback_lists.callbacks_of_fit(self)
        self._callbacks = [member for callback in callbacks for member in _list_with_waiting(callback)]
        self._saves_after_others = callback_lists.run_after_others(callbacks, self.model, at_epoch_end=self._end_epoch)
        self._restored_callbacks = ()
        if restored is not None:
            self._restore(restored)
            self._restored_callbacks = restored.callbacks
        self._random = fits.random_state()
        hand_over(self, self.backup_dir, None if restored is None else restored.pruning)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes with which epoch the fit begins or goes on."""
        if not self._has_begun:
            self._has_begun = True
            fits.forget_start(self.model)
            self._restore_callbacks()
            handover = find_handover(self)
            if handover is not None and handover.state is not None and find_mask_setter(self) is None:
                warn(
                    f"backup_dir={self.backup_dir!r} holds the masks of a pruned training, and this fit has no "
                    "callback that keeps them: zeros are trained away. Pass the LAPCallback or PreserveSparsity too"
                )
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._position = Position(self._first_epoch, epoch, 0, fits.steps_per_execution(self.model))

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves where that is due. Only now have all callbacks seen the batch before."""
        if self._is_due:
            self._save()
        self._batch, self._skips_batch = batch, compat.is_skipping_batches(self.model)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Counts the calls of the training function in the epoch."""
        self._position = self._position._replace(executions=self._position.executions + 1)
        if self._batches_between_saves is not None and not self._skips_batch:
            self._unsaved_batches += batch - self._batch + 1
            self._is_due = self._unsaved_batches >= self._batches_between_saves

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves the training as the next epoch will find it, when all callbacks have ended this one."""
        self._position = self._position._replace(epoch=epoch + 1, executions=0)
        if not self._saves_after_others:
            self._end_epoch()

    def _end_epoch(self) -> None:
        self._random = fits.random_state()
        # A callback may have asked to stop. A start from here would train past the stop; one from the snapshot before
        # stops here again. A file that is kept is meant for training on.
        is_over = self.model.stop_training and self.delete_checkpoint
        if (self._batches_between_saves is None or self._is_due) and not is_over:
            self._save()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Removes the file of a training that came to its end."""
        fits.forget_start(self.model)
        self._variables, self._callbacks = {}, []
        if self.delete_checkpoint:
            for path in (self._latest, self._previous):
                path.unlink(missing_ok=True)
            directory = Path(self.backup_dir)
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()

    def _check_fit(self) -> None:
        if find_handover(self) is not None:
            raise ValueError("two tf_lap.BackupAndRestore in one fit: pass one")
        check_single_backup(getattr(find_mask_setter(self), "backup_dir", None), self.backup_dir)
        if not self.model.built:
            raise ValueError(
                f"model {self.model.name!r} is not built, so nothing can be restored into it. Build it before fit: "
                "call model.build(input_shape), or call it once on a batch"
            )
        strategy = getattr(self.model, "distribute_strategy", None)
        if isinstance(strategy, _SEVERAL_WORKERS):
            raise ValueError(
                f"the model is trained under {type(strategy).__name__}, and each worker would write its own snapshot: "
                "use the BackupAndRestore of its Keras with LAPCallback(backup_dir=...)"
            )

    def _load(self) -> Snapshot | None:
        candidates = [path for path in (self._latest, self._previous) if path.exists()]
        if not candidates:
            files_of_keras = [name for name in _FILES_OF_KERAS if (Path(self.backup_dir) / name).exists()]
            if files_of_keras:
                raise ValueError(
                    f"backup_dir={self.backup_dir!r} holds {files_of_keras[0]!r}, a backup of Keras's own "
                    "BackupAndRestore: resume with that, or name another directory to begin anew"
                )
            return None
        for path, following in zip(candidates, [*candidates[1:], None], strict=True):
            try:
                return snapshot.load(path)
            except DamagedError as error:
                if following is None:
                    raise ValueError(
                        f"backup_dir={self.backup_dir!r}: {error}. Delete the directory to begin anew"
                    ) from error
                warn(f"backup_dir={self.backup_dir!r}: {error}; training goes on from the snapshot before it")
        return None

    def _restore(self, restored: Snapshot) -> None:
        difference = snapshot.describe_difference(self._read_values(), restored.variables)
        position, batches = restored.position, fits.steps_per_execution(self.model)
        if difference is None and position.executions and position.steps_per_execution != batches:
            difference = f"steps_per_execution is {position.steps_per_execution} in it, and {batches} in this fit"
        if difference is not None:
            raise ValueError(
                f"backup_dir={self.backup_dir!r} holds a snapshot of another training: {difference}. Start the "
                "training as it was when the snapshot was written, or delete the directory to begin anew"
            )
        for section, variables in self._variables.items():
            for (_, replicas), value in zip(variables, restored.variables[section], strict=True):
                for variable, array in zip(replicas, value.arrays, strict=True):
                    variable.assign(array)
        fits.set_random_state(restored.random)
        fits.resume_at(self.model, position.first_epoch, position.epoch, position.executions)
        self._first_epoch = position.first_epoch

    def _restore_callbacks(self) -> None:
        """Makes Keras's callbacks remember what they did; called when all of them know that the fit begins."""
        states, self._restored_callbacks = self._restored_callbacks, ()
        if states and not callback_states.write_states(self._callbacks, states):
            names = ", ".join(state.name for state in states)
            warn(
                f"backup_dir={self.backup_dir!r} holds what {names} remembered, and this fit has other callbacks: what "
                "they remember begins anew. To go on with it, pass the same callbacks in the same order"
            )

    def _save(self) -> None:
        self._is_due, self._unsaved_batches = False, 0
        setter = find_mask_setter(self)
        try:
            pruning = None if setter is None else setter.get_state()
            Path(self.backup_dir).mkdir(parents=True, exist_ok=True)
            states = callback_states.read_states(self._callbacks)
            current = Snapshot(self._position, self._read_values(), pruning, self._random, states)
            if self.double_checkpoint and self._latest.exists():
                os.replace(self._latest, self._previous)
            snapshot.save(self._latest, current)
        except BaseException:
            if setter is not None:  # the fit ends here, and Keras then calls no on_train_end
                setter.release()
            raise

    def _read_values(self) -> dict[str, list[Value]]:
        return {
            section: [Value(name, [variable.numpy() for variable in replicas]) for name, replicas in variables]
            for section, variables in self._variables.items()
        }


def _list_with_waiting(callback: Callback) -> list[Callback]:
    """A callback of a fit, and those that wait in it until the model is sparse."""
    return [callback, *callback.once_sparse] if isinstance(callback, LAPCallback) else [callback]


def _count_batches(save_freq: str | int) -> int | None:
    """How many batches lie between two saves; None where each epoch is saved at its end.

    Raises:
        ValueError: it is neither "epoch" nor a whole number of at least 1.
    """
    if save_freq == "epoch":
        return None
    if isinstance(save_freq, (str, bool)) or not hasattr(save_freq, "__index__") or save_freq < 1:
        raise ValueError(f"save_freq={save_freq!r}: expected 'epoch' or a whole number of batches of at least 1")
    return int(save_freq)
