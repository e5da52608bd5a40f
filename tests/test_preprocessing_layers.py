"""Models with layers that look up, bin and normalize data: what these keep is neither a weight nor lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_lap

TEXT = tf.constant([["red"], ["green"], ["blue green"], ["unknown"]])
NUMBERS = np.array([[3], [5], [9], [1]])
REALS = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)


def look_up_words(layers):
    return layers.StringLookup(), TEXT, "string"


def look_up_numbers(layers):
    return layers.IntegerLookup(), NUMBERS, "int64"


def look_up_one_hot(layers):
    return layers.StringLookup(output_mode="one_hot"), TEXT, "string"


def split_text(layers):
    return layers.TextVectorization(output_sequence_length=3), TEXT, "string"


def weigh_words(layers):
    return layers.TextVectorization(output_mode="tf_idf"), TEXT, "string"


def bin_numbers(layers):
    return layers.Discretization(num_bins=3), REALS, "float32"


def normalize(layers):
    return layers.Normalization(), REALS, "float32"


KINDS = (look_up_words, look_up_numbers, look_up_one_hot, split_text, weigh_words, bin_numbers, normalize)


def build(kr, make):
    """The layer, adapted, before an embedding or Dense layers."""
    layer, data, dtype = make(kr.layers)
    layer.adapt(data)
    inputs = kr.Input((int(data.shape[1]),), dtype=dtype)
    x = layer(inputs)
    if len(x.shape) < 3 and "int" in str(getattr(x.dtype, "name", x.dtype)):
        x = kr.layers.Flatten()(kr.layers.Embedding(8, 4)(x))
    return kr.Model(inputs, kr.layers.Dense(2)(kr.layers.Dense(8, activation="relu")(x))), data


@pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("make", KINDS)
def test_models_are_pruned_measured_and_shrunk(kr, make):
    model, data = build(kr, make)
    report = tf_lap.prune(model, 0.5, pattern="channels")
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert tf_lap.cost(model).trainable == trained
    assert report.sparsity > 0.3
    small = tf_lap.shrink(model, data)
    np.testing.assert_allclose(np.asarray(small(data)), np.asarray(model(data)), atol=1e-5)
    assert tf_lap.cost(small).weights < tf_lap.cost(model).weights


@pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_text_cannot_be_drawn_and_is_taken_as_the_message_says(kr):
    model, data = build(kr, look_up_words)
    tf_lap.prune(model, 0.5, pattern="channels")
    with pytest.raises(ValueError, match="takes text, for which none can be drawn: pass data"):
        tf_lap.shrink(model)
    assert tf_lap.shrink(model, data) is not None


@pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_data_of_the_other_kind_are_named(kr):
    model, _ = build(kr, look_up_words)
    with pytest.raises(ValueError, match="data: it holds float32: expected text"):
        tf_lap.shrink(model, REALS[:, :1])
    model, _ = build(kr, normalize)
    with pytest.raises(ValueError, match="data: it holds object: expected real numbers"):
        tf_lap.shrink(model, TEXT)


@pytest.mark.parametrize("make", [look_up_words, bin_numbers, weigh_words])
def test_models_of_tf_keras_are_trained_saved_and_restored(make, tmp_path):
    model, data = build(tf_keras, make)
    model.compile("adam", "mse")
    callbacks = [tf_lap.LAPCallback(0.5), tf_lap.BackupAndRestore(tmp_path / "backup")]
    dataset = tf.data.Dataset.from_tensor_slices((data, np.zeros((4, 2), np.float32))).repeat(8).batch(4)
    model.fit(dataset, epochs=2, verbose=0, callbacks=callbacks)
    assert tf_lap.Pruner(model).report().sparsity == pytest.approx(0.5, abs=0.05)
