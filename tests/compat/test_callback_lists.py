"""Which callbacks are in a fit, and what runs behind them all."""

import keras
import numpy as np
import pytest
import tf_keras

from tf_lap.compat.callback_lists import callbacks_of_fit, run_after_others

both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])


@both
@pytest.mark.parametrize("container", ["list", "CallbackList"])
def test_a_function_runs_once_behind_all_callbacks_of_the_fit(package, container):
    ended = []

    class Asking(package.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.others = callbacks_of_fit(self)
            for name in ("first", "second"):  # as two callbacks of one fit ask
                run_after_others(
                    self.others,
                    self.model,
                    at_epoch_end=lambda name=name: ended.append(f"{name}, epoch"),
                    at_train_end=lambda name=name: ended.append(f"{name}, training"),
                )

        def on_train_end(self, logs=None):
            ended.append("asking")

    class Behind(package.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ended.append("behind, epoch")

        def on_train_end(self, logs=None):
            ended.append("behind")

    model = package.Sequential([package.Input((2,)), package.layers.Dense(1)])
    model.compile("sgd", "mse")
    asking, behind = Asking(), Behind()
    callbacks = [asking, behind]
    if container == "CallbackList":
        callbacks = package.callbacks.CallbackList(callbacks, model=model, add_history=True, epochs=1, steps=1)
    for _ in range(2):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=callbacks)
    assert asking.others[:2] == [asking, behind]
    epoch = ["behind, epoch", "first, epoch", "second, epoch"]
    assert ended == [*epoch, "asking", "behind", "first, training", "second, training"] * 2
    assert container == "CallbackList" or callbacks[-1] is behind


def test_outside_a_fit_there_are_none_and_nothing_is_run():
    callback = keras.callbacks.History()
    assert callbacks_of_fit(callback) == []
    assert not run_after_others([], None, at_train_end=lambda: pytest.fail("there is nothing to run after"))
