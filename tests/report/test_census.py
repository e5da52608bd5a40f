import gc
import weakref

import keras
import numpy as np
import pytest
import tf_keras

import tf_lap
from tf_lap.report.census import count_model, model_census

pytestmark = pytest.mark.filterwarnings("ignore:model .* can be pruned")  # models of many kinds of layers

BOTH = pytest.mark.parametrize("kind", [keras, tf_keras], ids=["keras", "tf_keras"])


def text_model(kind):
    """A model with weights of many kinds: embedding, recurrent, attention, normalization, a layer called twice."""
    layers = kind.layers
    words = kind.Input((5,), dtype="int32")
    x = layers.LSTM(4, return_sequences=True, dropout=0.5)(layers.Embedding(10, 8)(words))
    x = layers.Dropout(0.5, seed=1)(layers.MultiHeadAttention(2, 3)(x, x))
    shared = layers.Dense(4)
    x = shared(shared(layers.BatchNormalization()(x)))
    return kind.Model(words, layers.Dense(2)(layers.Flatten()(x)))


def counted_by_numpy(model):
    arrays = [np.asarray(weight) for weight in model.get_weights()]
    return sum(array.size for array in arrays), sum(int(np.sum(array == 0)) for array in arrays)


@pytest.mark.slow
@BOTH
def test_every_weight_of_the_model_counts_once_whenever_it_is_asked(kind):
    model = text_model(kind)
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.zeros((2, 5)), np.zeros((2, 2)), verbose=0)
    for sparsity in (0.2, 0.5, 0.9):
        tf_lap.prune(model, sparsity)
        weights, zeros = counted_by_numpy(model)
        assert model_census(model) == (weights, zeros)
        assert weights == model.count_params()


@BOTH
def test_frozen_weights_and_nested_models_count(kind):
    inner = text_model(kind)
    inner.trainable = False
    words = kind.Input((5,), dtype="int32")
    model = kind.Model(words, kind.layers.Dense(3)(inner(words)))
    assert model_census(model) == counted_by_numpy(model)


@BOTH
def test_weights_that_came_since_the_last_count_are_counted(kind):
    model = kind.Sequential([kind.Input((4,)), kind.layers.Dense(3)])
    assert model_census(model) == (15, 3)
    model.add(kind.layers.Dense(5))
    assert model_census(model) == (35, 8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_every_precision_are_counted_as_they_are(dtype):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(5, dtype=dtype), keras.layers.Dense(2)]
    )
    smallest = np.zeros((3, 5))
    smallest[0, :2] = [1e-300 if dtype == "float64" else 6e-8, 1]
    model.layers[1].kernel.assign(smallest)
    counted = count_model(model)
    assert counted.weights == 4 * 3 + 3 * 5 + 5 * 2 + 3 + 5 + 2
    assert counted.zeros == 13 + 3 + 5 + 2
    assert [counted.zeros_in[id(layer.kernel)] for layer in model.layers] == [0, 13, 0]


def test_matrices_that_a_quantized_layer_holds_are_counted_and_seed_generators_are_not():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    )
    model.layers[0].quantize("int8")
    # Its scales, one for each output, are floating-point numbers.
    assert model_census(model)[0] == (4 * 3 + 3 + 3) + (3 * 2 + 2)


def test_counting_keeps_no_model_alive():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for _ in range(3):
        model_census(model)
    pruner = tf_lap.Pruner(model)
    pruner.freeze()
    gone = weakref.ref(model)
    del model, pruner
    gc.collect()
    assert gone() is None
