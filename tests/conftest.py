import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import tf_lap


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """What the examples in docstrings speak of."""
    rng = np.random.default_rng(0)
    layers = [keras.Input((64,)), keras.layers.Dense(32, activation="relu", name="dense")]
    layers += [keras.layers.Dense(16, activation="relu", name="dense_1"), keras.layers.Dense(10, name="dense_2")]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    doctest_namespace.update(
        tf_lap=tf_lap,
        keras=keras,
        model=model,
        x=rng.standard_normal((64, 64)).astype(np.float32),
        y=rng.integers(0, 10, 64),
    )
