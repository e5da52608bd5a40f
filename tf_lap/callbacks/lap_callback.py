"""The callback that prunes while a model trains: it decides when to ask the pruner, and nothing else.

The schedule's part is in `fit_schedule`, that of the masks on the kernels in `fit_masks`, that of lines and logs in
`fit_log`, and that of resumed trainings in `resuming`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tf_lap import compat
from tf_lap.allocation import AllocationLike, Sparsity
from tf_lap.callbacks import mask_backup
from tf_lap.callbacks.claims import check_alone, check_single_backup, claim, detach_leftovers, disclaim, find_handover
from tf_lap.callbacks.fit_log import FitLog, add_sparsities, require_tensorboard
from tf_lap.callbacks.fit_masks import FitMasks
from tf_lap.callbacks.fit_schedule import FitSchedule, Schedule, as_schedule
from tf_lap.callbacks.mask_backup import PruningState
from tf_lap.callbacks.once_sparse import EarlyCheckpoints, WaitingCallbacks
from tf_lap.callbacks.resuming import read_state, resume_from_backup, resume_from_snapshot
from tf_lap.callbacks.step_counter import StepCounter
from tf_lap.compat import callback_lists
from tf_lap.compat.types import Callback
from tf_lap.files import AnyPath, as_path
from tf_lap.graph.layer_filters import Filters
from tf_lap.patterns import PatternLike
from tf_lap.pruning.options import Options
from tf_lap.pruning.pruner import Pruner
from tf_lap.report import PruningReport
from tf_lap.samples import Representative
from tf_lap.scores import ScoreLike
from tf_lap.warn import warn


class LAPCallback(compat.Callback):
    """Prunes a model while `model.fit` trains it.

    Masks are updated when the schedule says so, and enforced inside the compiled training step in between.
    When training ends, the weights are exactly as sparse as the schedule's end, and nothing of the callback is left on
    the model: it saves, loads and exports like any Keras model. Each epoch's logs hold `"sparsity"`, the fraction of
    weights that are zero in the pruned kernels, and `"model_sparsity"`, that of all weights of the model.

    The recipe that works: prune in one fit, and fine-tune in a second one with `PreserveSparsity`, `EarlyStopping` and
    `ModelCheckpoint`. In a single fit the best epoch is often an early one, before much was pruned: pass callbacks that
    keep the best weights as `once_sparse`, and they count from the epoch on that reaches the final sparsity.

    Keras calls callbacks in the order of the list: list those that read the logs, such as TensorBoard, behind this one.
    Where `fit` is called for each epoch, pass a schedule with steps: a sparsity alone takes them from the first fit.

    A model without weights yet (a Sequential without an Input, a subclassed model) is resolved when its first batch
    has built it. Zeros that are in a kernel when a fit begins stay zero (an alternating schedule lets them, as all
    pruned weights, return in its dense phases). Used again for the same model, the callback
    goes on where it was: it goes on counting steps, zeros stay, and layers that were thawed meanwhile are pruned to
    the schedule's sparsity at once. A pickled callback keeps its settings, its step and its report. Used again, it
    begins anew. In the fit of a distiller, or of any model whose call is that of a model inside while others serve its
    training, the one inside is pruned: paths and the report are those of the student.

    Example:

    >>> callback = tf_lap.LAPCallback(0.9)
    >>> history = model.fit(x, y, batch_size=4, epochs=3, callbacks=[callback], verbose=0)
    >>> round(callback.report.sparsity, 2)
    0.9
    >>> history = model.fit(x, y, epochs=2, callbacks=[tf_lap.PreserveSparsity()], verbose=0)

    Args:
        pruning_schedule: a `LookaheadPruningSchedule`; or the final sparsity, a number or a mapping, for
            `LookaheadPruningSchedule(final_sparsity)`, which takes its steps from the length of the fit; or a function
            of a step that returns `(should_prune, sparsity)`. Embeddings and depthwise kernels are pruned only where a
            key of the mapping, or an expression in `filters`, is their path or matches all of it.
        score: as in `Pruner`.
        allocation: as in `Pruner`.
        pattern: as in `Pruner`.
        order: as in `Pruner`.
        filters: as in `Pruner`.
        neighbors: as in `Pruner`.
        data: as in `Pruner`; scores that need it are measured anew at each update.
        once_sparse: callbacks that are told of nothing but the fit's beginning and end until the final sparsity is
            reached, such as `[EarlyStopping(restore_best_weights=True), ModelCheckpoint(path, save_best_only=True)]`.
            They are passed here, and not in the list that `fit` gets. Weights that they restore have all the zeros.
        backup_dir: where to keep masks and step while training, so that a crashed training that
            `keras.callbacks.BackupAndRestore` resumes goes on with the same zeros. Removed when training ends.
        log_dir: where to write TensorBoard summaries at each update; needs the tensorboard package. Of each kernel:
            sparsity, the smallest weight that stays (threshold), energies, and the mask as an image.
        verbose: 1 prints a line at each update.

    Raises:
        TypeError, ValueError: a schedule that cannot be called, a choice that is not known; and at the start of `fit`
            whatever `Pruner` raises, that another LAPCallback prunes the model in this fit already, or that the
            schedule takes its steps from a fit whose length is not known.
        ImportError: `log_dir` is given, and tensorboard is not installed.
    """

    # Of the fit that runs; `on_train_begin` sets them.
    _counter: StepCounter
    _log: FitLog

    def __init__(
        self,
        pruning_schedule: Schedule | Sparsity,
        *,
        score: ScoreLike = "lookahead",
        allocation: AllocationLike = "auto",
        pattern: PatternLike = "unstructured",
        order: str = "simultaneous",
        filters: Filters = None,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
        data: Representative = None,
        once_sparse: Sequence[Callback] = (),
        backup_dir: AnyPath | None = None,
        log_dir: AnyPath | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.pruning_schedule = as_schedule(pruning_schedule, needs_end=bool(once_sparse))
        self._options = Options.of(score, allocation, pattern, order, filters, neighbors, data)
        if log_dir is not None:
            require_tensorboard()
        self.backup_dir = None if backup_dir is None else str(as_path(backup_dir, "backup_dir"))
        self.log_dir = None if log_dir is None else str(as_path(log_dir, "log_dir"))
        self.verbose = verbose
        self.step = 0
        self._schedule = FitSchedule(self.pruning_schedule)
        self._masks = FitMasks(self._options)
        self._once_sparse = WaitingCallbacks(once_sparse)
        self._early_checkpoints = EarlyCheckpoints(())
        self._pickled_report: PruningReport | None = None
        self._skips_batch = False
        self._epoch = self._batch = 0

    @property
    def once_sparse(self) -> list[Callback]:
        """The callbacks that wait for the final sparsity."""
        return self._once_sparse.callbacks

    @property
    def report(self) -> PruningReport:
        """What is pruned, layer by layer, as of now.

        Raises:
            ValueError: before the first fit.
        """
        if self._pickled_report is not None and not self._masks.is_resolved:
            return self._pickled_report
        return self.pruner.report()

    @property
    def pruner(self) -> Pruner:
        """The `Pruner` at work.

        Raises:
            ValueError: before the first fit.
        """
        return self._masks.pruner

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        self._masks.detach()

    def __getstate__(self) -> dict[str, Any]:
        # The model and what works on it are neither copied nor pickled.
        state = {name: value for name, value in vars(self).items() if name not in ("_counter", "_log")}
        report = self.pruner.report() if self._masks.is_resolved else self._pickled_report
        state |= {"_masks": FitMasks(self._options), "_early_checkpoints": EarlyCheckpoints(())}
        return {**state, "_pickled_report": report, "_model": None, "params": None}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Resolves the model and checks everything that can be checked before training."""
        check_alone(self, "two LAPCallbacks in one fit: pass one, with a mapping of sparsities where layers differ")
        if (handover := find_handover(self)) is not None:
            check_single_backup(self.backup_dir, handover.source)
        if not self._masks.belong_to(self.model):
            self._masks, self._schedule = FitMasks(self._options), FitSchedule(self.pruning_schedule)
            self.step = 0
        self._schedule.check_length(self.params.get("steps"))
        self._masks.begin_fit()
        if compat.is_built(self.model):
            compat.check_compiled(self.model)
            detach_leftovers(self.model)
            self._resolve()
        claim(self)
        self._counter = StepCounter(self.model, self.params.get("steps"))
        callbacks = callback_lists.callbacks_of_fit(self)
        self._early_checkpoints = EarlyCheckpoints(callbacks)
        callback_lists.run_after_others(callbacks, self.model, at_train_end=self._end_after_others)
        self._log = FitLog(self.log_dir, bool(self.verbose), progress_bar=self.params.get("verbose") == 1)
        self._once_sparse.begin_training(self.model, self.params)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remembers the epoch. Keras tells nowhere else with which epoch a fit starts."""
        self._epoch = epoch
        if not self._schedule.is_final(self.step):
            self._early_checkpoints.note_best()
        self._once_sparse.tell("on_epoch_begin", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Attaches the masks at the first batch, and warns there if the training is too short."""
        self._skips_batch = compat.is_skipping_batches(self.model)
        if self._skips_batch:
            return
        self._batch = batch
        self._counter.begin(batch)
        # Not before the first batch: a callback that restores weights does so in its own on_train_begin.
        if not self._masks.are_attached and compat.is_built(self.model):
            self._start()
        self._once_sparse.tell("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Counts the steps done, and updates the masks where an update is due."""
        if self._skips_batch:  # a training that was killed did this batch already
            return
        executed = self._counter.end(batch)
        if not self._masks.are_attached:  # the batch has built the model
            self._resolve()
            self._start()
        self._masks.end_batch()
        if executed > 0:  # no step is done while gradients are accumulated over several executions
            self._update(range(self.step + 1, self.step + executed + 1))
        self._once_sparse.tell("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes pruned weights that another callback may have swapped in."""
        if self._masks.are_attached:
            self.pruner.apply()
            self._once_sparse.tell("on_test_begin", logs)

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Tells the callbacks in `once_sparse`."""
        if self._masks.are_attached:
            self._once_sparse.tell("on_test_end", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds `sparsity` and `model_sparsity` to the logs, and saves the backup."""
        if not self._masks.are_attached:
            return
        # A callback may have put the optimizer's averages in place of the weights.
        self.pruner.apply()
        if logs is not None:
            add_sparsities(logs, self.pruner)
        self._save()
        if self._schedule.is_final(self.step):
            self._once_sparse.end_wait(epoch)
        self._once_sparse.tell("on_epoch_end", epoch, logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes pruned weights a last time, and detaches the masks."""
        self._once_sparse.end_training(logs)
        disclaim(self)
        self._log.close()
        if not self._masks.is_resolved:  # no batch was trained that would have built the model
            return
        has_trained = self._masks.are_attached
        if has_trained:
            self._masks.warn_if_restored()
        else:  # a training that was killed after its last epoch, or no batch
            self._resume()
        self._masks.end_fit()
        if has_trained:
            self._schedule.warn_if_short(self.step, "ended")
        pruner = self.pruner
        if not self._schedule.has_warned and not pruner.patterned:
            warn(
                f"this training ended at sparsity {pruner.sparsity:.4g}, before the masks have the pattern "
                f"{pruner.pattern}: let the schedule end at {pruner.pattern.sparsity:.6g}"
            )
        if self.backup_dir is not None:
            mask_backup.delete(self.backup_dir)

    def get_state(self) -> PruningState:
        """Step and masks as they are now, for a snapshot of the training; pruned weights are zeroed first."""
        return read_state(self.pruner, self.step, type(self).__name__)

    def _end_after_others(self) -> None:
        """Warns where other callbacks have kept weights that are less sparse; called when all of them have ended."""
        if not self._masks.is_resolved:  # no batch was trained
            return
        self._masks.warn_if_undone()
        warning = self._early_checkpoints.warning() if self._schedule.is_final(self.step) else None
        if warning:
            warn(warning)

    def _resolve(self) -> None:
        """Makes the pruner, and checks what it is to do."""
        final_sparsity = self._schedule.final_sparsity
        if final_sparsity is None:
            sparsity = self._schedule.sparsity_at(self.step)
            self._masks.resolve(self.model, sparsity)
            self.pruner.check(sparsity)
        else:
            self._masks.resolve(self.model, final_sparsity)
            self.pruner.check_final(final_sparsity)
            self.pruner.check()
        self.pruner.enforcement.check()

    def _start(self) -> None:
        """Attaches the masks: those of a killed training, or masks that keep the zeros in the kernels."""
        with self._masks.detached_on_error():
            has_resumed = self._resume()
            if has_resumed and self._schedule.is_final(self.step):
                self._early_checkpoints.accept_files()
            steps, epochs = self.params.get("steps"), self.params["epochs"]
            first_step = self.step - self._epoch * (steps or 0) - self._batch
            self._schedule.take_steps_from_fit(steps, first_step, epochs)
            if steps:
                self._schedule.warn_if_short(first_step + epochs * steps, "ends")
            self.pruner.check()
            if not has_resumed:
                self.pruner.hold_zeros(self._schedule.demanded_sparsity(self.step))
            if self._schedule.is_dense(self.step):
                self.pruner.densify(self._schedule.final_sparsity)
            self._masks.attach()
        if not has_resumed:
            self._update(range(self.step, self.step + 1))
        if self._masks.thawed and self._masks.last_sparsity is not None:
            thawed = ", ".join(self._masks.thawed)
            self._log.write_line(f"step {self.step}: {thawed} thawed since the last update, pruned to its sparsity now")
            self._prune(self._masks.last_sparsity)

    def _update(self, steps: range) -> None:
        """Moves on to the last of `steps`, and updates the masks once if an update is due at any of them."""
        self.step = steps[-1]
        sparsity = self._schedule.due_sparsity(steps)
        if sparsity is not None:
            self._prune(sparsity)

    def _prune(self, sparsity: Sparsity) -> None:
        is_dense = self._schedule.is_dense(self.step)
        with self._masks.detached_on_error():
            self._masks.update(sparsity, is_dense)
            self._log.note_update(self.step, self.pruner, is_dense)
            self._save()

    def _save(self) -> None:
        if self.backup_dir is not None:
            with self._masks.detached_on_error():
                mask_backup.save(self.backup_dir, self.get_state())

    def _resume(self) -> bool:
        """Takes masks and step from a snapshot or a backup, and returns whether there was one."""
        final_sparsity = self._schedule.final_sparsity
        step = resume_from_snapshot(self.pruner, find_handover(self), type(self).__name__, final_sparsity)
        if step is None:
            alternates = self._schedule.alternates
            step = resume_from_backup(self.pruner, self.backup_dir, final_sparsity, alternates)
        if step is None:
            return False
        self.step = step
        return True
