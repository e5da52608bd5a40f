"""The Keras callbacks: they decide when to ask the pruner, and nothing else."""

from __future__ import annotations

import importlib
import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lap import backup, compat
from tf_lap.allocation import Allocation
from tf_lap.arguments import check_choices
from tf_lap.enforce import Enforcement, holder
from tf_lap.graph import resolve
from tf_lap.matching import Filters
from tf_lap.pruner import Pruner
from tf_lap.report import PruningReport
from tf_lap.schedule import LookaheadPruningSchedule
from tf_lap.scores import Score

# Which callback prunes which model now. Both ends are weak: a callback holds its model, and would keep the entry alive.
# An entry that a fit left behind when it was interrupted is harmless.
_active: weakref.WeakKeyDictionary[Any, weakref.ref[LAPCallback]] = weakref.WeakKeyDictionary()


class LAPCallback(compat.Callback):
    """Prunes a model while `model.fit` trains it.

    Masks are updated when the schedule says so, and enforced inside the compiled training step in between.
    When training ends, the weights are exactly as sparse as the schedule's end, and nothing of the callback is left on
    the model: it saves, loads and exports like any Keras model. Each epoch's logs hold `"sparsity"`, the fraction of
    zeros over the pruned kernels.

    Keras calls callbacks in the order of the list: list those that read the logs, such as TensorBoard, behind this one,
    and those that put other weights into the model, such as `EarlyStopping(restore_best_weights=True)`, before it.
    Weights that are restored then get the zeros of the last masks.

    Used again for the same model, the callback goes on where it was: steps count on, zeros stay.

    Example:

    >>> schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=4, frequency=1)
    >>> callback = tf_lap.LAPCallback(schedule)
    >>> history = model.fit(x, y, batch_size=16, epochs=2, callbacks=[callback], verbose=0)
    >>> round(callback.report.sparsity, 2)
    0.9

    Args:
        pruning_schedule: a `LookaheadPruningSchedule`, or a function of a step that returns `(should_prune, sparsity)`.
        score: as in `Pruner`.
        allocation: as in `Pruner`.
        pattern: as in `Pruner`.
        order: as in `Pruner`.
        filters: as in `Pruner`.
        neighbors: as in `Pruner`.
        backup_dir: where to keep masks and step while training, so that a crashed training that
            `keras.callbacks.BackupAndRestore` resumes goes on with the same zeros. Removed when training ends.
        log_dir: where to write each kernel's sparsity as TensorBoard summaries; needs the tensorboard package.
        verbose: 1 prints a line at each update.

    Raises:
        TypeError, ValueError: a schedule that cannot be called, a choice that is not known; and at the start of `fit`
            whatever `Pruner` raises, or that another LAPCallback prunes the model in this fit already.
        ImportError: `log_dir` is given, and tensorboard is not installed.
    """

    def __init__(
        self,
        pruning_schedule: LookaheadPruningSchedule,
        *,
        score: str | Score = "lookahead",
        allocation: str | Allocation = "uniform",
        pattern: str = "unstructured",
        order: str = "simultaneous",
        filters: Filters = None,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
        backup_dir: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if not callable(pruning_schedule) or isinstance(pruning_schedule, type):
            raise TypeError(
                f"pruning_schedule={pruning_schedule!r}: expected a tf_lap.LookaheadPruningSchedule, "
                "for example LookaheadPruningSchedule(0.9, end_step=1000)"
            )
        check_choices(score, allocation, pattern, order)
        if log_dir is not None:
            _require_tensorboard()
        self.pruning_schedule = pruning_schedule
        self._choices = {
            "score": score,
            "allocation": allocation,
            "pattern": pattern,
            "order": order,
            "filters": filters,
            "neighbors": neighbors,
        }
        self.backup_dir, self.log_dir, self.verbose = backup_dir, log_dir, verbose
        self.step = 0
        self._pruner: Pruner | None = None
        self._writer: tf.summary.SummaryWriter | None = None
        self._started = False
        self._batch = 0

    @property
    def report(self) -> PruningReport:
        """What is pruned, layer by layer, as of now.

        Raises:
            ValueError: before the first fit.
        """
        return self._known().report()

    @property
    def pruner(self) -> Pruner:
        """The `Pruner` at work.

        Raises:
            ValueError: before the first fit.
        """
        return self._known()

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        if self._pruner is not None:
            self._pruner.release()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Resolves the model and checks everything that can be checked before training."""
        other = _active.get(self.model, lambda: None)()
        # Keras hands all callbacks of one fit the same dictionary of parameters.
        if other is not None and other is not self and other.params is self.params:
            raise ValueError("two LAPCallbacks in one fit: pass one, with a mapping of sparsities where layers differ")
        if self._pruner is None or self._pruner.model is not self.model:
            pruner = Pruner(self.model, **self._choices)
            pruner.check(self._sparsity_at(self.step))
            self._pruner, self.step = pruner, 0
        _release_leftovers(self.model)
        _active[self.model] = weakref.ref(self)
        self._started = False
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Warns, in the first epoch, where the training is too short for the schedule."""
        # Here, and not in on_train_begin, because only here the epoch to start with is known.
        last = getattr(self.pruning_schedule, "last_step", None)
        steps = self.params.get("steps")
        if self._started or not steps or last is None:
            return
        reached = self.step + (self.params["epochs"] - epoch) * steps
        if reached < last:
            warnings.warn(
                f"this training ends at step {reached}, before the pruning schedule does at step {last}: the final "
                f"sparsity will not be reached. Train {last - reached} steps more, or set end_step={reached} or less.",
                stacklevel=2,
            )

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes hold of the kernels at the first batch."""
        self._batch = batch
        if self._started:
            return
        # Not before the first batch: a callback that restores weights does so in its own on_train_begin.
        self._started = True
        pruner = self._known()
        resumed = self._resume(pruner)
        if pruner.sparsity > 0:
            pruner.apply()
        pruner.freeze()
        if not resumed:
            self._update(range(self.step, self.step + 1))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Counts the steps done, and updates the masks where one of them is due."""
        steps = self.params.get("steps")
        last = batch if not steps else min(batch, steps - 1)  # a short last execution runs fewer steps than it is asked
        done = self.step + max(last - self._batch, 0) + 1
        self._update(range(self.step + 1, done + 1))

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes pruned weights that another callback may have swapped in."""
        if self._started:
            self._known().apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds `sparsity` to the logs, and saves the backup."""
        pruner = self._known()
        # A callback may have put the optimizer's averages in place of the weights.
        pruner.apply()
        if logs is not None:
            logs["sparsity"] = pruner.sparsity
        self._save()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes pruned weights a last time and lets go of the model."""
        pruner = self._known()
        # The optimizer's averages take the place of the weights after the last epoch.
        pruner.apply()
        pruner.release()
        _active.pop(self.model, None)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.backup_dir is not None:
            backup.delete(self.backup_dir)

    def _known(self) -> Pruner:
        if self._pruner is None:
            raise ValueError("this LAPCallback has not pruned yet: pass it to model.fit(callbacks=[...]) first")
        return self._pruner

    def _sparsity_at(self, step: int) -> Any:
        if isinstance(self.pruning_schedule, LookaheadPruningSchedule):
            return self.pruning_schedule.sparsity_at(step)
        _, sparsity = self.pruning_schedule(step)
        return {k: float(v) for k, v in sparsity.items()} if isinstance(sparsity, Mapping) else float(sparsity)

    def _is_due(self, step: int) -> bool:
        if isinstance(self.pruning_schedule, LookaheadPruningSchedule):
            return self.pruning_schedule.is_due(step)
        return bool(self.pruning_schedule(step)[0])

    def _update(self, steps: range) -> None:
        """Moves on to the last of `steps`, and updates the masks once if any of them is due."""
        self.step = steps[-1]
        due = [step for step in steps if self._is_due(step)]
        if not due:
            return
        pruner = self._known()
        pruner.update(self._sparsity_at(due[-1]))
        if self.verbose:
            print(f"step {self.step}: sparsity {pruner.sparsity:.4f}")
        if self._writer is not None:
            with self._writer.as_default(step=self.step):
                tf.summary.scalar("sparsity", pruner.sparsity)
                for layer in pruner.report().pruned:
                    tf.summary.scalar(f"sparsity/{layer.path}", layer.sparsity)
        self._save()

    def _save(self) -> None:
        if self.backup_dir is not None:
            masks = {path: mask.numpy() for path, mask in self._known().masks.items()}
            backup.save(self.backup_dir, self.step, compat.iterations(self.model), masks)

    def _resume(self, pruner: Pruner) -> bool:
        state = None if self.backup_dir is None else backup.load(self.backup_dir)
        if state is None:
            return False
        pruner.restore(state.masks)
        # The weights may have been restored to an earlier moment than the masks: the optimizer knows which.
        self.step = max(0, state.step + compat.iterations(self.model) - state.iterations)
        return True


class PreserveSparsity(compat.Callback):
    """Keeps zeros zero while a pruned model is fine-tuned: every kernel weight that is exactly 0 at the start stays 0.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> history = model.fit(x, y, callbacks=[tf_lap.PreserveSparsity()], verbose=0)
    """

    def __init__(self) -> None:
        super().__init__()
        self._enforcement: Enforcement | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Takes off what an interrupted fit left."""
        _release_leftovers(self.model)
        self._enforcement = None

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes the zeros for its masks at the first batch, when weights are restored."""
        if self._enforcement is None:
            kernels = [kernel for kernel in resolve(self.model).kernels if kernel.variable.trainable]
            masks = [tf.Variable(tf.not_equal(tf.convert_to_tensor(k.variable), 0), trainable=False) for k in kernels]
            self._enforcement = Enforcement(self.model, {k.path: k.variable for k in kernels}, masks)
            self._enforcement.apply_averages()
            self._enforcement.attach()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes weights that another callback may have swapped in."""
        if self._enforcement is not None:
            self._enforcement.apply()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes weights that another callback may have swapped in."""
        if self._enforcement is not None:
            self._enforcement.apply()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Lets go of the model."""
        self.release()

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        if self._enforcement is not None:
            self._enforcement.apply()
            self._enforcement.release()
            self._enforcement = None


def _require_tensorboard() -> None:
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise ImportError(
            "log_dir needs the tensorboard package: pip install tensorboard, or leave log_dir out"
        ) from error


def _release_leftovers(model: Any) -> None:
    """Takes off what an interrupted fit left on a model, whoever's it was."""
    for variable in model.trainable_variables:
        owner = holder(variable)
        if owner is not None:
            owner.release()
