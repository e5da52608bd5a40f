"""What is wrapped, of models, lists and layers, by both side by side."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from wrapped import (
    at_once,
    both,
    compiled,
    exactly,
    fit,
    kept,
    layers,
    masks,
    perceptron,
    reference,
    sparsity,
    tf_keras,
    wrappers,
)

import tf_lap
from tf_lap.warn import PruningWarning


def names(model):
    return [layer.name for layer in model.layers]


def test_a_sequential_model():
    assert names(tf_lap.prune_lookahead(perceptron(), at_once())) == [
        f"prune_low_magnitude_{name}" for name in ("first", "second", "head")
    ]
    assert names(sparsity.prune_low_magnitude(perceptron(), at_once())) == [
        f"prune_low_magnitude_{name}" for name in ("first", "second", "head")
    ]


def test_layers_without_kernels_are_passed_over():
    stack = [
        layers.Input((8, 8, 3)),
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.Flatten(name="flat"),
        layers.Dense(2, name="dense"),
    ]
    model = tf_keras.Sequential(stack)
    ours = tf_lap.prune_lookahead(model)
    assert names(ours) == ["prune_low_magnitude_conv", "norm", "relu", "flat", "prune_low_magnitude_dense"]
    assert all(name.startswith("prune_low_magnitude_") for name in names(sparsity.prune_low_magnitude(model)))
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    np.testing.assert_array_equal(ours.predict(x, verbose=0), model.predict(x, verbose=0))


@both
def test_a_list_of_layers(wrap):
    stack = wrap([layers.Input((16,))._keras_history.layer, layers.Dense(24), layers.Dense(10)], at_once())
    model = compiled(tf_keras.Sequential(stack))
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == [38, 24]


@both
def test_a_layer_among_others(wrap):
    stack = [layers.Dense(24, input_shape=(16,)), wrap(layers.Dense(24), pruning_schedule=at_once()), layers.Dense(10)]
    model = compiled(tf_keras.Sequential(stack))
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == [16 * 24, 58, 240]


@both
def test_arguments_of_the_layer(wrap):
    model = compiled(tf_keras.Sequential([wrap(layers.Dense(10), at_once(), input_shape=(16,))]))
    assert model.built
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == [16]


@both
def test_wrapped_layers_are_not_wrapped_again(wrap):
    once = wrap(perceptron(), at_once())
    assert names(wrap(once, at_once())) == names(once)


def test_wrappers_of_tfmot_stay_and_are_named():
    with pytest.warns(UserWarning, match=r"leaves 'prune_low_magnitude_first', .* in tfmot's own wrapper") as caught:
        tf_lap.prune_lookahead(sparsity.prune_low_magnitude(perceptron(), at_once()))
    assert len([warning for warning in caught if issubclass(warning.category, PruningWarning)]) == 1


class Gated(layers.Dense):
    pass


def test_subclasses_of_supported_layers_are_accepted():
    def make():
        return tf_keras.Sequential([layers.Input((16,)), Gated(24, name="gated"), layers.Dense(10)])

    with pytest.raises(ValueError, match="supported layer"):
        sparsity.prune_low_magnitude(make())
    model = compiled(tf_lap.prune_lookahead(make(), at_once()))
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == [38, 24]
    assert type(sparsity.strip_pruning(model).layers[0]) is Gated


class Peephole(layers.LSTM):
    pass


class Cell(layers.LSTMCell):
    pass


@pytest.mark.parametrize("make", [lambda: Peephole(3), lambda: layers.RNN([Cell(3), layers.GRUCell(2)])])
def test_subclasses_of_recurrent_layers_and_cells_too(make):
    wrapper = tf_lap.PrunableLayer(make())
    wrapper.build((None, 5, 4))
    expected = 2 if isinstance(wrapper.layer, Peephole) else 4
    assert len(wrapper.pruning_vars) == expected


def test_operators_between_tensors_are_accepted():
    def make():
        inputs = tf_keras.Input((16,))
        x = layers.Dense(24, name="first")(inputs)
        x = tf.nn.relu(x + layers.Dense(24, name="second")(x)) * 2.0
        return tf_keras.Model(inputs, layers.Dense(10, name="head")(x))

    with pytest.raises(ValueError, match="supported layer"):
        sparsity.prune_low_magnitude(make())
    model = make()
    expected = reference(model)
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once()), tf_keras.optimizers.SGD(0.0))
    fit(wrapped, epochs=1)
    for name, mask in expected.items():
        np.testing.assert_array_equal(masks(wrapped)[name], mask)


class Unknown(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight("matrix", (shape[-1], 24))

    def call(self, x):
        return tf.matmul(x, self.matrix)


def test_one_unknown_layer_does_not_refuse_the_model_and_is_named_once():
    model = tf_keras.Sequential([layers.Input((16,)), Unknown(name="odd"), layers.Dense(10, name="head")])
    with pytest.raises(ValueError, match="supported layer"):
        sparsity.prune_low_magnitude(model)
    with pytest.warns(UserWarning, match="unpruned") as caught:
        wrapped = tf_lap.prune_lookahead(model)
    assert [str(w.message) for w in caught] == [
        "tf_lap.prune_lookahead leaves 'odd' (Unknown) unpruned: tfmot does not know which of their weights to prune; "
        "a method get_prunable_weights() tells it"
    ]
    assert names(wrapped) == ["odd", "prune_low_magnitude_head"]


@both
def test_a_method_on_the_layer_itself_says_what_to_prune(wrap):
    odd = Unknown(name="odd")
    odd.get_prunable_weights = lambda: [odd.matrix]
    model = wrap(tf_keras.Sequential([layers.Input((16,)), odd, layers.Dense(10, name="head")]), at_once())
    assert [layer.layer.name for layer in wrappers(model)] == ["odd", "head"]


class OnlyHead(sparsity.PruningPolicy):
    def allow_pruning(self, layer):
        return layer.name == "head"

    def ensure_model_supports_pruning(self, model):
        if len(model.layers) > 3:
            raise ValueError("too deep")


@both
def test_a_policy_chooses_layers_and_refuses_models(wrap):
    model = wrap(perceptron(), at_once(), pruning_policy=OnlyHead())
    assert names(model)[:2] == ["first", "second"]
    fit(compiled(model))
    assert kept(sparsity.strip_pruning(model)) == [16 * 24, 24 * 24, 24]
    deep = tf_keras.Sequential([*perceptron().layers, layers.Dense(3)])
    with pytest.raises(ValueError, match="too deep"):
        wrap(deep, pruning_policy=OnlyHead())


def pointwise():
    inputs = tf_keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.Conv2D(8, 3, strides=2, padding="valid", name="stem")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(16, 1, name="pointwise")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return tf_keras.Model(inputs, layers.Flatten()(layers.Conv2D(10, 1, name="head")(x)))


@pytest.mark.slow
@both
def test_the_policy_for_latency_wraps_1x1_convolutions(wrap):
    policy = sparsity.PruneForLatencyOnXNNPack()
    model = compiled(wrap(pointwise(), at_once(), pruning_policy=policy))
    assert [layer.layer.name for layer in wrappers(model)] == ["pointwise", "head"]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 32, 32, 3)), rng.integers(0, 10, 8)
    model.fit(x, y, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    stripped = sparsity.strip_pruning(model)
    assert [np.count_nonzero(stripped.get_layer(name).kernel) for name in ("pointwise", "head")] == [13, 16]
    with pytest.raises(ValueError, match="Could not find `Conv2D 3x3` layer"):
        wrap(perceptron(), pruning_policy=policy)


@both
def test_nested_models_are_wrapped_inside(wrap):
    inner = tf_keras.Sequential([layers.Input((16,)), layers.Dense(24, name="a"), layers.Dense(24, name="b")])
    model = compiled(wrap(tf_keras.Sequential([layers.Input((16,)), inner, layers.Dense(10, name="c")]), at_once()))
    fit(model)
    stripped = sparsity.strip_pruning(model)
    assert kept(stripped.layers[0]) + kept(stripped)[-1:] == exactly(0.9)


@both
def test_a_model_that_is_not_built_yet(wrap):
    model = wrap(tf_keras.Sequential([layers.Dense(24), layers.Dense(24), layers.Dense(10)]), at_once())
    with pytest.raises(
        AttributeError, match="pruning_step" if wrap is sparsity.prune_low_magnitude else "is not built"
    ):
        fit(compiled(model))
    model.build((None, 16))
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == exactly(0.9)


def test_a_model_of_keras_3_is_told_what_it_is():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")], name="three")
    with pytest.raises(
        ValueError, match=rf"model 'three' is one of Keras 3 \(keras {keras.__version__}\).*LAPCallback"
    ):
        tf_lap.prune_lookahead(model)
    with pytest.raises(ValueError, match="layer 'dense' is one of Keras 3"):
        tf_lap.prune_lookahead(model.layers)


class Subclassed(tf_keras.Model):
    def __init__(self, wrap):
        super().__init__()
        self.hidden, self.head = wrap(layers.Dense(24, name="hidden")), wrap(layers.Dense(10, name="head"))

    def call(self, x):
        return self.head(self.hidden(x))


@both
def test_a_subclassed_model_is_an_error(wrap):
    with pytest.raises(ValueError, match=r"[Ss]ubclassed"):
        wrap(Subclassed(lambda layer: layer))


def test_other_things_are_an_error():
    with pytest.raises(ValueError, match="takes a tf_keras model, a list of its layers or a layer, got str"):
        tf_lap.prune_lookahead("model")


HYGIENE = """
import os, sys
import tensorflow as tf
import keras
import tf_lap
{use}
assert not {{"tf_keras", "tensorflow_model_optimization"}} & set(sys.modules)
tf_lap.PrunableLayer, tf_lap.prune_lookahead
assert {{"tf_keras", "tensorflow_model_optimization"}} <= set(sys.modules)
assert "TF_USE_LEGACY_KERAS" not in os.environ
print(tf.keras.layers.Dense.__module__, tf.keras.layers.Dense is keras.layers.Dense)
"""


@pytest.mark.slow
def test_loading_the_wrappers_keeps_what_the_variable_was_set_to():
    code = "import os, tf_lap; tf_lap.prune_lookahead; print(os.environ['TF_USE_LEGACY_KERAS'])"
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "0"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[-1] == "0"


@pytest.mark.slow
@pytest.mark.parametrize("use", ["tf.keras.layers.Dense", ""], ids=["tf.keras used", "tf.keras not used"])
def test_loading_the_wrappers_leaves_tf_keras_and_the_environment_as_they_were(use):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", HYGIENE.format(use=use)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[-1] == "keras.src.layers.core.dense True"


REGISTERED = """
import tensorflow_model_optimization as tfmot
import tf_lap
assert issubclass(tf_lap.LookaheadPruningSchedule, tfmot.sparsity.keras.PruningSchedule)
import tf_keras
print(tf_keras.utils.get_registered_object("tf_lap>PrunableLayer").__name__)
"""


@pytest.mark.slow
def test_whoever_has_tfmot_finds_everything_registered():
    run = subprocess.run([sys.executable, "-c", REGISTERED], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "PrunableLayer"
