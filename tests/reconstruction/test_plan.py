"""Where a shift of a kernel's outputs goes: the bias, or the mean of the normalization right behind."""

import keras
import pytest

from tf_lap.graph.resolver import resolve
from tf_lap.reconstruction.plan import plan_kernels

layers = keras.layers


def plan(model, path="a"):
    recipe = resolve(model)
    (number,) = (number for number, kernel in enumerate(recipe.kernels) if kernel.path == path)
    return plan_kernels(recipe, [number])[0][number]


def behind(layer, shape, *more, flavour=keras):
    return flavour.Sequential([flavour.Input(shape), layer, *more])


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_shift_goes_into_the_bias(flavour):
    flavour = pytest.importorskip(flavour)
    dense = flavour.layers.Dense(4, name="a")
    normalization = flavour.layers.BatchNormalization()
    found = plan(behind(dense, (3,), normalization, flavour=flavour))
    assert found.shift is found.bias is dense.bias
    assert found.shift_sign == 1
    assert found.normalization is normalization


KERNELS = {
    "Dense": ({"units": 4}, (3,)),
    "Conv2D": ({"filters": 4, "kernel_size": 2}, (5, 5, 3)),
    "DepthwiseConv2D": ({"kernel_size": 2}, (5, 5, 3)),
}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("kind", KERNELS)
def test_without_a_bias_it_goes_into_the_mean_that_is_subtracted(kind, flavour):
    flavour = pytest.importorskip(flavour)
    options, shape = KERNELS[kind]
    normalization = flavour.layers.BatchNormalization()
    layer = getattr(flavour.layers, kind)(name="a", use_bias=False, **options)
    found = plan(behind(layer, shape, normalization, flavour.layers.ReLU(), flavour=flavour))
    assert found.bias is None
    assert found.shift is normalization.moving_mean
    assert found.shift_sign == -1


def test_kernels_to_whose_outputs_nothing_is_added_are_left_where_no_weights_are_fitted():
    recipe = resolve(behind(layers.Dense(4, name="a", use_bias=False), (3,)))
    assert plan_kernels(recipe, [0]) == ({0: plan_kernels(recipe, [0])[0][0]}, {})
    reason = "nothing is added to its outputs that could make up for their means"
    assert plan_kernels(recipe, [0], fits_weights=False) == ({}, {0: reason})


def shared():
    normalization = layers.BatchNormalization()
    inputs = keras.Input((3,))
    x = normalization(layers.Dense(4, name="a", use_bias=False)(inputs))
    return keras.Model(inputs, normalization(x))


def called_twice():
    inputs, dense = keras.Input((3,)), layers.Dense(3, name="a", use_bias=False)
    return keras.Model(inputs, layers.BatchNormalization()(dense(dense(inputs))))


def read_twice():
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="a", use_bias=False)(inputs)
    return keras.Model(inputs, layers.Add()([x, layers.BatchNormalization()(x)]))


def put_out():
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="a", use_bias=False)(inputs)
    return keras.Model(inputs, [x, layers.BatchNormalization()(x)])


def multiplied():
    inputs = keras.Input((5, 3))
    x = layers.Dense(4, name="a", use_bias=False)(inputs)
    scores = keras.ops.einsum("btd,bsd->bts", x, x)
    return keras.Model(inputs, [layers.BatchNormalization()(x), scores])


def activated():
    return behind(layers.Dense(4, "relu", name="a", use_bias=False), (3,), layers.BatchNormalization())


def on_another_axis():
    return behind(layers.Dense(4, name="a", use_bias=False), (4, 3), layers.BatchNormalization(axis=1))


def not_right_behind():
    return behind(layers.Dense(4, name="a", use_bias=False), (3,), layers.ReLU(), layers.BatchNormalization())


@pytest.mark.parametrize(
    "make",
    [shared, called_twice, read_twice, put_out, multiplied, activated, on_another_axis, not_right_behind],
    ids=lambda make: make.__name__,
)
def test_where_the_mean_is_not_that_of_the_kernels_outputs_alone_there_is_no_shift(make):
    found = plan(make())
    assert found.shift is None
    assert found.normalization is None


@pytest.mark.parametrize(
    ("equation", "output", "bias", "is_in_order"),
    [
        ("abc,cde->abde", (3, 4, 2), "de", True),
        ("abc,cde->abed", (3, 2, 4), "ed", False),
        ("abc,cde->abde", (3, 4, 2), "e", False),
        ("abc,cd->abd", (3, 3), "b", False),  # as many numbers as outputs, one for each position
        ("abc,bcd->abd", (3, 4), "bd", True),
        ("abc,cbd->adb", (4, 3), "db", False),
    ],
)
def test_biases_of_other_axes_or_in_another_order_are_left(equation, output, bias, is_in_order):
    layer = layers.EinsumDense(equation, output, bias_axes=bias, name="a")
    found = plan(behind(layer, (3, 5)))
    assert found.bias is (layer.bias if is_in_order else None)
