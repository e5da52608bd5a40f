"""Moments that are carried through the graph, against formulas for linear networks and Monte Carlo estimates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lap.graph.resolver import resolve
from tf_lap.moments.propagated import find_block_moments, propagate_moments

layers = keras.layers


def array(variable):
    return np.array(tf.convert_to_tensor(variable))


def randomize(model, seed=0):
    """Gives biases, scales and statistics values of their own."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def read_by(model, path, use=0):
    """The moments of what a kernel reads: the covariance in one matrix, and the mean."""
    recipe = resolve(model)
    (number,) = (number for number, kernel in enumerate(recipe.kernels) if kernel.path == path)
    moments = propagate_moments(recipe)[number][use]
    one = moments.as_one_block()
    assert one.covariance.shape[0] == 1
    return one.covariance[0], moments.mean


def between(*middle, shape=(6,), flavour=keras):
    """A model of a linear Dense layer "a", some layers, and a Dense layer "b" that reads them."""
    first = flavour.layers.Dense(5, name="a")
    return flavour.Sequential([flavour.Input(shape), first, *middle, flavour.layers.Dense(3, name="b")])


def product(model, path="a"):
    kernel = array(model.get_layer(path).kernel).astype(np.float64)
    return kernel.T @ kernel


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_from_kernel_to_kernel(flavour):
    flavour = pytest.importorskip(flavour)
    model = between(flavour.layers.Dense(4, name="between"), flavour=flavour)
    covariance, mean = read_by(model, "between")
    np.testing.assert_allclose(covariance, product(model), atol=1e-12)
    assert mean is None
    kernel = array(model.get_layer("between").kernel).astype(np.float64)
    np.testing.assert_allclose(read_by(model, "b")[0], kernel.T @ product(model) @ kernel, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "softmax"])
def test_activations_of_layers_and_layers_that_are_activations(activation):
    inside = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation, name="a"), layers.Dense(3, name="b")])
    apart = between(layers.Activation(activation))
    apart.set_weights(inside.get_weights())
    np.testing.assert_allclose(read_by(inside, "b")[0], read_by(apart, "b")[0])
    if activation == "softmax":  # no function of each channel: what stands before it counts
        np.testing.assert_allclose(read_by(inside, "b")[0], product(inside), atol=1e-12)
        return
    x = inside.layers[0](np.random.default_rng(0).standard_normal((100_000, 6)).astype(np.float32)).numpy()
    products = (x[:, :, np.newaxis] * x[:, np.newaxis, :]).astype(np.float64)
    error = 5 * products.std(axis=0) / np.sqrt(len(x)) + 1e-4
    assert (np.abs(read_by(inside, "b")[0] - products.mean(axis=0)) <= error).all()


def test_relu_with_limits_of_its_own_is_not_taken_for_plain():
    model = between(layers.ReLU(max_value=0.5, negative_slope=0.3))
    x = np.random.default_rng(0).standard_normal((100_000, 6)) @ array(model.layers[0].kernel)
    outputs = model.layers[1](x.astype(np.float32)).numpy().astype(np.float64)
    np.testing.assert_allclose(read_by(model, "b")[0], outputs.T @ outputs / len(x), atol=5e-3)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_batch_normalization_tells_means_and_variances(flavour):
    flavour = pytest.importorskip(flavour)
    model = randomize(between(flavour.layers.BatchNormalization(name="n"), flavour=flavour))
    layer = model.get_layer("n")
    gamma, beta, variance = (array(v) for v in (layer.gamma, layer.beta, layer.moving_variance))
    covariance, mean = read_by(model, "b")
    np.testing.assert_allclose(mean, beta, rtol=1e-6)
    np.testing.assert_allclose(np.diag(covariance), gamma**2 * variance / (variance + layer.epsilon), rtol=1e-5)
    deviations, before = np.sqrt(np.diag(covariance)), np.sqrt(np.diag(product(model)))
    np.testing.assert_allclose(covariance / np.outer(deviations, deviations), product(model) / np.outer(before, before))


def test_means_are_carried_on_from_there():
    stack = [layers.BatchNormalization(name="n"), layers.Dense(4, name="between"), layers.BatchNormalization()]
    model = randomize(between(*stack[:2]))
    covariance, mean = read_by(model, "between")
    dense = model.get_layer("between")
    kernel = array(dense.kernel).astype(np.float64)
    np.testing.assert_allclose(read_by(model, "b")[0], kernel.T @ covariance @ kernel, rtol=1e-6)
    np.testing.assert_allclose(read_by(model, "b")[1], mean @ kernel + array(dense.bias), rtol=1e-6)


def test_normalizations_of_samples_make_the_mean_square_one():
    model = between(layers.LayerNormalization(center=False, scale=False))
    covariance, _ = read_by(model, "b")
    np.testing.assert_allclose(covariance, product(model) / np.mean(np.diag(product(model))), rtol=1e-5)


def test_sums_and_concatenations():
    inputs = keras.Input((6,))
    x, y = layers.Dense(4, name="x")(inputs), layers.Dense(4, name="y")(inputs)
    both = layers.Concatenate()([layers.Add()([x, y]), y])
    model = keras.Model(inputs, layers.Dense(3, name="b")(both))
    covariance, _ = read_by(model, "b")
    # Tensors that are added are taken for independent. Those that are put beside each other are too.
    np.testing.assert_allclose(covariance[:4, :4], product(model, "x") + product(model, "y"), atol=1e-12)
    np.testing.assert_allclose(covariance[4:, 4:], product(model, "y"), atol=1e-12)
    np.testing.assert_array_equal(covariance[:4, 4:], np.zeros((4, 4)))


