"""Snapshots that are damaged, of another training or passed wrongly: what is told, and that the remedy helps."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from perceptrons import Interrupt, compiled, polynomial
from replicas import two_replicas
from resumed import EPOCHS, assert_nothing_left_on, generators, interrupted, prepared, pruning, state, train  # noqa: F401  (one is a fixture)

import tf_lap
from tf_lap.callbacks import backup_and_restore

# Each trains several times.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("generators")]


def test_a_damaged_snapshot_names_the_directory_and_the_remedy_which_helps(tmp_path):
    interrupted(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    model = prepared(keras)
    before = state(model)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"backup_dir='.*': tf_lap_snapshot.zip is damaged.*Delete the directory"):
            train(model, [tf_lap.BackupAndRestore(tmp_path)])
    for mine, other in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    shutil.rmtree(tmp_path)
    assert train(model, [tf_lap.BackupAndRestore(tmp_path)]).epoch == [0, 1, 2]


def test_with_two_snapshots_the_one_before_is_taken_where_the_last_is_damaged_or_missing(tmp_path):
    interrupted(tmp_path, double_checkpoint=True)
    latest = tmp_path / "tf_lap_snapshot.zip"
    latest.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"tf_lap_snapshot.zip is damaged .* goes on from the snapshot before"):
        interrupted_again = train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False)])
    assert interrupted_again.epoch == [1, 2]
    shutil.rmtree(tmp_path)
    interrupted(tmp_path, double_checkpoint=True)
    latest.unlink()
    assert train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)]).epoch == [1, 2]
    assert not tmp_path.exists()


def test_what_killed_writers_left_is_removed(tmp_path):
    interrupted(tmp_path)
    (tmp_path / ".tf_lap_snapshot.zip.0123.part").write_bytes(b"half")
    train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False)])
    assert [path.name for path in tmp_path.iterdir()] == ["tf_lap_snapshot.zip"]


def other_network():
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(24), keras.layers.Dense(10)])
    return compiled(model, keras.optimizers.Adam())


@pytest.mark.parametrize(
    ("make", "differs"),
    [
        (other_network, r"the model has \d+ variables in the snapshot, and \d+ in this fit|in the model, variable"),
        (
            lambda: prepared(keras, lambda library: library.optimizers.Nadam()),
            r"optimizer \(Adam\), keras.random, and this fit has the model, optimizer \(Nadam\)",
        ),
        (lambda: prepared(keras, policy="bfloat16"), "'.*kernel' of the snapshot has float32 of shape"),
    ],
)
def test_a_snapshot_of_another_training_is_refused_before_anything_changes(tmp_path, make, differs):
    interrupted(tmp_path)
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"another training: .*({differs}).* or delete the directory to begin anew"):
        train(model, [tf_lap.BackupAndRestore(tmp_path)])
    for mine, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)]).epoch == [2]


def test_inside_an_epoch_executions_must_be_as_long(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, save_freq=2), Interrupt(4)])
    with pytest.raises(ValueError, match="steps_per_execution is 1 in it, and 2 in this fit"):
        train(prepared(keras, steps_per_execution=2), [tf_lap.BackupAndRestore(tmp_path, save_freq=2)])


def test_other_layers_than_were_pruned_are_an_error(tmp_path):
    callback = tf_lap.LAPCallback(polynomial(end_step=15), filters="first|head")
    interrupted(tmp_path, callbacks=[callback])
    with pytest.raises(ValueError, match=r"masks of the layers first, head, and this fit holds masks on first, second"):
        train(
            prepared(keras),
            [tf_lap.LAPCallback(polynomial(end_step=15, frequency=7)), tf_lap.BackupAndRestore(tmp_path)],
        )


def test_a_pruned_training_resumed_without_its_callback_warns(tmp_path):
    interrupted(tmp_path, callbacks=[pruning()])
    with pytest.warns(UserWarning, match="this fit has no callback that keeps them"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)])


@pytest.mark.parametrize("turn", [1, -1])
def test_masks_are_kept_in_one_place(tmp_path, turn):
    model = prepared(keras)
    callbacks = [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path / "masks"), tf_lap.BackupAndRestore(tmp_path)]
    with pytest.raises(ValueError, match=r"the snapshot holds the masks too. Leave backup_dir out of LAPCallback"):
        train(model, callbacks[::turn])
    assert_nothing_left_on(model)


def test_keras_own_backup_is_told_from_ours(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(prepared(keras), [keras.callbacks.BackupAndRestore(tmp_path), Interrupt(8)])
    with pytest.raises(ValueError, match=r"holds 'latest.weights.h5', a backup of Keras's own BackupAndRestore"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)])


def test_two_in_one_fit_and_a_model_that_is_not_built_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"two tf_lap.BackupAndRestore in one fit"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path / "a"), tf_lap.BackupAndRestore(tmp_path / "b")])
    model = compiled(keras.Sequential([keras.layers.Dense(10)]))
    with pytest.raises(ValueError, match=r"is not built, so nothing can be restored into it. .*model.build"):
        train(model, [tf_lap.BackupAndRestore(tmp_path)])
    model.build((None, 16))
    assert len(train(model, [tf_lap.BackupAndRestore(tmp_path)]).epoch) == EPOCHS


def test_arguments_are_checked(tmp_path):
    for directory in ("", "gs://bucket/backup"):
        with pytest.raises(ValueError, match=r"backup_dir='.*': expected a directory of this machine"):
            tf_lap.BackupAndRestore(directory)
    with pytest.raises(TypeError, match=r"backup_dir=1: expected a path, of str, bytes or pathlib.Path"):
        tf_lap.BackupAndRestore(1)
    for frequency in (0, -1, True, False, 1.5, "batch", None):
        with pytest.raises(ValueError, match=rf"save_freq={frequency!r}: expected 'epoch' or a whole number"):
            tf_lap.BackupAndRestore(tmp_path, save_freq=frequency)
    assert tf_lap.BackupAndRestore(bytes(tmp_path)).backup_dir == str(tmp_path)


def test_a_snapshot_that_cannot_be_written_leaves_no_constraint_on_the_model(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    model = prepared(keras)
    with pytest.raises(OSError, match="file"):
        train(model, [pruning(), tf_lap.BackupAndRestore(tmp_path / "file")])
    assert_nothing_left_on(model)


def test_of_several_workers_none_writes_a_snapshot(tmp_path, monkeypatch):
    """Two replicas stand for them here: a process of several workers can train nothing else."""
    monkeypatch.setattr(backup_and_restore, "_SEVERAL_WORKERS", (tf.distribute.MirroredStrategy,))
    with two_replicas().scope():
        model = prepared(tf_keras, run_eagerly=False)
    before = state(model)
    message = r"MirroredStrategy, and each worker would write its own snapshot: .* with LAPCallback\(backup_dir=...\)"
    with pytest.raises(ValueError, match=message):
        train(model, [tf_lap.BackupAndRestore(tmp_path / "backup")])
    for mine, other in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert not (tmp_path / "backup").exists()
