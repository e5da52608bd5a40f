"""What the callbacks beside a backup remember goes on as the training does."""

import keras
import numpy as np
import pytest
from perceptrons import Interrupt, data
from resumed import BOTH, STEPS, assert_same_state, generators, interrupted, prepared, train  # noqa: F401  (one is a fixture)

import tf_lap

# Each trains several times.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("generators")]


def keep_best(library, path):
    """The usual callbacks; at this learning rate the loss of the validation data rises from an early epoch on."""
    callbacks = library.callbacks
    return [
        callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True),
        callbacks.ModelCheckpoint(str(path / "best.weights.h5"), save_best_only=True, save_weights_only=True),
        callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1),
    ]


UNDISTURBED = {}  # the training that nobody kills is the same in all cases of a library


@BOTH
@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("at", [14, 27])
def test_callbacks_that_keep_the_best_remember_it(tmp_path, library, place, at):
    x, y = data()
    held_out = np.random.default_rng(5).standard_normal((32, 16)).astype(np.float32), np.arange(32) % 10

    def run(folder, backup=(), extra=()):
        folder.mkdir(exist_ok=True)
        model = prepared(library, lambda library: library.optimizers.Adam(0.05))
        callbacks = [tf_lap.PreserveSparsity(), *keep_best(library, folder)]
        tf_lap.prune(model, 0.5)
        callbacks[place:place] = backup
        history = model.fit(
            x, y, batch_size=16, epochs=20, validation_data=held_out, verbose=0, callbacks=[*callbacks, *extra]
        )
        kept = prepared(library)
        kept.load_weights(folder / "best.weights.h5")
        return model, kept, history.epoch[-1]

    if library not in UNDISTURBED:
        UNDISTURBED[library] = run(tmp_path / "alone")
    model, kept, last = UNDISTURBED[library]
    assert 4 <= last < 19  # it was stopped, after the step that is killed
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", [tf_lap.BackupAndRestore(tmp_path / "backup")], [Interrupt(at)])
    resumed, kept_of_resumed, last_of_resumed = run(tmp_path / "killed", [tf_lap.BackupAndRestore(tmp_path / "backup")])
    assert last_of_resumed == last
    assert_same_state(resumed, model)
    for mine, other in zip(kept_of_resumed.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


@BOTH
def test_callbacks_that_wait_for_the_sparse_model_remember_too(tmp_path, library):
    x, y = data()

    def run(backup, extra=()):
        model = prepared(library, lambda library: library.optimizers.Adam(0.05))
        waiting = library.callbacks.EarlyStopping("loss", patience=2, min_delta=0.3, restore_best_weights=True)
        schedule = tf_lap.LookaheadPruningSchedule(0.5, end_step=6, frequency=3)
        callbacks = [tf_lap.LAPCallback(schedule, once_sparse=[waiting]), *backup, *extra]
        model.fit(x, y, batch_size=16, epochs=12, verbose=0, callbacks=callbacks)
        return model, waiting

    model, waiting = run([])
    assert 0 < waiting.stopped_epoch < 11
    with pytest.raises(KeyboardInterrupt):
        run([tf_lap.BackupAndRestore(tmp_path)], [Interrupt(6 * waiting.stopped_epoch - 2)])
    resumed, again = run([tf_lap.BackupAndRestore(tmp_path)])
    assert (again.stopped_epoch, again.best) == (waiting.stopped_epoch, waiting.best)
    assert_same_state(resumed, model)


def test_with_other_callbacks_a_warning_says_that_they_begin_anew(tmp_path):
    stopping = keras.callbacks.EarlyStopping("loss", patience=9)
    interrupted(tmp_path, callbacks=[stopping])
    with pytest.warns(UserWarning, match="what EarlyStopping remembered, and this fit has other callbacks"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)])
    interrupted(tmp_path, callbacks=[stopping])
    train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path), stopping])  # the remedy