def test_positions_that_become_channels_are_independent():
    conv = layers.Conv1D(5, 3, name="a")
    model = keras.Sequential([keras.Input((6, 2)), conv, layers.Flatten(), layers.Dense(3, name="b")])
    rows = array(conv.kernel).reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(read_by(model, "b")[0], np.kron(np.eye(4), rows.T @ rows), atol=1e-12)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_depthwise_kernels(flavour):
    flavour = pytest.importorskip(flavour)
    first, filters = flavour.layers.Dense(4, name="a"), flavour.layers.DepthwiseConv1D(3, depth_multiplier=2, name="f")
    model = flavour.Sequential([flavour.Input((7, 6)), first, filters, flavour.layers.Dense(3, name="b")])
    weights = array(filters.kernel if flavour is keras else filters.depthwise_kernel).reshape(3, 4, 2)
    expected = np.einsum("tim,tjn,ij->imjn", weights, weights, product(model)).reshape(8, 8)
    np.testing.assert_allclose(read_by(model, "b")[0], expected, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_rows_of_a_convolution_are_those_of_its_taps(groups):
    conv = layers.Conv1D(6, 3, groups=groups, name="b")
    model = keras.Sequential([keras.Input((7, 6)), layers.Dense(4, name="a"), conv])
    recipe = resolve(model)
    covariance, mean = find_block_moments(recipe.kernels[1], propagate_moments(recipe)[1][0])
    assert mean is None
    size = 4 // groups
    parts = [product(model)[g * size : (g + 1) * size, g * size : (g + 1) * size] for g in range(groups)]
    np.testing.assert_allclose(covariance, np.repeat(parts, 3, axis=0), atol=1e-12)
    matrices = array(conv.kernel).reshape(-1, groups, 6 // groups).transpose(1, 0, 2)
    by_tap = matrices.reshape(groups, 3, size, -1).astype(np.float64)
    expected = np.einsum("gtio,gij,gtjp->gop", by_tap, np.stack(parts), by_tap)
    model = keras.Sequential([model, layers.Dense(2, name="c")])
    found = read_by(model, "c")[0].reshape(groups, 6 // groups, groups, 6 // groups)
    np.testing.assert_allclose(np.einsum("gogp->gop", found), expected, atol=1e-12)


def test_pooling_and_gates_leave_channels_where_they_are():
    inputs = keras.Input((8, 6))
    x = layers.Dense(4, name="a")(inputs)
    gate = layers.Dense(4, "sigmoid", name="gate")(layers.GlobalAveragePooling1D(keepdims=True)(x))
    x = layers.MaxPooling1D(2)(layers.Multiply()([x, gate]))
    model = keras.Model(inputs, layers.Dense(3, name="b")(x))
    covariance, _ = read_by(model, "b")
    ratio = covariance / product(model)
    np.testing.assert_allclose(ratio, np.full((4, 4), ratio[0, 0]), rtol=1e-6)


def test_channels_begin_anew_where_they_cannot_be_followed():
    class Opaque(layers.Layer):
        def call(self, x):
            return tf.py_function(lambda value: value, [x], tf.float32)

        def compute_output_shape(self, shape):
            return shape

    model = between(Opaque(), layers.Dense(4, name="between"))
    recipe = resolve(model)
    read = propagate_moments(recipe)
    assert [kernel.path for kernel in recipe.kernels] == ["a", "between", "b"]
    np.testing.assert_array_equal(read[1][0].covariance, np.ones((5, 1, 1)))
    np.testing.assert_allclose(read_by(model, "b")[0], product(model, "between"), atol=1e-12)


def test_every_use_of_a_kernel_is_told():
    inputs, shared = keras.Input((4,)), layers.Dense(4, name="a")
    model = keras.Model(inputs, shared(shared(inputs)))
    np.testing.assert_array_equal(read_by(model, "a")[0], np.eye(4))
    np.testing.assert_allclose(read_by(model, "a", 1)[0], product(model), atol=1e-12)


@pytest.mark.parametrize("name", ["relu", "softmax", "gelu"])
def test_functions_of_tf_keras_are_activations(name):
    tf_keras = pytest.importorskip("tf_keras")
    inputs = tf_keras.Input((6,))
    x = getattr(tf.nn, name)(tf_keras.layers.Dense(5, name="a")(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(3, name="b")(x))
    apart = between(tf_keras.layers.Activation(name), flavour=tf_keras)
    apart.set_weights(model.get_weights())
    np.testing.assert_allclose(read_by(model, "b")[0], read_by(apart, "b")[0], rtol=1e-2)  # gelu has two forms


def test_a_factor_for_all_channels_scales_them_and_attention_is_followed():
    inputs = keras.Input((5, 6))
    x = keras.layers.Dense(8, use_bias=False, name="first")(inputs) * 0.5
    y = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    recipe = resolve(keras.Model(inputs, keras.layers.Dense(3, name="last")(y)))
    numbers = {kernel.path: number for number, kernel in enumerate(recipe.kernels)}
    read = propagate_moments(recipe)
    first = recipe.kernels[numbers["first"]].variable.numpy().astype(np.float64)
    for name in ("query", "key", "value"):
        (moments,) = read[numbers[f"attention/{name}"]]
        np.testing.assert_allclose(moments.covariance[0], 0.25 * first.T @ first, rtol=1e-6, atol=1e-9)
    value = recipe.kernels[numbers["attention/value"]].variable.numpy().reshape(8, 8).astype(np.float64)
    (moments,) = read[numbers["attention/attention_output"]]
    expected = 0.25 * value.T @ first.T @ first @ value
    np.testing.assert_allclose(moments.as_one_block().covariance[0], expected, rtol=1e-5, atol=1e-8)
