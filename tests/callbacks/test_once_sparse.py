"""Callbacks that keep the best weights count from the epoch on that reaches the final sparsity."""

import pickle
import types

import keras
import numpy as np
import pytest
import tf_keras
from perceptrons import SIZES, assert_exact, compiled, data, fit, polynomial

import tf_lap
from tf_lap.callbacks.once_sparse import EarlyCheckpoints, WaitingCallbacks

pytestmark = pytest.mark.slow  # each trains several times

both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])


def rising(package):
    """Puts a val_loss into the logs that is best in the first epoch, and best of the sparse ones in the second last."""

    class Rising(package.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = [1.0, 2.0, 5.0, 3.0, 4.0][epoch]

    return Rising()


def perceptron(package):
    layers = package.layers
    model = package.Sequential(
        [
            package.Input((16,)),
            *(layers.Dense(n, name=name) for name, n in (("first", 24), ("second", 24), ("head", 10))),
        ]
    )
    model.compile("adam", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


def zeros(model):
    return [np.count_nonzero(layer.kernel.numpy() == 0) for layer in model.layers]


@both
def test_the_best_weights_are_those_of_a_sparse_epoch(package, tmp_path):
    model, path = perceptron(package), tmp_path / "best.keras"
    stopping = package.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    checkpoint = package.callbacks.ModelCheckpoint(str(path), "val_loss", save_best_only=True)
    pruning = tf_lap.LAPCallback(polynomial(end_step=16), once_sparse=[stopping, checkpoint], allocation="uniform")
    x, y = data()
    model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[rising(package), pruning])  # and no warning
    assert stopping.best_epoch == 3
    assert stopping.best == checkpoint.best == 3.0
    best = package.models.load_model(path)
    assert zeros(model) == zeros(best) == [n - round(n * 0.1) for n in SIZES.values()]
    for weights, saved in zip(model.get_weights(), best.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, saved)


@both
def test_beside_the_callback_a_checkpoint_of_a_denser_epoch_is_warned_of(package, tmp_path):
    model, path = perceptron(package), tmp_path / "best.keras"
    checkpoint = package.callbacks.ModelCheckpoint(str(path), "val_loss", save_best_only=True)
    callbacks = [rising(package), tf_lap.LAPCallback(polynomial(end_step=16)), checkpoint]
    with pytest.warns(
        UserWarning, match=r"wrote the best epoch to '.*best.keras' before the final sparsity.*once_sparse"
    ):
        model.fit(*data(), batch_size=16, epochs=5, verbose=0, callbacks=callbacks)
    assert sum(zeros(package.models.load_model(path))) < 0.9 * sum(SIZES.values())


@both
def test_weights_restored_behind_the_callback_are_warned_of_with_what_helps(package):
    model = perceptron(package)
    stopping = package.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    pruning = tf_lap.LAPCallback(polynomial(end_step=16), allocation="uniform")
    with pytest.warns(UserWarning, match=r"behind LAPCallback put back .*pruner.apply\(\) zeroes them.*PreserveSpars"):
        model.fit(*data(), batch_size=16, epochs=5, verbose=0, callbacks=[rising(package), pruning, stopping])
    assert pruning.report.sparsity < 0.9
    pruning.pruner.apply()  # the first remedy
    assert zeros(model) == [n - round(n * 0.1) for n in SIZES.values()]
    model.fit(*data(), batch_size=16, verbose=0, callbacks=[tf_lap.PreserveSparsity()])  # the last one
    assert zeros(model) == [n - round(n * 0.1) for n in SIZES.values()]


def test_a_checkpoint_that_is_written_again_when_sparse_is_not_warned_of(tmp_path):
    model = compiled()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "sparsity", mode="max", save_best_only=True)
    fit(model, [tf_lap.LAPCallback(polynomial()), checkpoint])
    assert_exact(keras.models.load_model(tmp_path / "best.keras"))


def test_they_are_told_of_nothing_before_and_of_everything_after():
    told = []

    class Recorder(keras.callbacks.Callback):
        def __getattribute__(self, name):
            if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end"):
                told.append(name)
            return super().__getattribute__(name)

    model, x, y = compiled(), *data()
    pruning = tf_lap.LAPCallback(polynomial(end_step=10), once_sparse=[recorder := Recorder()])
    del told[:]
    model.fit(x, y, batch_size=16, epochs=3, verbose=0, validation_data=(x, y), callbacks=[pruning])
    batches = ["on_train_batch_begin", "on_train_batch_end"] * 6
    assert told == [
        "on_train_begin",
        *["on_epoch_begin", "on_epoch_end"],  # the second epoch, which reached the final sparsity
        *["on_epoch_begin", *batches, "on_test_begin", "on_test_end", "on_epoch_end"],
        "on_train_end",
    ]
    assert recorder.model is model


def test_a_schedule_that_is_not_over_lets_none_go():
    stopping = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    with pytest.warns(UserWarning, match="the final sparsity is not reached"):
        fit(compiled(), [tf_lap.LAPCallback(polynomial(end_step=100), once_sparse=[stopping])])
    assert stopping.best_weights is None


def test_what_is_no_callback_and_schedules_that_do_not_say_when_they_end_are_errors():
    with pytest.raises(TypeError, match="once_sparse: 'stopping' is no Keras callback"):
        tf_lap.LAPCallback(0.9, once_sparse=["stopping"])
    with pytest.raises(ValueError, match="does not say when it reaches the final sparsity"):
        tf_lap.LAPCallback(lambda step: (False, 0.5), once_sparse=[keras.callbacks.EarlyStopping()])
    assert WaitingCallbacks(keras.callbacks.EarlyStopping()).callbacks  # a single one need not be in a list


def test_checkpoints_that_wrote_nothing_yet_are_not_early():
    checkpoint = keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True)
    foreign = types.SimpleNamespace(save_best_only=True)  # of another package, with a best of another name
    for best in (None, np.inf, -np.inf, 1e-4):  # the last is an initial_value_threshold
        checkpoint.best = best
        early = EarlyCheckpoints([checkpoint, foreign, keras.callbacks.History()])
        early.note_best()
        assert early.warning() is None


def test_callbacks_that_wait_are_pickled_without_the_model():
    stopping = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial(), once_sparse=stopping)])
    waiting = WaitingCallbacks([stopping])
    (again,) = pickle.loads(pickle.dumps(waiting)).callbacks
    assert again.best == stopping.best
    assert again.model is None
    assert stopping.model is model
