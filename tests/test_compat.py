import keras
import pytest
import tf_keras

import tf_lap
from tf_lap import compat
from tf_lap.compat.nodes import private


def test_a_private_attribute_that_vanished_is_named_with_what_to_install():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(RuntimeError, match=r"private attribute `_gone` of Sequential, and keras .* does not have it"):
        private(model, "_gone")


def test_another_backend_of_keras_is_refused(monkeypatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"Keras runs on the 'jax' backend.*KERAS_BACKEND=tensorflow"):
        tf_lap.prune(model, 0.5)


@pytest.mark.parametrize("end", [4, 7])  # Keras before 3.11 tells the first batch of the execution, later ones the last
def test_an_execution_ends_with_its_last_batch_whatever_keras_tells(end):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", steps_per_execution=4)
    assert compat.last_batch(model, begin=4, end=end) == 7


def test_tf_keras_tells_the_last_batch_of_an_execution_itself():
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])
    model.compile("sgd", "mse", steps_per_execution=4)
    assert compat.last_batch(model, begin=4, end=7) == 7
