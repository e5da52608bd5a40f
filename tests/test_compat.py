import keras
import pytest

import tf_lap
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
