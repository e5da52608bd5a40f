"""Repair over data: weights are those of `numpy.linalg.lstsq` on the same rows, layer after layer."""

import keras
import numpy as np
import pytest
from repaired import (
    check_least_squares,
    loss_without_repair,
    measure_loss,
    prune_and_repair,
    samples,
    weights_by_path,
)

from tf_lap.moments import rows
from tf_lap.reconstruction import repairer, solver


def perceptron(flavour, **options):
    dense = flavour.layers.Dense
    hidden = [dense(width, "relu", name=name, **options) for name, width in (("a", 9), ("b", 8))]
    return flavour.Sequential([flavour.Input((6,), dtype="float64"), *hidden, dense(5, name="c", **options)])


def convolutions(flavour, **options):
    """With strides, dilation and padding."""
    conv = flavour.layers.Conv2D
    shapes = {
        "a": {"filters": 6, "kernel_size": 3},
        "b": {"filters": 4, "kernel_size": (2, 3), "strides": 2, "padding": "same"},
        "c": {"filters": 4, "kernel_size": 2, "dilation_rate": 2, "padding": "same"},
    }
    stack = [conv(name=name, activation="relu", **shape, **options) for name, shape in shapes.items()]
    head = [flavour.layers.Flatten(dtype="float64"), flavour.layers.Dense(3, name="d", **options)]
    return flavour.Sequential([flavour.Input((7, 6, 4), dtype="float64"), *stack, *head])


def grouped(flavour, **options):
    inputs = flavour.Input((5, 4), dtype="float64")
    return flavour.Model(inputs, flavour.layers.Conv1D(6, 3, groups=2, name="a", **options)(inputs))


def einsum(flavour, **options):
    """Kernels of several input and output axes, and of groups."""
    dense = flavour.layers.EinsumDense
    inputs = flavour.Input((3, 5), dtype="float64")
    bias = {"bias_axes": "de"} if options.get("use_bias", True) else {}
    x = dense("abc,cde->abde", (3, 2, 4), activation="tanh", name="a", dtype="float64", **bias)(inputs)
    x = dense("abcd,cde->abe", (3, 6), name="b", dtype="float64", **({"bias_axes": "e"} if bias else {}))(x)
    x = dense("abc,bcd->abd", (3, 4), name="c", dtype="float64", **({"bias_axes": "bd"} if bias else {}))(x)
    return flavour.Model(inputs, x)


def attention(flavour, **options):
    inputs = flavour.Input((4, 6), dtype="float64")
    layer = flavour.layers.MultiHeadAttention(2, 3, name="a", **options)
    return flavour.Model(inputs, layer(inputs, inputs))


def recurrent(flavour, **options):
    inputs = flavour.Input((4, 6), dtype="float64")
    return flavour.Model(inputs, flavour.layers.LSTM(5, name="a", **options)(inputs))


def depthwise(flavour, **options):
    inputs = flavour.Input((7, 6, 4), dtype="float64")
    x = flavour.layers.DepthwiseConv2D(3, depth_multiplier=2, name="a", **options)(inputs)
    return flavour.Model(inputs, flavour.layers.Conv2D(3, 1, name="b", **options)(x))


MODELS = {
    perceptron: (("a", "b", "c"), (6,)),
    convolutions: (("a", "b", "c", "d"), (7, 6, 4)),
    grouped: (("a",), (5, 4)),
    einsum: (("a", "b", "c"), (3, 5)),
    attention: (("a/query", "a/key", "a/value", "a/attention_output"), (4, 6)),
    recurrent: (("a/kernel",), (4, 6)),
    depthwise: (("a", "b"), (7, 6, 4)),
}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_weights_are_those_of_least_squares(make, flavour):
    paths, shape = MODELS[make]
    model = make(pytest.importorskip(flavour), dtype="float64", use_bias=False)
    x = samples(shape)
    dense, report = prune_and_repair(model, x, "weights", filters="[a-d](/.*)?")
    assert [layer.path for layer in report.repaired] == list(paths)
    check_least_squares(model, dense, [x.astype(np.float64)], paths, has_shift=False)
    assert list(report.left_by_reason().values()) == ([["a/recurrent_kernel"]] if make is recurrent else [])


@pytest.mark.parametrize("make", [m for m in MODELS if m is not recurrent], ids=lambda make: make.__name__)
def test_weights_and_biases_are_those_of_least_squares_with_an_intercept(make):
    paths, shape = MODELS[make]
    model = make(keras, dtype="float64", bias_initializer="random_normal", use_bias=True)
    x = samples(shape)
    dense, report = prune_and_repair(model, x, ["weights", "bias"], filters="[a-d](/.*)?")
    assert len(report.repaired) == len(paths)
    check_least_squares(model, dense, [x.astype(np.float64)], paths, has_shift=True)


@pytest.mark.parametrize("methods", ["weights", "bias", ["weights", "bias"]], ids=str)
def test_the_report_has_what_the_layers_themselves_lose(methods):
    options = {"dtype": "float64", "activation": "tanh", "bias_initializer": "random_normal"}
    model = keras.Sequential(
        [keras.Input((6,), dtype="float64"), *(keras.layers.Dense(7, name=name, **options) for name in "abc")]
    )
    x = samples((6,))
    dense, report = prune_and_repair(model, x, methods)
    assert [layer.path for layer in report.layers] == ["a", "b", "c"]
    for layer in report.layers:
        assert layer.after < layer.before
        np.testing.assert_allclose(layer.after, measure_loss(model, dense, [x], layer.path), rtol=1e-6)
        np.testing.assert_allclose(layer.before, loss_without_repair(model, dense, [x], layer.path), rtol=1e-6)
    assert report.samples == len(x)


def test_kernels_that_read_very_much_are_left(monkeypatch):
    monkeypatch.setattr(repairer, "_MAX_ROW_SIZE", 8)
    model = perceptron(keras)
    dense, report = prune_and_repair(model, samples((6,)), True)
    assert [layer.path for layer in report.repaired] == ["a", "c"]
    reason = "it reads 9 numbers at each position, more than 8: their second moment would take 0.0 GB"
    assert report.left_by_reason() == {reason: ["b"]}
    found, before = weights_by_path(model)["b"], weights_by_path(dense)["b"]
    np.testing.assert_array_equal(found, before * (found != 0))


def test_rows_are_read_in_parts_and_systems_solved_in_parts(monkeypatch):
    x, kernels = samples((7, 6, 4)), []
    for numbers in (None, 5000):
        if numbers:
            monkeypatch.setattr(rows, "_MAX_NUMBERS", numbers)
            monkeypatch.setattr(solver, "_MAX_NUMBERS", numbers)
        keras.utils.set_random_seed(1)
        model = convolutions(keras)
        prune_and_repair(model, x, True)
        kernels.append(weights_by_path(model))
    for path, kernel in kernels[0].items():
        np.testing.assert_allclose(kernels[1][path], kernel, rtol=1e-3, atol=1e-4)
