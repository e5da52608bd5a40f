"""What Keras's own callbacks remember is read from one and written to another."""

import keras
import numpy as np
import pytest

from tf_lap.compat.callback_states import CallbackState, read_states, write_states

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def usual(library):
    callbacks = library.callbacks
    return [
        callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True),
        callbacks.CSVLogger("never written"),
        callbacks.ModelCheckpoint("best.weights.h5", monitor="loss", save_best_only=True, save_weights_only=True),
        callbacks.ReduceLROnPlateau("loss", patience=3),
    ]


def train(library, callbacks, epochs=3):
    library.utils.set_random_seed(0)
    model = library.Sequential([library.Input((4,)), library.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=epochs, verbose=0, callbacks=callbacks)


@BOTH
def test_what_was_read_is_what_another_remembers(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callbacks, others = usual(library), usual(library)
    train(library, callbacks)
    states = read_states(callbacks)
    assert [state.name for state in states] == ["EarlyStopping", "ModelCheckpoint", "ReduceLROnPlateau"]
    assert states[0].numbers["best_epoch"] == 2
    assert all(number is None or type(number) in (int, float) for state in states for number in state.numbers.values())
    assert [array.shape for array in states[0].weights] == [(4, 2), (2,)]
    assert write_states(others, states)
    for callback, other in zip(callbacks, others, strict=True):
        for attribute in ("wait", "best", "best_epoch", "cooldown_counter"):
            assert getattr(callback, attribute, None) == getattr(other, attribute, None)
    for array, other in zip(callbacks[0].best_weights, others[0].best_weights, strict=True):
        np.testing.assert_array_equal(array, other)


@BOTH
def test_a_subclass_of_a_user_is_read_as_what_it_is_made_of(library):
    class EarlyStopping(library.callbacks.EarlyStopping):
        pass

    class ModelCheckpoint(library.callbacks.Callback):
        """Only called like one of Keras's."""

    (state,) = read_states([EarlyStopping("loss"), ModelCheckpoint()])
    assert state.name == "EarlyStopping"


def test_nothing_is_written_to_callbacks_of_other_classes():
    stopping = keras.callbacks.EarlyStopping("loss")
    stopping.wait = 0
    states = [CallbackState("EarlyStopping", {"wait": 5}, None), CallbackState("ModelCheckpoint", {"best": 1.0}, None)]
    assert not write_states([stopping], states)
    assert stopping.wait == 0
    assert not write_states([], states)
    assert write_states([], [])
