"""The family of lookahead scores: how far, and on which sides, against plain products of squared matrices."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import chain, kernels

import tf_lap
from tf_lap.energy import far_sweep, kernel_norms, sweep
from tf_lap.graph import resolve

layers = keras.layers


def scores_of(model, score):
    """The scores of all kernels, by path."""
    found = {}

    class Spy(type(score)):
        def score(self, kernel, weights, incoming, outgoing):
            found[kernel.path] = super().score(kernel, weights, incoming, outgoing).numpy()
            return found[kernel.path]

    tf_lap.Pruner(model, score=Spy(**score.get_config())).update(0.0)
    return found


def same_up_to_scale(ours, expected):
    for path, score in ours.items():
        np.testing.assert_allclose(score / score.max(), expected[path] / expected[path].max(), rtol=2e-4, err_msg=path)


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, padding="same", groups=2, name="b")(x))
    y = layers.Conv2D(6, 1, name="c")(layers.DepthwiseConv2D(3, padding="same", name="d")(y))
    x = layers.Add()([x, y])
    shared = layers.Conv2D(6, 1, name="shared")
    x = shared(layers.ReLU()(shared(x)))
    x = layers.Conv2DTranspose(4, 2, name="e")(x)
    outputs = [layers.Dense(5, name="f")(layers.GlobalAveragePooling2D()(x)), layers.Conv2D(2, 1, name="g")(y)]
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    model.get_layer("norm").gamma.assign(rng.gamma(2.0, 1.0, 6))
    return model


@pytest.mark.parametrize("make", [lambda: chain(6, 8, 7, 9, 5), residual])
def test_distance_0_is_magnitude_and_distance_1_is_lookahead(make):
    for distance, name in ((0, "magnitude"), (1, "lookahead")):
        masks = []
        for score in (name, tf_lap.scores.Lookahead(distance=distance)):
            keras.utils.set_random_seed(3)
            pruner = tf_lap.Pruner(make(), score=score)
            pruner.update(0.7)
            masks.append(pruner.masks)
        for path, mask in masks[0].items():
            np.testing.assert_array_equal(mask, masks[1][path])
    model = make()
    recipe = resolve(model)
    weights = [tf.convert_to_tensor(kernel.variable) for kernel in recipe.kernels]
    for ours, expected in zip(far_sweep(recipe, weights, 1), sweep(recipe, kernel_norms(recipe)), strict=True):
        for side, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(side, other, rtol=1e-5)


@pytest.mark.parametrize("distance", [2, 3, 4, 7, None])
@pytest.mark.parametrize("look", ["back", "ahead", "both"])
def test_in_a_chain_it_is_the_product_of_squared_matrices(distance, look):
    model = chain(6, 8, 7, 9, 5, 4)
    squares = {path: kernel.astype(np.float64) ** 2 for path, kernel in kernels(model).items()}
    names = list(squares)
    expected = {}
    for i, name in enumerate(names):
        before = names[:i] if distance is None else names[max(0, i - distance) : i]
        behind = names[i + 1 :] if distance is None else names[i + 1 : i + 1 + distance]
        incoming, outgoing = np.ones(squares[name].shape[0]), np.ones(squares[name].shape[1])
        if before and look != "ahead":
            incoming = np.ones(squares[before[0]].shape[0])
            for other in before:
                incoming = incoming @ squares[other]
        if behind and look != "back":
            outgoing = np.ones(squares[behind[-1]].shape[1])
            for other in reversed(behind):
                outgoing = squares[other] @ outgoing
        expected[name] = np.sqrt(squares[name] * np.outer(incoming, outgoing))
    ours = scores_of(model, tf_lap.scores.Lookahead(distance=distance, look=look))
    same_up_to_scale(ours, expected)


def squared(model):
    """The network with its weights squared, and without what is not linear."""
    linear = keras.models.clone_model(
        model, clone_function=lambda layer: layers.Identity(name=layer.name) if "relu" in layer.name else copy(layer)
    )
    for ours, theirs in zip(linear.layers, model.layers, strict=True):
        if isinstance(ours, layers.BatchNormalization):
            scale = theirs.gamma.numpy() ** 2 / (theirs.moving_variance.numpy() + theirs.epsilon)
            ours.set_weights([scale * np.sqrt(1 + ours.epsilon), np.zeros(6), np.zeros(6), np.ones(6)])
        else:
            ours.set_weights([w**2 if w.ndim > 1 else 0 * w for w in theirs.get_weights()])
    return linear


def copy(layer):
    return type(layer).from_config(layer.get_config())


def test_the_whole_path_is_the_gradient_of_squared_weights():
    """A second method: autodiff of the network itself, squared, where every kernel is 1 by 1 or a matrix."""
    inputs = keras.Input((1, 1, 3))
    x = layers.Conv2D(6, 1, name="a")(inputs)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 1, groups=2, name="b")(x))
    y = layers.Conv2D(6, 1, name="c")(layers.ReLU(name="relu")(layers.DepthwiseConv2D(1, name="d")(y)))
    x = layers.Add(name="add")([x, y])
    shared = layers.Conv2D(6, 1, name="shared")
    x = shared(layers.ReLU(name="relu_again")(shared(x)))
    flat = layers.Flatten(name="flat")(layers.Conv2DTranspose(4, 1, name="e")(x))
    model = keras.Model(inputs, [layers.Dense(5, name="f")(flat), layers.Conv2D(2, 1, name="g")(y)])
    model.get_layer("norm").gamma.assign(np.random.default_rng(0).gamma(2.0, 1.0, 6))
    linear = squared(model)
    ours = scores_of(model, tf_lap.scores.Lookahead(distance=None))
    variables = [linear.get_layer(name).kernel.value for name in ours]
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(out) for out in linear(np.ones((1, 1, 1, 3), np.float32))])
    gradients = tape.gradient(total, variables)
    expected = {n: np.sqrt(v.numpy() * g.numpy()) for n, v, g in zip(ours, variables, gradients, strict=True)}
    same_up_to_scale(ours, expected)


def test_through_many_layers_nothing_overflows():
    model = chain(8, *[8] * 120)
    for layer, scale in zip(model.layers, itertools.cycle((50.0, 30.0)), strict=False):
        layer.kernel.assign(scale * np.abs(layer.kernel.numpy()) + scale)
    for score in scores_of(model, tf_lap.scores.Lookahead(distance=None)).values():
        assert np.isfinite(score).all()
        assert score.max() > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"distance": -1}, ValueError, "distance=-1: expected a whole number of at least 0, or None"),
        ({"distance": 1.5}, TypeError, "distance=1.5"),
        ({"distance": True}, TypeError, "distance=True"),
        ({"look": "aside"}, ValueError, "look='aside': use 'back', 'ahead' or 'both'"),
    ],
)
def test_other_distances_and_sides_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tf_lap.scores.Lookahead(**arguments)
