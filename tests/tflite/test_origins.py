"""Tensors of a file are named after the layers that they come from."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import convolutions, equal_speed, export, perceptron  # noqa: F401  (one is a fixture)

import tf_lap
from tf_lap.tflite import file as tflite
from tf_lap.tflite.origins import Origins

FLAVOURS = pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("equal_speed")]


def names(model, tmp_path, **arguments):
    return {tensor.name: tensor for tensor in export(model, tmp_path / "m.tflite", **arguments).tensors}


@pytest.mark.skipif(
    tf.__version__.startswith(("2.17.", "2.18.")),
    reason="converters before 2.19 give some constants names of their own",
)
@FLAVOURS
@pytest.mark.parametrize("quantization", [None, "float16", "dynamic_range", "int8"], ids=str)
def test_tensors_are_named_by_layer_paths(tmp_path, flavour, quantization):
    flavour = pytest.importorskip(flavour)
    for model in (perceptron(flavour), convolutions(flavour)):
        layers = [layer for layer in model.layers if any(len(weight.shape) > 1 for weight in layer.weights)]
        assert set(names(model, tmp_path, quantization=quantization)) == {layer.name for layer in layers}


@FLAVOURS
def test_nested_and_shared_layers_are_told_from_names_that_look_alike(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    dense = flavour.layers.Dense
    inner = flavour.Sequential([flavour.Input((4,)), dense(5, name="dense"), dense(4, name="dense_1")], name="inner")
    shared = dense(4, name="dense_2")
    inputs = flavour.Input((4,))
    twice = inner(inner(shared(shared(inputs))))
    model = flavour.Model(inputs, dense(3, name="dense_1")(dense(6, name="dense")(twice)))
    shapes = {name: tensor.shape for name, tensor in names(model, tmp_path).items()}
    assert shapes == {
        "inner/dense": (5, 4),
        "inner/dense_1": (4, 5),
        "dense_2": (4, 4),
        "dense": (6, 4),
        "dense_1": (3, 6),
    }


@FLAVOURS
def test_a_convolution_keeps_its_name_when_normalization_is_folded_in(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    layers = flavour.layers
    inputs = flavour.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs))
    model = flavour.Model(inputs, layers.ReLU()(x), name="net")
    model.get_layer("norm").gamma.assign([2.0, 3.0, 4.0, 5.0])
    assert list(names(model, tmp_path)) == ["conv"]


@pytest.mark.skipif(
    tf.__version__.startswith(("2.17.", "2.18.")),
    reason="converters before 2.19 give some constants names of their own",
)
def test_of_a_layer_with_several_matrices_each_is_told(tmp_path):
    inputs = keras.Input((6, 8))
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = keras.layers.LSTM(5, unroll=True, name="memory")(keras.layers.SeparableConv1D(8, 3, name="separable")(x))
    named = set(names(keras.Model(inputs, x), tmp_path))
    assert {"separable/depthwise_kernel", "separable/pointwise_kernel"} <= named
    assert {f"attention/{part}" for part in ("query", "key", "value", "attention_output")} <= named
    assert {"memory/lstm_cell/kernel", "memory/lstm_cell/recurrent_kernel"} <= named


def test_the_converters_name_stands_where_no_layer_is_told(tmp_path):
    inputs = keras.Input((4,))
    constant = keras.ops.convert_to_tensor(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.ops.matmul(inputs, constant)))
    report = export(model, tmp_path / "m.tflite")
    by_shape = {tensor.shape: tensor for tensor in report.tensors}
    assert by_shape[2, 3].name == "head"
    assert by_shape[2, 3].tensor != "head"
    other = by_shape[3, 4]
    assert other.name == other.tensor.partition(";")[0]
    kept = {weight.name for weight in tflite.read((tmp_path / "m.tflite").read_bytes()).weights}
    assert {tensor.tensor for tensor in report.tensors} == kept


def test_of_names_that_were_made_one_all_must_agree():
    readers = {"net/first/MatMul": "first", "net/head/MatMul": "head"}
    origins, values = Origins(readers, {}), np.ones((2, 2), np.float32)
    assert origins.find_path("net/first/MatMul;net/head/MatMul", values) is None
    assert origins.find_path("net/norm/Mul;net/head/MatMul", values) == "head"
    assert origins.find_path("net/head/MatMul12", values) == "head"
    assert origins.find_path("net/head/MatMul/inside", values) == "head"
    assert origins.find_path("net/other/MatMul", values) is None


@pytest.mark.parametrize("shape", [(6, 5), (3, 3, 4, 5)])
def test_values_tell_where_names_do_not_whatever_the_scale_of_each_output(shape):
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    stored = np.moveaxis(first, -1, 0)
    scale = 127 / np.abs(stored).max(axis=tuple(range(1, stored.ndim)), keepdims=True)
    origins = Origins({}, {"first": first, "second": second, "other": np.ones((5, 6))})
    for values in (stored, stored.astype(np.float16), np.round(stored * scale).astype(np.int8)):
        assert origins.find_path("arith.constant", values) == "first"
    assert origins.find_path("arith.constant", -stored) is None
    assert Origins({}, {"first": first, "copy": first}).find_path("arith.constant", stored) is None


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_tensor_that_has_the_name_of_the_output_is_told_by_its_values(tmp_path, quantization):
    layers = keras.layers
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, name="d0"), layers.Dense(64, name="d1")])
    tf_lap.prune(model, 0.9, pattern="block:1x16")
    assert set(names(model, tmp_path, quantization=quantization)) == {"d0", "d1"}
