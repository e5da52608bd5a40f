"""Each remedy that the warning names is followed here, and helps."""

import keras
import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras

import tf_lap
from tf_lap.report.coverage import OPT_IN, left_whole_warning, measure_coverage

pytestmark = pytest.mark.filterwarnings("ignore:model .* can be pruned")  # models of many kinds of layers

layers = keras.layers
FROZEN = "frozen: the layer, or a model around it, is not trained (trainable=False)"


def warning_of(model, **arguments):
    return left_whole_warning(model, tf_lap.Pruner(model, **arguments).report())


def perceptron():
    dense = layers.Dense
    return keras.Sequential(
        [keras.Input((8,)), dense(20, name="a"), dense(20, name="b"), dense(2, name="c")], name="mlp"
    )


def test_nothing_is_said_where_at_least_half_can_be_pruned():
    model = perceptron()
    assert measure_coverage(tf_lap.Pruner(model).report()) == (600, 600, {})
    assert warning_of(model) is None
    model.get_layer("a").trainable = False
    assert measure_coverage(tf_lap.Pruner(model).report()).share == 440 / 600
    assert warning_of(model) is None


@pytest.mark.parametrize(("units", "warns"), [(5, False), (6, True)])
def test_half_of_the_weights_is_enough(units, warns):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(10, name="a"), layers.Dense(units, name="b")])
    model.get_layer("b").trainable = False
    assert measure_coverage(tf_lap.Pruner(model).report()) == (50 + 10 * units, 50, {FROZEN: 10 * units})
    assert (warning_of(model) is not None) == warns


def test_frozen_layers_are_named_and_thawed_ones_can_be_pruned():
    model = perceptron()
    for name in "bc":
        model.get_layer(name).trainable = False
    text = warning_of(model)
    assert text.startswith(
        "model 'mlp': of its 600 weights in matrices 160 can be pruned (26.67%), so the whole model ends far less "
        "sparse than the kernels that are pruned. Left whole: 440: frozen"
    )
    assert text.endswith(
        "To prune frozen layers, set trainable = True on them and on the models around them, and compile the model "
        "again."
    )
    for name in "bc":
        model.get_layer(name).trainable = True
    assert warning_of(model) is None


def test_layers_inside_a_frozen_model_are_thawed_with_it():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(20, name="a")], name="inner")
    model = keras.Sequential([keras.Input((8,)), inner, layers.Dense(2, name="b")])
    inner.trainable = False
    assert "set trainable = True on them and on the models around them" in warning_of(model)
    inner.trainable = True
    assert warning_of(model) is None


def test_what_the_user_leaves_out_is_no_reason_to_warn():
    model = perceptron()
    assert measure_coverage(tf_lap.Pruner(model, filters="c").report()).share == 1
    assert warning_of(model, filters="c") is None
    assert left_whole_warning(model, tf_lap.prune(model, {"c": 0.5})) is None


def test_an_embedding_is_left_out_until_filters_name_it():
    words = keras.Input((5,), dtype="int32")
    x = layers.LSTM(6, name="memory")(layers.Embedding(100, 8, name="words")(words))
    model = keras.Model(words, layers.Dense(2, name="head")(x), name="text")
    text = warning_of(model)
    assert f"Left whole: 800: {OPT_IN}." in text
    assert text.endswith("To prune words, give filters with an expression that matches the whole path.")
    assert warning_of(model, filters=["words", "memory", "head"]) is None


def test_layers_of_keras_that_nothing_prunes_are_said_to_stay():
    inner = layers.Dense(2, name="inner")
    inner.trainable = False
    layer = layers.SpectralNormalization(inner, name="spectral")
    model = keras.Sequential([keras.Input((2,)), layer, layers.Dense(1, name="head")])
    text = warning_of(model)
    assert "2: SpectralNormalization has no kernel rule" in text
    assert text.endswith("In Keras 3 tf_lap prunes no SpectralNormalization: judge by report.model_sparsity.")


def test_in_tf_keras_the_wrapper_prunes_what_the_warning_says_it_does():
    local = tf_keras.layers.LocallyConnected1D(8, 2, name="local")
    model = tf_keras.Sequential(
        [tf_keras.Input((9, 2)), local, tf_keras.layers.Flatten(), tf_keras.layers.Dense(2, name="head")]
    )
    assert warning_of(model).endswith("tf_lap.prune_lookahead prunes LocallyConnected1D too, by magnitude.")
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1)
    wrapped = tf_lap.prune_lookahead(model, pruning_schedule=schedule)
    wrapped.compile("sgd", "mse")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    with pytest.warns(UserWarning, match="by magnitude"):
        wrapped.fit(np.zeros((4, 9, 2)), np.zeros((4, 2)), callbacks=callbacks, verbose=0)
    stripped = tfmot.sparsity.keras.strip_pruning(wrapped)
    assert np.mean(stripped.get_layer("local").get_weights()[0] == 0) == 0.5


class Mixer(layers.Layer):
    """A layer with a matrix of its own."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], shape[-1]), name="table")

    def call(self, x):
        return keras.ops.matmul(x, self.table)


class DenseMixer(layers.Layer):
    """The same with a Dense layer in it."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(20, use_bias=False)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


def test_a_custom_layer_with_a_dense_layer_in_it_or_with_a_registered_kernel_can_be_pruned():
    def around(layer):
        return keras.Sequential([keras.Input((8,)), layers.Dense(20), layer, layers.Dense(2)])

    class Registered(Mixer):
        pass

    text = warning_of(around(Mixer()))
    assert text.endswith(
        "To prune Mixer, say with tf_lap.register_kernel which of its variables are kernels, or hold a Dense or Conv "
        "layer in it in place of a matrix of its own."
    )
    assert warning_of(around(DenseMixer())) is None
    tf_lap.register_kernel(Registered, "table", "io")
    assert warning_of(around(Registered())) is None
