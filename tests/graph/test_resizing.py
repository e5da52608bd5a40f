"""Layers whose number of channels is a setting are made anew with other numbers; the others say why they cannot be."""

import keras
import numpy as np
import pytest
import tf_keras

from tf_lap.graph.resizing import Resized, find_obstacle, find_settings

KERASES = pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras3", "tf_keras"])


def built(kr, layer, shape):
    tensor = kr.Input(shape)
    layer(tensor)
    return layer


def remade(layer, shape_of, output=()):
    return find_settings(layer, Resized(shape_of, output))


@KERASES
@pytest.mark.parametrize(
    ("make", "shape", "kernel", "settings"),
    [
        (lambda kr: kr.layers.Dense(6), (4,), (3, 5), {"units": 5}),
        (lambda kr: kr.layers.Conv2D(6, 3), (8, 8, 4), (3, 3, 2, 5), {"filters": 5}),
        (lambda kr: kr.layers.Conv2D(6, 3, groups=2), (8, 8, 4), (3, 3, 2, 3), {"filters": 3, "groups": 1}),
        (lambda kr: kr.layers.Conv1DTranspose(6, 3), (8, 4), (3, 5, 2), {"filters": 5}),
        (lambda kr: kr.layers.EinsumDense("abc,cd->abd", (None, 6)), (7, 4), (4, 5), {"output_shape": (None, 5)}),
        (
            lambda kr: kr.layers.EinsumDense("abc,cde->abde", (None, 2, 3)),
            (7, 4),
            (4, 1, 3),
            {"output_shape": (None, 1, 3)},
        ),
    ],
)
def test_settings_are_those_of_the_kernel(kr, make, shape, kernel, settings):
    layer = built(kr, make(kr), shape)
    assert find_obstacle(layer) is None
    assert remade(layer, lambda variable: kernel) == settings


@KERASES
def test_recurrent_layers_have_the_units_that_their_recurrent_kernel_reads(kr):
    cells = kr.layers.RNN([kr.layers.LSTMCell(4), kr.layers.GRUCell(5)])
    narrow = kr.layers.Bidirectional(kr.layers.LSTM(4))
    for layer in (cells, narrow):
        built(kr, layer, (7, 3))
        assert find_obstacle(layer) is None

    def half(variable):
        return tuple(size // 2 for size in variable.shape)

    assert remade(cells, half) == {"cell": {"cells": [{"units": 2}, {"units": 2}]}}
    both = {"layer": {"units": 2}, "backward_layer": {"units": 2}}
    assert remade(narrow, half) in (both, {"layer": {"units": 2}})  # tf_keras makes the one from the other
    is_forward = {id(variable): True for variable in narrow.forward_layer.weights}
    assert remade(narrow, lambda v: half(v) if id(v) in is_forward else tuple(v.shape)) == {
        "layer": {"units": 2},
        "backward_layer": {"units": 4},
    }


@KERASES
def test_a_reshape_takes_the_sizes_of_its_output(kr):
    layer = built(kr, kr.layers.Reshape((2, -1, 4)), (6, 4))
    assert find_obstacle(layer) is None
    assert remade(layer, None, (None, 2, 3, 1)) == {"target_shape": (2, -1, 1)}


@KERASES
def test_attention_loses_heads(kr):
    layer = kr.layers.MultiHeadAttention(4, 3)
    tensor = kr.Input((5, 8))
    layer(tensor, tensor)
    assert find_obstacle(layer) is None
    shapes = {"query": (8, 2, 3), "attention_output": (2, 3, 6)}
    names = {id(inner.kernel): inner.name for inner in layer._flatten_layers(False) if hasattr(inner, "kernel")}
    settings = remade(layer, lambda variable: shapes[names[id(variable)]])
    assert settings["num_heads"] == 2
    assert np.ravel(settings["output_shape"]) == [6]


@KERASES
def test_what_is_no_setting_is_an_obstacle(kr):
    class Fixed(kr.layers.Dense):
        def __init__(self, **kwargs):
            super().__init__(6)

        def get_config(self):
            return {}

    class Scale(kr.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    class Standardized(kr.layers.Dense):
        def call(self, x):
            return super().call(x) * 2.0

    assert "does not hold its units" in find_obstacle(built(kr, Fixed(), (4,)))
    assert "a call of its own" in find_obstacle(built(kr, Standardized(6), (4,)))
    assert "custom layer with weights" in find_obstacle(built(kr, Scale(), (4,)))
    assert "a number for each channel" in find_obstacle(built(kr, kr.layers.Rescaling([1.0, 2.0]), (2,)))
    assert "a number for each channel" in find_obstacle(kr.layers.Normalization(mean=[1.0, 2.0], variance=[1.0, 2.0]))


@KERASES
def test_layers_that_follow_their_input_have_no_obstacle(kr):
    for layer in (kr.layers.BatchNormalization(), kr.layers.PReLU(), kr.layers.ReLU(), kr.layers.Rescaling(2.0)):
        assert find_obstacle(built(kr, layer, (4,))) is None
        assert remade(layer, None) == {}
