"""Statistics of batch normalizations are those of what they read in the repaired model."""

import keras
import numpy as np
import pytest
from observed import record_inputs
from repaired import array, prune_and_repair, samples

import tf_lap
from tf_lap.reconstruction.normalizations import find_normalizations

layers = keras.layers


def residual(flavour=keras):
    """Normalizations right behind pruned kernels, behind a depthwise one, behind a sum, and in front of a kernel."""
    conv, normalize = flavour.layers.Conv2D, flavour.layers.BatchNormalization
    inputs = flavour.Input((6, 5, 4))
    x = normalize(name="input")(inputs)
    x = normalize(name="first")(conv(6, 3, name="a", use_bias=False)(x))
    x = flavour.layers.ReLU()(x)
    y = normalize(name="filters")(flavour.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    y = normalize(name="second")(conv(6, 1, name="b")(y))
    x = normalize(name="sum", scale=False)(flavour.layers.Add()([x, y]))
    x = flavour.layers.GlobalAveragePooling2D()(flavour.layers.ReLU()(x))
    return flavour.Model(inputs, normalize(name="last")(flavour.layers.Dense(3, name="c")(x)))


def check_statistics(model, data):
    """All statistics are those of the data."""
    normalizations = find_normalizations(model)
    for layer in normalizations:
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        calls = record_inputs(model, layer, [data])
        rows = np.concatenate([np.moveaxis(call, axis, -1).reshape(-1, call.shape[axis]) for call in calls])
        np.testing.assert_allclose(array(layer.moving_mean), rows.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(array(layer.moving_variance), rows.var(axis=0), rtol=1e-4, atol=1e-5)
    return len(normalizations)


@pytest.mark.parametrize("methods", ["batchnorm", ["weights", "batchnorm"], True], ids=str)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_statistics_are_those_of_the_data(flavour, methods):
    model = residual(pytest.importorskip(flavour))
    x = samples((6, 5, 4))
    dense, report = prune_and_repair(model, x, methods)
    assert report.normalizations == check_statistics(model, [x]) == 6
    assert [layer.path for layer in report.layers] == ([] if methods == "batchnorm" else ["a", "b", "c"])
    for now, before in zip(find_normalizations(model), find_normalizations(dense), strict=True):
        for name in ("gamma", "beta"):
            if getattr(now, name) is not None:
                np.testing.assert_array_equal(array(getattr(now, name)), array(getattr(before, name)))


@pytest.mark.parametrize("methods", ["batchnorm", "weights", True], ids=str)
def test_kernels_without_zeros_are_not_touched(methods):
    model = residual()
    x = samples((6, 5, 4))
    before = [array(variable) for variable in model.trainable_variables]
    report = tf_lap.prune(model, 0.0, repair=methods, data=x).repair
    assert not report.repaired
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(array(variable), value)
    if methods != "weights":
        assert check_statistics(model, [x]) == 6


class Reversed(keras.Model):
    """Layers are called in another order than they are made in."""

    def __init__(self):
        super().__init__()
        self.second, self.first = layers.BatchNormalization(), layers.BatchNormalization()
        self.head, self.inner = layers.Dense(3), keras.Sequential([layers.Dense(5), layers.BatchNormalization()])
        self.unused = layers.BatchNormalization()
        self.unused.build((None, 4))

    def call(self, x):
        return self.second(self.head(keras.ops.relu(self.inner(self.first(x)))))


def test_normalizations_are_measured_in_the_order_of_their_calls():
    model = Reversed()
    x = samples((4,))
    model(x)
    report = tf_lap.repair(model, x)
    assert report.summary == "repaired with 40 samples: statistics of 3 normalizations"
    unused, model.unused = model.unused, None
    np.testing.assert_array_equal(array(unused.moving_mean), np.zeros(4))
    for layer in (model.first, model.inner.layers[1], model.second):
        rows = np.concatenate(record_inputs(model, layer, [[x]]))
        np.testing.assert_allclose(array(layer.moving_mean), rows.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(array(layer.moving_variance), rows.var(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [[1], [1, 3]], ids=str)
def test_statistics_of_other_axes(axes):
    tf_keras = pytest.importorskip("tf_keras")
    normalization = tf_keras.layers.BatchNormalization(axis=axes)
    conv = tf_keras.layers.Conv2D(2, 1, name="a")
    model = tf_keras.Sequential([tf_keras.Input((4, 3, 2)), conv, normalization])
    x = samples((4, 3, 2))
    assert tf_lap.repair(model, x).normalizations == 1
    outputs = record_inputs(model, normalization, [[x]])[0]
    others = tuple(axis for axis in range(4) if axis not in axes)
    for variable, expected in (
        (normalization.moving_mean, outputs.mean(axis=others)),
        (normalization.moving_variance, outputs.var(axis=others)),
    ):
        np.testing.assert_allclose(array(variable).reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
