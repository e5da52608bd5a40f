"""Each remedy that a message about a model, its weights or its data names is followed here, and helps."""

from collections.abc import Mapping

import keras
import numpy as np
import pytest
import tf_keras
from remedied import perceptron, prune

from tf_lap.scores import OBD

layers = keras.layers
both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
X = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)


def normalized():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, name="dense"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(3, name="head"),
        ]
    )
    model.get_layer("bn").moving_variance.assign(np.full(6, 2.0))
    return model


def weight_of(model, path):
    layer, name = path.split("/")
    return getattr(model.get_layer(layer), name)


@pytest.mark.parametrize(
    ("path", "value", "arguments", "message"),
    [
        ("dense/kernel", np.nan, {}, "restore sound weights before pruning"),
        ("bn/moving_variance", -1.0, {}, "restore sound weights, or rescale those that are too large"),
        ("bn/gamma", np.inf, {}, "restore sound weights, or rescale"),
        ("bn/beta", np.nan, {"score": "magnitude"}, r"restore sound weights before pruning \(layer 'bn'\)"),
        ("dense/bias", np.inf, {"score": "obd", "data": X}, "restore sound weights and biases, or divide"),
    ],
)
def test_sound_weights_that_are_restored_are_pruned(path, value, arguments, message):
    model = normalized()
    sound = model.get_weights()
    variable = weight_of(model, path)
    variable.assign(np.full(variable.shape, value))
    with pytest.raises(ValueError, match=message):
        prune(model, **arguments)
    model.set_weights(sound)
    assert prune(model, **arguments).sparsity == pytest.approx(0.5, abs=0.02)


def test_weights_that_are_too_large_are_pruned_when_rescaled():
    model = normalized()
    gamma = weight_of(model, "bn/gamma")
    gamma.assign(np.full(gamma.shape, 1e25))
    with pytest.raises(ValueError, match="rescale those that are too large"):
        prune(model)
    gamma.assign(gamma / 1e25)
    assert prune(model).sparsity == pytest.approx(0.5, abs=0.02)


def test_data_that_is_too_large_is_measured_when_divided():
    model = perceptron()
    with pytest.raises(ValueError, match="divide the data by a large number"):
        prune(model, score="obd", data=X * np.float32(1e30))
    assert prune(model, score="obd", data=X * np.float32(1e30) / 1e30).sparsity == pytest.approx(0.5, abs=0.02)


@both
@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
@pytest.mark.parametrize("cure", ["an Input", "build", "a batch"])
@pytest.mark.filterwarnings(
    "ignore:model .* cannot be followed:UserWarning", "ignore:`build\\(\\)` was called:UserWarning"
)
def test_a_model_that_is_built_as_the_error_says_is_pruned(package, kind, cure):
    class Net(package.Model):
        def __init__(self):
            super().__init__()
            self.head = package.layers.Dense(4)

        def call(self, x):
            return self.head(x)

    model = package.Sequential([package.layers.Dense(4)]) if kind == "sequential" else Net()
    message = r"give it a keras.Input, call model.build\(input_shape\), or call it once on a batch"
    with pytest.raises(ValueError, match=message):
        prune(model)
    if cure == "build":
        model.build((None, 8))
    elif cure == "a batch":
        model(X[:1])
    elif kind == "sequential":
        model = package.Sequential([package.Input((8,)), *model.layers])
    else:
        inputs = package.Input((8,))
        model = package.Model(inputs, model(inputs))
    assert prune(model).sparsity == 0.5


def test_the_model_itself_is_pruned_where_its_layers_or_its_path_are_refused(tmp_path):
    model = perceptron()
    model.save(tmp_path / "model.keras")
    for other in (model.layers, model.layers[0], tmp_path / "model.keras"):
        with pytest.raises(TypeError, match="pass the model itself, not a layer, a list of layers or a path"):
            prune(other)
    assert prune(keras.models.load_model(tmp_path / "model.keras")).sparsity == pytest.approx(0.5, abs=0.02)


