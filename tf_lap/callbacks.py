"""The callback that prunes while a model trains: it decides when to ask the pruner, and nothing else."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lap import backup, compat
from tf_lap.allocation import Allocation
from tf_lap.arguments import check_choices
from tf_lap.claims import check_alone, claim, disclaim, held, release_leftovers
from tf_lap.matching import Filters
from tf_lap.patterns import Pattern
from tf_lap.pruner import Pruner
from tf_lap.report import PruningReport
from tf_lap.samples import Representative
from tf_lap.schedule import LookaheadPruningSchedule
from tf_lap.scores import Score


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
        data: as in `Pruner`; scores that need it are measured anew at each update.
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
        pattern: str | Pattern = "unstructured",
        order: str = "simultaneous",
        filters: Filters = None,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
        data: Representative = None,
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
            "data": data,
        }
        self.backup_dir = None if backup_dir is None else os.fspath(backup_dir)
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.verbose = verbose
        self.step = 0
        self._pruner: Pruner | None = None
        self._writer: tf.summary.SummaryWriter | None = None
        self._started = self._warned = False
        self._batch = self._epoch = self._iterations = 0

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
        check_alone(self)
        release_leftovers(self.model)
        pruner, step = self._pruner, self.step
        fresh = Pruner(self.model, **self._choices)
        if pruner is None or pruner.model is not self.model:
            pruner, step = fresh, 0
        elif not fresh.covers(pruner):  # layers were frozen or thawed since
            fresh.adopt(pruner)
            pruner = fresh
        pruner.check(self._sparsity_at(step))
        if isinstance(self.pruning_schedule, LookaheadPruningSchedule):
            pruner.check_final(self.pruning_schedule.final_sparsity)
        pruner.enforcement.check()
        self._pruner, self.step = pruner, step
        claim(self)
        self._started = self._warned = False
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remembers the epoch: only here it is known with which one a fit starts."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes hold of the kernels at the first batch; warns there if the training is too short for the schedule."""
        self._batch = batch
        if self._started:
            return
        # Not before the first batch: a callback that restores weights does so in its own on_train_begin.
        self._started = True
        pruner = self._known()
        resumed = self._resume(pruner)
        self._warn_if_too_short()
        pruner.check()
        pruner.apply()
        pruner.freeze()
        held.add(pruner.enforcement)
        self._iterations = compat.iterations(self.model)
        if not resumed:
            self._update(range(self.step, self.step + 1))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Counts the steps done, and updates the masks where one of them is due."""
        self._update(range(self.step + 1, self.step + self._executed(batch) + 1))

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
        disclaim(self)
        self._started = False
        self._warn_if_short_of(self.step, "ended")
        if not self._warned and not pruner.patterned:
            warnings.warn(
                f"this training ended at sparsity {pruner.sparsity:.4g}, before the masks have the pattern "
                f"{pruner.pattern}: let the schedule end at {pruner.pattern.sparsity:.6g}",
                stacklevel=3,
            )
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.backup_dir is not None:
            backup.delete(self.backup_dir)

    def _known(self) -> Pruner:
        if self._pruner is None:
            raise ValueError("this LAPCallback has not pruned yet: pass it to model.fit(callbacks=[...]) first")
        return self._pruner

    def _executed(self, batch: int) -> int:
        """How many steps the execution that ends with `batch` ran: a short last one runs fewer than it is asked."""
        batch = compat.last_batch(self.model, self._batch, batch)
        steps = self.params.get("steps")
        if steps:
            return max(min(batch, steps - 1) - self._batch, 0) + 1
        if batch == self._batch or getattr(self.model, "optimizer", None) is None:
            return batch - self._batch + 1
        before, self._iterations = self._iterations, compat.iterations(self.model)
        return self._iterations - before

    def _warn_if_too_short(self) -> None:
        steps = self.params.get("steps")
        if steps:
            self._warn_if_short_of(self.step + (self.params["epochs"] - self._epoch) * steps, "ends")

    def _warn_if_short_of(self, reached: int, ends: str) -> None:
        last = getattr(self.pruning_schedule, "last_step", None)
        if self._warned or last is None or reached >= last:
            return
        self._warned = True
        argument = "end_step" if getattr(self.pruning_schedule, "end_step", None) == last else "begin_step"
        warnings.warn(
            f"this training {ends} at step {reached}, before the pruning schedule does at step {last}: the final "
            f"sparsity is not reached. Train {last - reached} steps more, or set {argument}={reached} or less.",
            stacklevel=4,
        )

    def _sparsity_at(self, step: int) -> Any:
        if isinstance(self.pruning_schedule, LookaheadPruningSchedule):
            return self.pruning_schedule.sparsity_at(step)
        _, sparsity = self._ask(step)
        return {k: float(v) for k, v in sparsity.items()} if isinstance(sparsity, Mapping) else float(sparsity)

    def _is_due(self, step: int) -> bool:
        if isinstance(self.pruning_schedule, LookaheadPruningSchedule):
            return self.pruning_schedule.is_due(step)
        return bool(self._ask(step)[0])

    def _ask(self, step: int) -> tuple[Any, Any]:
        answer = self.pruning_schedule(step)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"pruning_schedule returned {answer!r} for step {step}: expected (should_prune, sparsity)")
        return answer

    def _update(self, steps: range) -> None:
        """Moves on to the last of `steps`, and updates the masks once if any of them is due."""
        if not steps:  # gradients are being accumulated over several executions
            return
        self.step = steps[-1]
        due = [step for step in steps if self._is_due(step)]
        if not due:
            return
        pruner = self._known()
        try:
            pruner.update(self._sparsity_at(due[-1]))
        except BaseException:
            self.release()  # the fit ends here, and Keras then calls no on_train_end
            raise
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
        try:
            sparse = pruner.agrees(state.masks)
        except ValueError as error:
            raise ValueError(f"backup_dir={self.backup_dir!r}: {error}. Delete the directory to begin anew") from error
        if state.iterations and not compat.iterations(self.model) and not sparse:
            warnings.warn(
                f"backup_dir={self.backup_dir!r} holds the masks of a training {state.step} steps in, but this model's "
                "weights are not those: pruning begins anew. keras.callbacks.BackupAndRestore restores weights",
                stacklevel=3,
            )
            return False
        pruner.restore(state.masks)
        # The weights may have been restored to an earlier moment than the masks: the optimizer knows which.
        self.step = max(0, state.step + compat.iterations(self.model) - state.iterations)
        return True


def _require_tensorboard() -> None:
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise ImportError(
            "log_dir needs the tensorboard package: pip install tensorboard, or leave log_dir out"
        ) from error
