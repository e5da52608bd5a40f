"""A training that is killed and started again ends as one that was not, bit for bit."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from perceptrons import Interrupt
from replicas import two_replicas
from resumed import (  # noqa: F401  (one is a fixture)
    BOTH,
    EPOCHS,
    OPTIMIZERS,
    STEPS,
    assert_nothing_left_on,
    assert_resumes,
    assert_same_state,
    generators,
    prepared,
    pruning,
    train,
)

import tf_lap
from tf_lap import compat

# Each trains several times.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("generators")]


@BOTH
@pytest.mark.parametrize(("first", "save_freq", "at"), [(True, "epoch", 8), (False, "epoch", 13), (True, 4, 11)])
def test_a_resumed_pruning_ends_as_an_undisturbed_one(tmp_path, library, first, save_freq, at):
    def make():
        return prepared(library, run_eagerly=False)

    tmp_path = tmp_path / "backup"
    (alone,), (again,) = assert_resumes(tmp_path, make, lambda: [pruning()], at, save_freq=save_freq, first=first)
    assert alone.step == again.step == EPOCHS * STEPS
    for path, mask in alone.pruner.masks.items():
        np.testing.assert_array_equal(mask, again.pruner.masks[path])
    assert_nothing_left_on(again.model)


@BOTH
@pytest.mark.parametrize("kind", ["dataset", "repeated", "generator"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_goes_on_where_it_was(tmp_path, library, kind):
    assert_resumes(tmp_path / "backup", lambda: prepared(library), lambda: [pruning()], 14, kind)


@pytest.mark.parametrize(("library", "save_freq", "at"), [(keras, 4, 3), (tf_keras, 5, 4)])
def test_executions_of_several_steps_resume_too(tmp_path, library, save_freq, at):
    def make():
        return prepared(library, steps_per_execution=4)

    assert_resumes(tmp_path / "backup", make, lambda: [pruning()], at, save_freq=save_freq)


@pytest.mark.parametrize(
    ("library", "optimizer", "policy"),
    [
        (keras, "averages", "bfloat16"),
        (keras, "accumulated", None),
        (keras, "scaled", "mixed_float16"),
        (tf_keras, "schedule", None),
        (tf_keras, "scaled", "mixed_float16"),
        (tf_keras, "legacy", None),
    ],
)
def test_optimizers_and_dtypes_keep_every_bit(tmp_path, library, optimizer, policy):
    def make():
        return prepared(library, OPTIMIZERS[optimizer], policy=policy)

    assert_resumes(tmp_path / "backup", make, lambda: [pruning()], 8)


@BOTH
def test_it_serves_without_any_pruning(tmp_path, library):
    assert_resumes(tmp_path / "backup", lambda: prepared(library), list, 8)


@BOTH
def test_preserve_sparsity_holds_the_same_zeros_afterwards(tmp_path, library):
    def make():
        model = prepared(library)
        tf_lap.prune(model, 0.8, allocation="uniform")
        return model

    class Zero(compat.Callback):
        """Brings a free weight to zero when the first epoch ends; it stays free."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                kernel = self.model.get_layer("head").kernel
                values = kernel.numpy()
                values[tuple(np.argwhere(values)[0])] = 0
                kernel.assign(values)

    def callbacks():
        return [Zero(), tf_lap.PreserveSparsity()]

    undisturbed = make()
    train(undisturbed, callbacks())
    assert np.count_nonzero(undisturbed.get_layer("head").kernel) == 48  # the one came back
    assert_resumes(tmp_path / "backup", make, callbacks, 8, first=False)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_training_that_is_stopped_in_slices_goes_on_where_its_file_is_kept(tmp_path, slices):
    class Slice(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    undisturbed = prepared(keras)
    train(undisturbed, [], epochs=slices + 1)
    for _ in range(slices):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False), Slice()], epochs=slices + 1)
    resumed = prepared(keras)
    train(resumed, [tf_lap.BackupAndRestore(tmp_path)], epochs=slices + 1)
    assert_same_state(resumed, undisturbed)


@BOTH
def test_a_training_killed_after_its_last_epoch_only_ends(tmp_path, library):
    class Kill(compat.Callback):
        def on_train_end(self, logs=None):
            raise KeyboardInterrupt

    undisturbed = prepared(library, OPTIMIZERS["averages"])
    train(undisturbed, [pruning()])
    with pytest.raises(KeyboardInterrupt):
        train(prepared(library, OPTIMIZERS["averages"]), [Kill(), tf_lap.BackupAndRestore(tmp_path), pruning()])
    model, callback = prepared(library, OPTIMIZERS["averages"]), pruning()
    history = train(model, [tf_lap.BackupAndRestore(tmp_path), callback])
    assert history.epoch == []
    assert callback.step == EPOCHS * STEPS
    assert callback.report.sparsity == pytest.approx(0.9, abs=1e-3)
    assert_same_state(model, undisturbed)


@BOTH
def test_a_kept_snapshot_goes_on_with_more_epochs_and_the_next_plain_fit_begins_at_the_first(tmp_path, library):
    def backup():
        return tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False)

    train(prepared(library), [backup()], epochs=2)
    model = prepared(library)
    assert train(model, [backup()], epochs=3).epoch == [2]
    assert train(model, [], epochs=2).epoch == [0, 1]


@BOTH
def test_batches_are_passed_over_in_their_own_fit_only(tmp_path, library):
    with pytest.raises(KeyboardInterrupt):
        train(prepared(library), [tf_lap.BackupAndRestore(tmp_path, save_freq=2), Interrupt(6)])
    model, plain = prepared(library), prepared(library)
    with pytest.raises(KeyboardInterrupt):
        train(model, [tf_lap.BackupAndRestore(tmp_path, save_freq=2), Interrupt(2)])
    steps = int(model.optimizer.iterations)
    assert steps == 4
    train(model, [], epochs=1)
    assert int(model.optimizer.iterations) == steps + STEPS
    train(plain, [], epochs=1)
    assert int(plain.optimizer.iterations) == STEPS


@BOTH
def test_global_generators_are_as_they_were_when_the_epoch_began(tmp_path, library):
    class Draw(compat.Callback):
        def __init__(self):
            super().__init__()
            self.drawn = {}

        def on_epoch_begin(self, epoch, logs=None):
            self.drawn[epoch] = (random.random(), np.random.rand(), float(tf.random.uniform([])))

    alone, killed, resumed = Draw(), Draw(), Draw()
    # The callback builds the optimizer earlier than Keras does, which draws from Python's generator.
    train(prepared(library), [alone, tf_lap.BackupAndRestore(tmp_path / "undisturbed")])
    with pytest.raises(KeyboardInterrupt):
        train(prepared(library), [killed, tf_lap.BackupAndRestore(tmp_path), Interrupt(8)])
    model = prepared(library)
    library.utils.set_random_seed(99)
    train(model, [resumed, tf_lap.BackupAndRestore(tmp_path)])
    assert list(resumed.drawn) == [1, 2]
    assert all(killed.drawn[1][i] == resumed.drawn[1][i] == alone.drawn[1][i] for i in (0, 1))


def test_replicas_of_a_mirrored_training_are_restored_each(tmp_path):
    strategy = two_replicas()

    def make():
        with strategy.scope():
            return prepared(tf_keras, run_eagerly=False)

    assert_resumes(tmp_path / "backup", make, lambda: [pruning()], 8)
