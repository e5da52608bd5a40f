"""How often units are active, against plain NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import lookahead_mask
from relu_chains import data, relu_chain

import tf_lap
from tf_lap.graph.resolver import resolve
from tf_lap.scores.activity import measure_activity

layers = keras.layers


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
def test_activity_is_lap_act_of_the_authors(flavour, order):
    model = relu_chain(6, 12, 10, 4, flavour=pytest.importorskip(flavour))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.bias.assign(rng.standard_normal(layer.bias.shape))
    x = data((6,))
    weights, h = [], x.astype(np.float64)
    for layer in model.layers:
        kernel = layer.kernel.numpy().astype(np.float64)
        h = h @ kernel + layer.bias.numpy()
        rate = np.mean(h > 0, axis=0) if layer is not model.layers[-1] else np.ones(4)
        h = np.maximum(h, 0)
        weights.append(kernel * np.sqrt(rate))
    pruned, masks = [w.copy() for w in weights], {}
    kernels_in_order = reversed(range(3)) if order == "backward" else range(3)
    for i in kernels_in_order:
        masks[i] = lookahead_mask(pruned, i, round(weights[i].size * 0.4))
        if order != "simultaneous":
            pruned[i] = weights[i] * masks[i]
    pruner = tf_lap.Pruner(model, score="lookahead_activation", data=x, order=order, allocation="uniform")
    pruner.update(0.6)
    for i, mask in enumerate(pruner.masks.values()):
        np.testing.assert_array_equal(mask, masks[i])


def test_activity_of_convolutions_is_averaged_over_positions_behind_normalizations_sums_and_operators():
    inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="b")(layers.ReLU(name="first")(x)))
    joined = keras.ops.relu(layers.Add()([x, y]))
    shared = layers.Dense(4, activation="relu", name="shared")
    z = shared(shared(joined))
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.GlobalAveragePooling2D()(z)))
    x = data((5, 5, 3))
    recipe = resolve(model)
    measured = measure_activity(model, recipe, [[x[:30]], [x[30:]]])
    roots = dict(zip([kernel.path for kernel in recipe.kernels], measured, strict=True))

    def rate(tensor):
        active = np.mean(np.array(keras.Model(inputs, tensor)(x)) > 0, axis=0)
        return np.mean(np.sqrt(active), axis=(0, 1))

    np.testing.assert_allclose(roots["a"], rate(model.get_layer("first").output), rtol=1e-5)
    np.testing.assert_allclose(roots["b"], rate(joined), rtol=1e-5)
    both = [rate(shared._inbound_nodes[i].outputs[0]) for i in range(2)]
    np.testing.assert_allclose(roots["shared"], np.mean(both, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(roots["last"], [1, 1])
    assert "call" not in vars(model.get_layer("first"))


def activities(model, x):
    recipe = resolve(model)
    measured = measure_activity(model, recipe, [[x]])
    return dict(zip([kernel.path for kernel in recipe.kernels], measured, strict=True))


def test_operators_of_tf_keras_are_told_apart_and_left_as_they_were():
    legacy = pytest.importorskip("tf_keras")
    inputs = legacy.Input((6,))
    a, b = legacy.layers.Dense(5, name="a")(inputs), legacy.layers.Dense(5, name="b")(inputs)
    x = legacy.layers.Dense(5, name="c")(a + b)
    x = legacy.layers.Dense(4, name="d")(tf.nn.relu(features=x) * 0.5)
    model = legacy.Model(inputs, x)
    x = data((6,))
    before = model(x).numpy()
    roots = activities(model, x)
    np.testing.assert_array_equal(model(x), before)
    for name in ("a", "b", "d"):
        np.testing.assert_array_equal(roots[name], np.ones(len(roots[name])))
    hidden = legacy.Model(inputs, model.get_layer("c").output)(x).numpy()
    np.testing.assert_allclose(roots["c"], np.sqrt(np.mean(hidden > 0, axis=0)), rtol=1e-5)
    tf_lap.prune(model, 0.5, score="obd", data=x)
    after = model(x).numpy()
    tf_lap.prune(model, 0.5, score="lookahead_activation", data=x)
    assert np.abs(model(x) - after).max() < np.abs(after).max()


def test_each_call_of_a_shared_activation_counts_for_its_own_kernel():
    inputs, relu = keras.Input((6,)), layers.ReLU()
    wide = layers.Dense(7, name="wide", bias_initializer=keras.initializers.Constant(100.0))
    x = relu(layers.Dense(4, name="low", bias_initializer=keras.initializers.Constant(-1e4))(relu(wide(inputs))))
    roots = activities(keras.Model(inputs, layers.Dense(2, name="last")(x)), data((6,)))
    np.testing.assert_array_equal(roots["wide"], np.ones(7))
    np.testing.assert_array_equal(roots["low"], np.zeros(4))


@pytest.mark.parametrize("behind", ["linear", "leaky", "none"])
def test_what_is_no_activation_and_what_is_one(behind):
    inputs = keras.Input((6,))
    activation = layers.LeakyReLU() if behind == "leaky" else None
    x = layers.Dense(5, name="a", activation=activation)(inputs)
    x = layers.Activation("linear")(x) if behind == "linear" else x
    roots = activities(keras.Model(inputs, layers.Dense(2)(x)), data((6,)))
    assert np.all(roots["a"].numpy() == 1) == (behind != "leaky")


def joined():
    inputs = keras.Input((6,))
    x = layers.Concatenate()([layers.Dense(4, name="a")(inputs), layers.Dense(7, name="b")(inputs)])
    return keras.Model(inputs, layers.Dense(2)(layers.ReLU()(x)))


def subclassed():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(5, name="a"), layers.Dense(2, name="b")

        def call(self, x):
            return self.b(keras.ops.relu(self.a(x)))

    model = Network()
    model(np.ones((1, 6), np.float32))
    return model


@pytest.mark.parametrize("make", [joined, subclassed])
def test_what_cannot_be_measured_counts_as_always_active_and_is_told(make):
    model = make()
    with pytest.warns(UserWarning, match="units of layer .* are active cannot be measured"):
        roots = activities(model, data((6,)))
    np.testing.assert_array_equal(roots["a"], np.ones(roots["a"].shape))