def test_a_layer_of_a_kind_that_is_named_can_be_pruned():
    with pytest.raises(
        ValueError, match=r"that can be pruned \(Dense, Conv, EinsumDense, attention, recurrent layers, and subclasses"
    ):
        prune(keras.Sequential([keras.Input((8, 8, 2)), layers.Flatten()]))

    class Dense(layers.Dense):
        pass

    einsum = layers.EinsumDense("bhwc,cd->bhwd", (8, 8, 16))
    for layer in (layers.Conv2D(4, 3), layers.Conv2DTranspose(4, 3), layers.SeparableConv2D(32, 3), Dense(4), einsum):
        model = keras.Sequential([keras.Input((8, 8, 2)), layer])
        assert prune(model).sparsity == pytest.approx(0.5, abs=0.02)
    sequence = keras.Input((5, 8))
    for outputs in (layers.LSTM(8)(sequence), layers.MultiHeadAttention(2, 4)(sequence, sequence)):
        assert prune(keras.Model(sequence, outputs)).sparsity == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [(0.5, "no layer left to prune"), ({"dense_0": 0.5}, "names only layers that are not pruned")],
)
def test_frozen_layers_are_pruned_when_thawed(sparsity, message):
    model = perceptron()
    model.trainable = False
    if isinstance(sparsity, Mapping):
        model.trainable = True
        model.layers[0].trainable = False  # alone
    with pytest.raises(ValueError, match=rf"{message}.*'dense_0': frozen: .* a model around it.*\(trainable=False\)"):
        prune(model, sparsity=sparsity)
    model.trainable = model.layers[0].trainable = True
    assert prune(model, sparsity=sparsity).sparsity == pytest.approx(0.5, abs=0.02)


def test_where_curvature_is_not_known_lookahead_without_data_prunes():
    inputs = keras.Input((6, 8))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3, name="conv")(inputs))
    model, samples = keras.Model(inputs, layers.Dense(3, name="dense")(x)), np.ones((5, 6, 8), np.float32)
    with pytest.raises(ValueError, match="leave it out with filters, or use score='lookahead' without data"):
        prune(model, score=OBD(), data=samples)
    report = prune(model, score=OBD(), data=samples, filters="dense")
    assert [layer.path for layer in report.pruned] == ["dense"]
    assert [layer.path for layer in prune(model, score="lookahead").pruned] == ["conv", "dense"]


@pytest.mark.parametrize("score", ["wanda", "obs_lookahead"])
def test_kernels_whose_inputs_cannot_be_measured_are_left_out_or_ranked_as_all_others(score):
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.GRU(4, name="memory")(inputs)))
    samples = np.random.default_rng(0).standard_normal((5, 6, 8)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"To leave them whole, name the others in filters; to rank all kernels alike"):
        prune(model, score=score, data=samples)
    others = ["memory/kernel", "head"]
    assert [layer.path for layer in prune(model, score=score, data=samples, filters=others).pruned] == others
    assert len(prune(model, score="lookahead").pruned) == 3


def test_outputs_that_are_no_classes_are_served_by_lookahead_or_given_as_classes():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(1)])
    message = r"of shape \(batch, classes\), two classes or more, logits .* use score='lookahead', without data"
    with pytest.raises(ValueError, match=message):
        prune(model, score="obd", data=X)
    assert prune(model, score="lookahead").sparsity == pytest.approx(0.5, abs=0.02)
    two = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(2)])
    assert prune(two, score="obd", data=X).sparsity == pytest.approx(0.5, abs=0.02)


def test_a_subclassed_model_of_several_inputs_takes_data_when_wrapped():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.body, self.head = layers.Dense(5), layers.Dense(3)

        def call(self, inputs):
            return self.head(self.body(inputs[0]) + self.body(inputs[1]))

    model = Net()
    model([X, X])
    with pytest.raises(ValueError, match="wrap it into a Functional model, whose inputs have names"):
        prune(model, score="obd", data=[X, X])
    inputs = [keras.Input((8,), name=name) for name in ("left", "right")]
    report = prune(keras.Model(inputs, model(inputs)), score="obd", data={"left": X, "right": X})
    assert report.sparsity == pytest.approx(0.5, abs=0.03)
