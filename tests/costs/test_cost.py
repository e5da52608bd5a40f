"""`tf_lap.cost`: what a model has and puts out, layer by layer and in total, and what is not known."""

import ast
import json

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import tf_lap

FLAVOURS = pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])


def image_model(flavour):
    layers = flavour.layers
    x = inputs = flavour.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return flavour.Model(inputs, layers.Dense(2, name="head")(x))


@FLAVOURS
def test_weights_of_all_kinds_count(flavour):
    model = image_model(flavour)
    model.get_layer("head").trainable = False
    report = tf_lap.cost(model)
    rows = {layer.path: (layer.weights, layer.trainable, layer.bytes) for layer in report.layers}
    assert rows["conv"] == (168, 168, 672)
    assert rows["norm"] == (24, 12, 96)
    assert rows["head"] == (14, 0, 56)
    assert rows["pool"] == (0, 0, 0)
    assert (report.weights, report.trainable) == (model.count_params(), 180)
    assert (report.bytes, report.bytes_by_dtype) == (4 * report.weights, {"float32": 4 * report.weights})
    assert report.nonzero == sum(np.count_nonzero(weight) for weight in model.get_weights())
    assert [layer.path for layer in report.layers if layer.weights] == ["conv", "norm", "head"]


@FLAVOURS
def test_the_largest_activation_is_named(flavour):
    report = tf_lap.cost(image_model(flavour), 4)
    assert report.largest_activation == tf_lap.costs.Activation("conv", (4, 8, 8, 6), "float32", 4 * 64 * 6 * 4)
    assert {layer.path: layer.activation_bytes for layer in report.layers}["head"] == 4 * 2 * 4


def test_an_input_may_be_the_largest_activation():
    model = keras.Sequential([keras.Input((100,), name="features"), layers.Dense(3)])
    assert tf_lap.cost(model).largest_activation.path == "features"


def test_attention_scores_are_activations():
    inputs = keras.Input((50, 4))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 2)(inputs, inputs, return_attention_scores=True)[0])
    largest = tf_lap.cost(model).largest_activation
    assert (largest.shape, largest.bytes) == ((1, 2, 50, 50), 20_000)


def test_half_precision_takes_half_the_bytes_of_activations():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(6, 3, padding="same", dtype="mixed_float16")])
    report = tf_lap.cost(model)
    assert report.largest_activation.bytes == 64 * 6 * 2
    assert report.bytes_by_dtype == {"float32": 4 * report.weights}


def test_quantized_weights_take_a_byte_and_what_they_multiply_is_not_counted():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, use_bias=False, name="dense")])
    model.quantize("int8")
    report = tf_lap.cost(model)
    assert report.bytes_by_dtype["int8"] == 32
    assert report.macs == 0
    assert "LoRA or quantization is on" in report.uncounted["dense"]


@FLAVOURS
def test_open_axes_are_asked_for(flavour):
    layers = flavour.layers
    inputs = flavour.Input((None, None, 3), name="image")
    model = flavour.Model(inputs, layers.Conv2D(4, 3, padding="same")(inputs))
    with pytest.raises(ValueError, match=r"'image' has the shape \(None, None, None, 3\).*input_shape=\(224, 224, 3\)"):
        tf_lap.cost(model)
    assert tf_lap.cost(model, input_shape=(224, 224, 3)).macs == 224 * 224 * 108
    assert tf_lap.cost(model, 2, [(6, 5, 3)]).macs == 2 * 30 * 108
    assert tf_lap.cost(model, input_shape={"image": (6, 5, 3)}).macs == 30 * 108


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((8, 8), ValueError, "was given for it without that axis"),
        ((8, 8, 4), ValueError, r"has the shape \(None, 8, 8, 3\)"),
        ((1, 8, 8, 3), ValueError, "was given for it without that axis"),
        ([(8, 8, 3), (8, 8, 3)], ValueError, "has 2 shapes"),
        ({"picture": (8, 8, 3)}, ValueError, r"names \['picture'\], and the model's inputs are \['image'\]"),
        ((8, 0, 3), ValueError, "whole numbers above 0"),
        ((8, None, 3), ValueError, "whole numbers above 0"),
        (8, TypeError, "a list of shapes or a mapping"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape, error, message):
    with pytest.raises(error, match=message):
        tf_lap.cost(image_model(keras), input_shape=shape)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_batch_size_that_is_none_is_refused(size, error):
    with pytest.raises(error, match="batch_size="):
        tf_lap.cost(image_model(keras), size)


