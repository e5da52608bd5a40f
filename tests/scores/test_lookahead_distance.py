"""The family of lookahead scores: how far, and on which sides, against plain products of squared matrices."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import chain, kernels

import tf_lap
from tf_lap.graph.energy import far_sweep, measure_kernels, sweep
from tf_lap.graph.resolver import resolve

layers = keras.layers


def scores_of(model, score):
    """The scores of all kernels, by path."""
    scores = {}

    class Spy(type(score)):
        def score(self, kernel, weights, incoming, outgoing):
            scores[kernel.path] = super().score(kernel, weights, incoming, outgoing).numpy()
            return scores[kernel.path]

    tf_lap.Pruner(model, score=Spy(**score.get_config())).update(0.0)
    return scores


def assert_same_up_to_scale(scores, expected):
    for path, score in scores.items():
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
    model = make()
    magnitude, lookahead = (scores_of(model, tf_lap.scores.Lookahead(distance=distance)) for distance in (0, 1))
    energies = tf_lap.channel_energies(model)
    for path, score in magnitude.items():
        np.testing.assert_array_equal(score, np.abs(model.get_layer(path).kernel.numpy()))
        if energies[path].incoming.ndim == 1 and path not in (
            "b",
            "e",
        ):  # groups and swapped axes: see the test on a graph
            gain = np.sqrt(np.outer(energies[path].incoming, energies[path].outgoing))
            np.testing.assert_allclose(lookahead[path], score * gain, rtol=1e-5)
    recipe = resolve(model)
    weights = [tf.convert_to_tensor(kernel.variable) for kernel in recipe.kernels]
    for far, near in zip(far_sweep(recipe, weights, 1), sweep(recipe, measure_kernels(recipe)), strict=True):
        for side, other in zip(far, near, strict=True):
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
    scores = scores_of(model, tf_lap.scores.Lookahead(distance=distance, look=look))
    assert_same_up_to_scale(scores, expected)


def squared(model):
    """The network with its weights squared, and without what is not linear."""
    linear = keras.models.clone_model(
        model, clone_function=lambda layer: layers.Identity(name=layer.name) if "relu" in layer.name else copy(layer)
    )
    for copied, layer in zip(linear.layers, model.layers, strict=True):
        if isinstance(copied, layers.BatchNormalization):
            scale = layer.gamma.numpy() ** 2 / (layer.moving_variance.numpy() + layer.epsilon)
            copied.set_weights([scale * np.sqrt(1 + copied.epsilon), np.zeros(6), np.zeros(6), np.ones(6)])
        else:
            copied.set_weights([w**2 if w.ndim > 1 else 0 * w for w in layer.get_weights()])
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
    scores = scores_of(model, tf_lap.scores.Lookahead(distance=None))
    variables = [linear.get_layer(name).kernel.value for name in scores]
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(out) for out in linear(np.ones((1, 1, 1, 3), np.float32))])
    gradients = tape.gradient(total, variables)
    expected = {n: np.sqrt(v.numpy() * g.numpy()) for n, v, g in zip(scores, variables, gradients, strict=True)}
    assert_same_up_to_scale(scores, expected)


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


def test_neighbours_of_ones_own_go_with_the_next_kernels_alone():
    model = chain(4, 5, 6)
    with pytest.raises(ValueError, match="looks beyond them: use distance=1"):
        tf_lap.Pruner(model, score=tf_lap.scores.Lookahead(distance=None), neighbors={"dense_0": ([], ["dense_1"])})


@pytest.mark.parametrize("distance", [2, 3])
def test_on_a_graph_it_is_the_flow_of_squares_from_kernels_so_far_away(distance):
    """Groups, branches, sums and depthwise kernels: energies computed by hand, one kernel after another."""
    inputs = keras.Input((1, 1, 4))
    a = layers.Conv2D(6, 1, name="a")(inputs)
    b = layers.Conv2D(6, 1, groups=2, name="b")(a)
    c = layers.Conv2DTranspose(6, 1, name="c")(layers.DepthwiseConv2D(1, name="d")(b))
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="e")(layers.Add()([a, c])))
    square = {name: model.get_layer(name).kernel.numpy()[0, 0].astype(np.float64) ** 2 for name in "abcde"}
    grouped = np.zeros((6, 6))
    grouped[:3, :3], grouped[3:, 3:] = square["b"][:, :3], square["b"][:, 3:]
    square["b"], square["c"], depth = grouped, square["c"].T, square["d"].ravel()

    def incoming(name, far):
        if name == "a" or not far:
            return np.ones(square[name].shape[0])
        put = {other: incoming(other, far - 1) @ square[other] for other in "abc"}
        return {"b": put["a"], "d": put["b"], "c": put["b"] * depth, "e": put["a"] + put["c"]}[name]

    def outgoing(name, far):
        if name == "e" or not far:
            return np.ones(square[name].shape[1])
        read = {other: square[other] @ outgoing(other, far - 1) for other in "bce"}
        return {"a": read["b"] + read["e"], "b": depth * read["c"], "d": read["c"], "c": read["e"]}[name]

    recipe = resolve(model)
    weights = [tf.convert_to_tensor(kernel.variable) for kernel in recipe.kernels]
    around = far_sweep(recipe, weights, distance)
    for kernel, back, ahead in zip(recipe.kernels, *around, strict=True):
        np.testing.assert_allclose(back[0], incoming(kernel.path, distance), rtol=1e-4)
        np.testing.assert_allclose(ahead[0], outgoing(kernel.path, distance), rtol=1e-4)
