"""The callback that prunes while a model trains: it decides when to ask the pruner, and nothing else."""

from __future__ import annotations

import contextlib
import importlib
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from tf_lap import compat
from tf_lap.allocation import Allocation, Sparsity
from tf_lap.callbacks import mask_backup as backup
from tf_lap.callbacks.claims import check_alone, check_one_backup, claim, disclaim, handed_over, held, release_leftovers
from tf_lap.callbacks.fit_schedule import FitSchedule, Schedule
from tf_lap.callbacks.once_sparse import REMEDY, EarlyCheckpoints, WaitingCallbacks
from tf_lap.callbacks.step_counter import StepCounter
from tf_lap.compat import callback_lists
from tf_lap.files import AnyPath, as_path
from tf_lap.graph.layer_filters import Filters
from tf_lap.patterns import Pattern
from tf_lap.pruning.constraints import Watch, moved_past
from tf_lap.pruning.options import check_choices
from tf_lap.pruning.pruner import Pruner
from tf_lap.report import PruningReport
from tf_lap.report.census import model_census
from tf_lap.report.coverage import left_whole_warning
from tf_lap.samples import Representative
from tf_lap.schedule import LookaheadPruningSchedule
from tf_lap.scores import Score
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
    Who calls `fit` for each epoch gives the schedule its steps: a sparsity alone takes them from the first fit.

    A model without weights yet (a Sequential without an Input, a subclassed model) is resolved when its first batch
    has built it. Zeros that are in a kernel when a fit begins stay zero. Used again for the same model, the callback
    goes on where it was: steps count on, zeros stay, and layers that were thawed meanwhile are brought to the
    schedule's sparsity at once. A pickled callback keeps its settings, its step and its report; used again, it begins
    anew.

    Example:

    >>> callback = tf_lap.LAPCallback(0.9)
    >>> history = model.fit(x, y, batch_size=4, epochs=3, callbacks=[callback], verbose=0)
    >>> round(callback.report.sparsity, 2)
    0.9
    >>> history = model.fit(x, y, epochs=2, callbacks=[tf_lap.PreserveSparsity()], verbose=0)

    Args:
        pruning_schedule: a `LookaheadPruningSchedule`; or the final sparsity, a number or a mapping, for
            `LookaheadPruningSchedule(final_sparsity)`, which takes its steps from the length of the fit; or a function
            of a step that returns `(should_prune, sparsity)`.
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
        log_dir: where to write each kernel's sparsity as TensorBoard summaries; needs the tensorboard package.
        verbose: 1 prints a line at each update.

    Raises:
        TypeError, ValueError: a schedule that cannot be called, a choice that is not known; and at the start of `fit`
            whatever `Pruner` raises, that another LAPCallback prunes the model in this fit already, or that the
            schedule takes its steps from a fit whose length is not known.
        ImportError: `log_dir` is given, and tensorboard is not installed.
    """

    def __init__(
        self,
        pruning_schedule: Schedule | Sparsity,
        *,
        score: str | Score | Mapping[str, Any] = "lookahead",
        allocation: str | Allocation | Mapping[str, Any] = "uniform",
        pattern: str | Pattern | Mapping[str, Any] = "unstructured",
        order: str = "simultaneous",
        filters: Filters = None,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
        data: Representative = None,
        once_sparse: Sequence[Any] = (),
        backup_dir: AnyPath | None = None,
        log_dir: AnyPath | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(pruning_schedule, (numbers.Real, Mapping)) and not isinstance(pruning_schedule, bool):
            pruning_schedule = LookaheadPruningSchedule(pruning_schedule)
        if not callable(pruning_schedule) or isinstance(pruning_schedule, type):
            raise TypeError(
                f"pruning_schedule={pruning_schedule!r}: expected the final sparsity, such as 0.9, or a "
                "tf_lap.LookaheadPruningSchedule, for example LookaheadPruningSchedule(0.9, end_step=1000)"
            )
        if once_sparse and not FitSchedule(pruning_schedule).has_end:
            raise ValueError(
                f"once_sparse is given, and pruning_schedule={pruning_schedule!r} does not say when it reaches the "
                "final sparsity: use a tf_lap.LookaheadPruningSchedule"
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
        self.backup_dir = None if backup_dir is None else str(as_path(backup_dir, "backup_dir"))
        self.log_dir = None if log_dir is None else str(as_path(log_dir, "log_dir"))
        self.verbose = verbose
        self.step = 0
        self._once_sparse = WaitingCallbacks(once_sparse)
        self._pruner: Pruner | None = None
        self._report: PruningReport | None = None  # of a callback that was pickled
        self._schedule = FitSchedule(self.pruning_schedule)
        self._counter: StepCounter | None = None
        self._watch: Watch | None = None
        self._writer: tf.summary.SummaryWriter | None = None
        self._thawed: list[str] = []
        self._asked: Sparsity | None = None  # at the last update
        self._early_checkpoints = EarlyCheckpoints(())
        self._started = self._warned = self._moved_past = self._passes_over = False
        self._epoch = self._batch = 0

    @property
    def report(self) -> PruningReport:
        """What is pruned, layer by layer, as of now.

        Raises:
            ValueError: before the first fit.
        """
        if self._pruner is None and self._report is not None:
            return self._report
        return self.pruner.report()

    @property
    def pruner(self) -> Pruner:
        """The `Pruner` at work.

        Raises:
            ValueError: before the first fit.
        """
        if self._pruner is None:
            raise ValueError("this LAPCallback has not pruned yet: pass it to model.fit(callbacks=[...]) first")
        return self._pruner

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        if self._pruner is not None:
            self._pruner.release()

    def __getstate__(self) -> dict[str, Any]:
        # The model and what works on it are neither copied nor pickled.
        report = self._report if self._pruner is None else self._pruner.report()
        fresh = {"_pruner": None, "_counter": None, "_watch": None, "_writer": None, "_model": None, "params": None}
        return {**vars(self), **fresh, "_early_checkpoints": EarlyCheckpoints(()), "_report": report, "_started": False}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Resolves the model and checks everything that can be checked before training."""
        check_alone(self, "two LAPCallbacks in one fit: pass one, with a mapping of sparsities where layers differ")
        if (handed := handed_over(self)) is not None:
            check_one_backup(self.backup_dir, handed.source)
        if self._pruner is None or self._pruner.model is not self.model:
            self._pruner, self.step, self._schedule = None, 0, FitSchedule(self.pruning_schedule)
            self._asked, self._warned, self._moved_past = None, False, False
        self._schedule.check_length(self.params.get("steps"))
        if compat.is_built(self.model):
            release_leftovers(self.model)
            self._resolve()
        claim(self)
        self._started = False
        self._counter = StepCounter(self.model, self.params.get("steps"))
        callbacks = callback_lists.callbacks_of_fit(self)
        self._early_checkpoints = EarlyCheckpoints(callbacks)
        callback_lists.run_after_others(callbacks, self.model, self._end_after_others)
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        self._once_sparse.begin_training(self.model, self.params)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remembers the epoch: only here it is known with which one a fit starts."""
        self._epoch = epoch
        if not self._is_final():
            self._early_checkpoints.note()
        self._once_sparse.tell("on_epoch_begin", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes hold of the kernels at the first batch; warns there if the training is too short for the schedule."""
        self._passes_over = compat.is_skipping_batches(self.model)
        if self._passes_over:
            return
        self._batch = batch
        self._counter.begin(batch)
        # Not before the first batch: a callback that restores weights does so in its own on_train_begin.
        if not self._started and compat.is_built(self.model):
            self._start()
        self._once_sparse.tell("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Counts the steps done, and updates the masks where one of them is due."""
        if self._passes_over:  # a training that was killed did this batch already
            return
        executed = self._counter.end(batch)
        if not self._started:  # the batch has built the model
            self._check_called()
            self._resolve()
            self._start()
        if self.pruner.drops_weights:
            revived = self._watch.end_batch()
            if revived and not self._moved_past:
                self._moved_past = True
                warn(moved_past(self.model, revived))
        self._update(range(self.step + 1, self.step + executed + 1))
        self._once_sparse.tell("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes pruned weights that another callback may have swapped in."""
        if self._started:
            self.pruner.apply()
            self._once_sparse.tell("on_test_begin", logs)

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Tells the callbacks in `once_sparse`."""
        if self._started:
            self._once_sparse.tell("on_test_end", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds `sparsity` and `model_sparsity` to the logs, and saves the backup."""
        if not self._started:
            return
        # A callback may have put the optimizer's averages in place of the weights.
        self.pruner.apply()
        if logs is not None:
            weights, zeros = model_census(self.model)
            logs["sparsity"], logs["model_sparsity"] = self.pruner.sparsity, zeros / weights
        self._save()
        if self._is_final():
            self._once_sparse.let_go(epoch)
        self._once_sparse.tell("on_epoch_end", epoch, logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes pruned weights a last time and lets go of the model."""
        self._once_sparse.end_training(logs)
        disclaim(self)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._pruner is None:  # no batch was trained that would have built the model
            return
        pruner = self.pruner
        if not self._started:  # a training that was killed after its last epoch
            self._resume(pruner)
        elif not self._watch.zeroes and not compat.has_moving_averages(self.model):
            self._warn_of_restored(pruner.enforcement.revived())
        # The optimizer's averages take the place of the weights after the last epoch.
        pruner.apply()
        pruner.release()
        if self._started:  # else no batch was trained
            self._warn_if_short(self.step, "ended")
        self._started = False
        if not self._warned and not pruner.patterned:
            warn(
                f"this training ended at sparsity {pruner.sparsity:.4g}, before the masks have the pattern "
                f"{pruner.pattern}: let the schedule end at {pruner.pattern.sparsity:.6g}"
            )
        if self.backup_dir is not None:
            backup.delete(self.backup_dir)

    def _warn_of_restored(self, revived: int) -> None:
        if revived:
            warn(
                f"model {self.model.name!r}: when this training ended, {revived:,} pruned weights were not zero: "
                "something put back weights of an epoch in which fewer were pruned. They are zeroed again, so these "
                f"weights are not those that were measured in that epoch. {REMEDY}"
            )

    def _end_after_others(self) -> None:
        """Warns where a callback behind this one undid the pruning; called when all others have ended."""
        if self._pruner is None:  # no batch was trained
            return
        revived = self.pruner.enforcement.revived()
        if revived:
            warn(
                f"model {self.model.name!r}: when this training had ended, a callback behind LAPCallback put back "
                f"{revived:,} weights that are pruned: the pruned kernels are {self.pruner.sparsity:.1%} zeros now. "
                f"LAPCallback's pruner.apply() zeroes them. {REMEDY}"
            )
        warning = self._early_checkpoints.warning() if self._is_final() else None
        if warning:
            warn(warning)

    def _check_called(self) -> None:
        """Raises ValueError where a batch was trained without a call of the model itself, as in a GAN."""
        if not compat.is_built(self.model):
            raise ValueError(
                f"model {self.model.name!r} has trained a batch and was not called itself: its train_step calls other "
                "models. Prune these: make a tf_lap.Pruner of each, call its freeze() before fit and its update(...) "
                "in a callback"
            )

    def _resolve(self) -> None:
        """Makes the pruner, or another one where layers were frozen or thawed since, and checks what it is to do."""
        fresh, self._thawed = Pruner(self.model, **self._choices), []
        if self._pruner is None:
            self._pruner = fresh
            warning = left_whole_warning(self.model, fresh.report())
            if warning:
                warn(warning)
        elif not fresh.covers(self._pruner):
            self._thawed = fresh.only_here(self._pruner)
            fresh.adopt(self._pruner)
            self._pruner = fresh
        if self._schedule.final_sparsity is None:
            self._pruner.check(self._schedule.sparsity_at(self.step))
        else:
            self._pruner.check_final(self._schedule.final_sparsity)
            self._pruner.check()
        self._pruner.enforcement.check()

    def _start(self) -> None:
        """Takes hold of the kernels."""
        self._started = True
        pruner = self.pruner
        with self._released_on_error():
            resumed = self._resume(pruner)
            steps, epochs = self.params.get("steps"), self.params["epochs"]
            first_step = self.step - self._epoch * (steps or 0) - self._batch
            self._schedule.settle(steps, first_step, epochs)
            if steps:
                self._warn_if_short(first_step + epochs * steps, "ends")
            pruner.check()
            if not resumed:
                pruner.hold_zeros(self._schedule.asks_at(self.step))
            pruner.apply()
            pruner.freeze()
        held.add(pruner.enforcement)
        self._watch = Watch(pruner.enforcement)
        if not resumed:
            self._update(range(self.step, self.step + 1))
        if self._thawed and self._asked is not None:
            self._bring_thawed()

    @contextlib.contextmanager
    def _released_on_error(self) -> Iterator[None]:
        """Takes the masks off the model where something fails: the fit ends there, without on_train_end."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def _is_final(self) -> bool:
        """Whether the final sparsity is reached."""
        last_step = self._schedule.last_step
        return last_step is not None and self.step >= last_step

    def _warn_if_short(self, reached: int, ends: str) -> None:
        shortfall = self._schedule.shortfall(reached)
        if shortfall and not self._warned:  # once, for those too who call fit for each epoch
            self._warned = True
            warn(f"this training {ends} {shortfall}")

    def _update(self, steps: range) -> None:
        """Moves on to the last of `steps`, and updates the masks once if any of them is due."""
        if not steps:  # gradients are being accumulated over several executions
            return
        self.step = steps[-1]
        due = [step for step in steps if self._schedule.is_due(step)]
        if due:
            self._prune(self._schedule.sparsity_at(due[-1]))

    def _bring_thawed(self) -> None:
        """Prunes layers that were thawed since the last update to what was asked then."""
        self._say(
            f"step {self.step}: {', '.join(self._thawed)} thawed since the last update, pruned to its sparsity now"
        )
        self._prune(self._asked)

    def _prune(self, sparsity: Sparsity) -> None:
        with self._released_on_error():
            self.pruner.update(sparsity)
            self._asked = sparsity
            if self.verbose or logging.level_info():  # to count the zeros takes a pass over the kernels
                self._say(f"step {self.step}: sparsity {self.pruner.sparsity:.4f}")
            if self._writer is not None:
                with self._writer.as_default(step=self.step):
                    tf.summary.scalar("sparsity", self.pruner.sparsity)
                    for layer in self.pruner.report().pruned:
                        tf.summary.scalar(f"sparsity/{layer.path}", layer.sparsity)
            self._save()

    def _say(self, line: str) -> None:
        if self.verbose:
            # Keras's progress bar leaves its line open.
            print(f"\n{line}" if self.params.get("verbose") == 1 else line)
        else:
            logging.info("%s", line)

    def _save(self) -> None:
        if self.backup_dir is not None:
            with self._released_on_error():
                state = self.get_state()
                backup.save(self.backup_dir, state.step, state.iterations, state.masks)

    def get_state(self) -> backup.State:
        """Step and masks as they are now, for a snapshot of the training; pruned weights are zeroed first."""
        pruner = self.pruner
        pruner.apply()
        masks = {path: mask.numpy() for path, mask in pruner.masks.items()}
        return backup.State(self.step, compat.iterations(self.model), masks, type(self).__name__)

    def set_state(self, state: backup.State, source: str) -> None:
        """Goes on where a restored training was.

        Args:
            state: what `get_state` gave.
            source: the directory that it comes from.

        Raises:
            ValueError: the masks are not those of the layers that are pruned here.
        """
        pruner = self.pruner
        masks = backup.masks_for(pruner.enforcement.kernels, state, source, type(self).__name__)
        pruner.restore(masks, self._schedule.mapping)
        self.step = state.step

    def _resume(self, pruner: Pruner) -> bool:
        handed = handed_over(self)
        if handed is not None and handed.state is not None:
            self.set_state(handed.state, handed.source)
            return True
        state = None if self.backup_dir is None else backup.load(self.backup_dir)
        if state is None:
            return False
        try:
            sparse = pruner.agrees(state.masks)
        except ValueError as error:
            raise ValueError(f"backup_dir={self.backup_dir!r}: {error}. Delete the directory to begin anew") from error
        if state.iterations and not compat.iterations(self.model) and not sparse:
            warn(
                f"backup_dir={self.backup_dir!r} holds the masks of a training {state.step} steps in, but this model's "
                "weights are not those: pruning begins anew. Pass keras.callbacks.BackupAndRestore too, which restores "
                "the weights of the last epoch that ended"
            )
            return False
        pruner.restore(state.masks, self._schedule.mapping)
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