@FLAVOURS
def test_a_batch_that_the_model_was_built_for_stays(flavour):
    inputs = flavour.Input(batch_shape=(3, 5, 4))
    model = flavour.Model(inputs, flavour.layers.LSTM(6, stateful=True)(inputs))
    report = tf_lap.cost(model)
    assert (report.batch_size, report.macs) == (3, 3 * 5 * 24 * (4 + 6))
    assert tf_lap.cost(model, 3).macs == report.macs
    with pytest.raises(ValueError, match="built for a batch of 3; leave batch_size out"):
        tf_lap.cost(model, 2)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="is not built"):
        tf_lap.cost(keras.Sequential([layers.Dense(3)]))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.hidden, self.head = layers.Dense(5, name="hidden"), layers.Dense(2, name="head")

    def call(self, inputs):
        return self.head(self.hidden(inputs))


class Untraceable(Subclassed):
    def call(self, inputs):
        return self.head(self.hidden(np.asarray(inputs)))


def test_a_subclassed_model_is_followed_through_its_call():
    model = Subclassed()
    model.build((None, 7, 3))
    report = tf_lap.cost(model)
    assert report.macs == 7 * 25
    assert not report.uncounted


def test_what_cannot_be_followed_is_said_and_its_weights_count():
    model = Untraceable()
    model(np.zeros((1, 3), np.float32))
    report = tf_lap.cost(model)
    assert (report.macs, report.weights, report.largest_activation) == (0, 32, None)
    assert set(report.uncounted) == {"hidden", "head"}
    assert "MACs not counted: hidden, head: its call cannot be followed" in " ".join(str(report).split())


def test_a_layer_that_the_model_does_not_call_multiplies_nothing():
    model = image_model(keras)
    model.unused = layers.Dense(3, name="unused")
    model.unused.build((None, 4))
    report = tf_lap.cost(model)
    last = report.layers[-1]
    assert (last.path, last.uses, last.weights, last.macs) == ("unused", 0, 15, 0)
    assert last.output_shape is None
    assert not report.uncounted


def test_a_layer_of_keras_without_a_rule_is_named():
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.Dense(2)(Opaque(name="opaque")(inputs)))
    report = tf_lap.cost(model)
    assert report.macs == 6 * 8
    assert set(report.uncounted) == {"opaque"}


class Opaque(layers.Layer):
    """Multiplies by a matrix of its own outside of what symbolic tensors can do."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")

    def compute_output_shape(self, shape):
        return shape

    def call(self, inputs):
        return keras.ops.convert_to_tensor(np.asarray(inputs) @ np.asarray(self.matrix))


def test_the_model_is_left_as_it_was():
    model = image_model(keras)
    nodes = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    tf_lap.cost(model)
    assert {layer.name: len(layer._inbound_nodes) for layer in model.layers} == nodes
    assert layers.Dense(1).name.startswith("dense")


def test_the_report_as_plain_data_and_in_words():
    report = tf_lap.cost(image_model(keras))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["macs"] == report.macs == 64 * 162 + 12
    assert plain["largest_activation"] == {"path": "conv", "shape": [1, 8, 8, 6], "dtype": "float32", "bytes": 1536}
    assert plain["layers"][0]["output_shape"] == [1, 8, 8, 6]
    assert repr(report) == "<CostReport: 206 weights, 186 of them not zero, 824 bytes, 10,380 multiply-accumulates>"


@pytest.mark.parametrize("kr", [keras, tf_keras])
def test_the_size_of_several_open_inputs_is_said_as_the_message_says(kr):
    left, right = (kr.Input((None, size), name=name) for name, size in (("left", 3), ("right", 4)))
    x = kr.layers.Concatenate()([kr.layers.Dense(5)(left), kr.layers.Dense(5)(right)])
    model = kr.Model([left, right], x)
    with pytest.raises(ValueError, match="Say their size") as error:
        tf_lap.cost(model)
    example = ast.literal_eval(str(error.value).partition("as with input_shape=")[2])
    assert example == {"left": (224, 3), "right": (224, 4)}
    assert tf_lap.cost(model, input_shape=example).macs == 224 * 5 * (3 + 4)
