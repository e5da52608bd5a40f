"""The cost of a model with fewer channels, reckoned, is that of the smaller model."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import tf_lap
from tf_lap.costs.channel_costs import find_channel_costs
from tf_lap.graph.coupling import find_coupling
from tf_lap.graph.resolver import resolve

FLAVOURS = pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])


def residual(flavour, stem=6, inner=8, expanded=10, head=7):
    layers = flavour.layers
    inputs = flavour.Input((9, 9, 3))
    x = layers.Conv2D(stem, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    y = layers.Conv2D(inner, 3, padding="same")(x)
    y = layers.Conv2D(stem, 1)(layers.ReLU()(y))
    x = layers.Add()([x, y])
    y = layers.Conv2D(expanded, 1)(x)
    y = layers.DepthwiseConv2D(3, strides=2, padding="same")(y)
    y = layers.BatchNormalization(scale=False)(y)
    y = layers.SeparableConv2D(5, 3, strides=2)(y)
    x = layers.Flatten()(layers.Concatenate()([y, layers.MaxPooling2D(4)(x)]))
    return flavour.Model(inputs, layers.Dense(2)(layers.Dense(head)(x)))


def sequences(flavour, first=6, second=5, heads=3):
    layers = flavour.layers
    inputs = flavour.Input((7, 4))
    x = layers.LSTM(first, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.GRU(second, return_sequences=True), merge_mode="sum")(x)
    x = layers.MultiHeadAttention(heads, 4)(x, x)
    return flavour.Model(inputs, layers.Dense(2)(x))


def costs_of(model):
    recipe = resolve(model)
    coupling = find_coupling(recipe)
    return recipe, coupling, find_channel_costs(model, recipe, coupling)


def same(cost, report):
    return tuple(cost) == (report.weights, report.bytes, report.macs)


@FLAVOURS
@pytest.mark.parametrize("build", [residual, sequences])
def test_with_all_channels_it_is_the_cost_of_the_model(flavour, build):
    model = build(flavour)
    *_, costs = costs_of(model)
    assert same(costs.total(np.ones(costs.count, bool)), tf_lap.cost(model))


@FLAVOURS
@pytest.mark.parametrize("widths", [(5, 8, 10, 7), (6, 3, 10, 7), (6, 8, 4, 7), (6, 8, 10, 1), (4, 2, 9, 3)])
def test_with_fewer_channels_it_is_the_cost_of_the_smaller_model(flavour, widths):
    model = residual(flavour)
    _, coupling, costs = costs_of(model)
    kernels = {"stem": 0, "inner": 1, "expanded": 3, "head": 7}
    kept = np.ones(costs.count, bool)
    for number, width in zip(kernels.values(), widths, strict=True):
        kept[coupling.kernel_outputs[number][width:]] = False
    assert same(costs.total(kept), tf_lap.cost(residual(flavour, *widths)))


@FLAVOURS
def test_recurrent_units_and_heads_go_with_all_they_have(flavour):
    _, coupling, costs = costs_of(sequences(flavour))
    kept = np.ones(costs.count, bool)
    kept[coupling.kernel_outputs[0][:2]] = False  # of the first two units
    kept[coupling.kernel_outputs[6][:4]] = False  # of the first head of queries
    assert same(costs.total(kept), tf_lap.cost(sequences(flavour, first=4, heads=2)))


@FLAVOURS
@pytest.mark.parametrize("build", [residual, sequences])
def test_what_a_class_saves_is_the_difference_that_its_removal_makes(flavour, build):
    _, _, costs = costs_of(build(flavour))
    rng = np.random.default_rng(0)
    kept = rng.random(costs.count) > 0.2
    before, savings = costs.total(kept), costs.savings(kept)
    for number in range(costs.count):
        without = kept.copy()
        without[number] = False
        difference = np.subtract(before, costs.total(without))
        assert np.allclose(difference, [column[number] for column in savings], atol=1)  # products are rounded


def test_open_axes_need_sizes():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same")(layers.Conv2D(6, 3, padding="same")(inputs))
    model = keras.Model(inputs, x)
    recipe = resolve(model)
    coupling = find_coupling(recipe)
    costs = find_channel_costs(model, recipe, coupling, 2, (8, 6, 3))
    assert same(costs.total(np.ones(costs.count, bool)), tf_lap.cost(model, 2, (8, 6, 3)))
    with pytest.raises(ValueError, match="input_shape="):
        find_channel_costs(model, recipe, coupling)
