"""The curvature of the loss, against the Hessian itself and against plain loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import kernels, lookahead_mask
from relu_chains import data, relu_chain
from uncalled import half_used

import tf_lap
from tf_lap.graph.resolver import resolve
from tf_lap.scores.curvature import measure_curvature

layers = keras.layers


def hessian_diagonal(forward, weights, x):
    """By definition, twice differentiated, of the sum over samples of the cross-entropy, in float64."""
    variables = [tf.Variable(w.astype(np.float64)) for w in weights]
    diagonals = []
    for i, variable in enumerate(variables):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                logits = forward(variables, tf.constant(x, tf.float64))
                # Which class is the true one does not matter to the curvature of a piecewise linear network.
                loss = -tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
            slope = tf.reshape(inner.gradient(loss, variables)[i], [-1])
        rows = outer.jacobian(slope, variable)
        diagonals.append(np.diag(tf.reshape(rows, (variable.shape.num_elements(), -1))).reshape(variable.shape))
    return diagonals


def assert_close(measured, expected):
    for diagonal, exact in zip(measured, expected, strict=True):
        np.testing.assert_allclose(diagonal, exact, rtol=1e-5, atol=1e-5 * np.max(exact))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_curvature_of_dense_layers_is_the_hessians_diagonal(flavour, probabilities):
    model = relu_chain(5, 7, 6, 3, flavour=pytest.importorskip(flavour))
    if probabilities:
        model.layers[-1].activation = pytest.importorskip(flavour).activations.softmax
    x = data((5,), 9)

    def forward(variables, h):
        first, second, third = variables
        return tf.nn.relu(tf.nn.relu(h @ first) @ second) @ third

    expected = hessian_diagonal(forward, list(kernels(model).values()), x)
    assert_close(measure_curvature(model, resolve(model), range(3), [[x[:5]], [x[5:]]]).values(), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
def test_the_curvature_of_convolutions_and_of_dense_layers_on_positions_too(strides, padding):
    inputs = keras.Input((7, 6, 2))
    options = {"padding": padding, "use_bias": False, "activation": "relu"}
    x = layers.Conv2D(3, 3, strides=strides, name="conv", **options)(inputs)
    x = layers.Dense(4, activation="relu", use_bias=False, name="positions")(x)
    shared = layers.Dense(4, use_bias=False, name="shared")
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, use_bias=False, name="head")(shared(layers.ReLU()(shared(x)))))
    x = data((7, 6, 2), 4)

    def forward(variables, h):
        conv, positions, twice, head = variables
        h = tf.nn.relu(tf.nn.conv2d(h, conv, strides, padding.upper()))
        h = tf.reduce_mean(tf.nn.relu(h @ positions), axis=[1, 2])
        return tf.nn.relu(h @ twice) @ twice @ head

    recipe = resolve(model)
    diagonals = measure_curvature(model, recipe, range(4), [[x]])
    expected = hessian_diagonal(forward, [kernel.variable.numpy() for kernel in recipe.kernels], x)
    # The Hessian of a shared layer has a term of the product of its uses, which the Gauss-Newton matrix leaves out.
    assert_close([diagonals[i] for i in (0, 1, 3)], [expected[i] for i in (0, 1, 3)])
    assert_close([diagonals[2]], [gauss_newton_diagonal(model, shared.kernel.value, x)])


def gauss_newton_diagonal(model, variable, x):
    """One sample and one class after another."""
    total = np.zeros(variable.shape)
    for row in x:
        with tf.GradientTape(persistent=True) as tape:
            log_p = tf.unstack(tf.nn.log_softmax(model(row[np.newaxis]))[0])
        total += sum(np.exp(term) * np.square(tape.gradient(term, variable)) for term in log_p)
    return total


def test_obd_and_its_product_with_lookahead_rank_as_their_formulas():
    model = relu_chain(6, 12, 10, 4)
    x = data((6,))
    h = measure_curvature(model, resolve(model), range(3), [[x]])
    weights = [w.astype(np.float64) for w in kernels(model).values()]
    obd = [w**2 * np.array(h[i]) / 2 for i, w in enumerate(weights)]
    for score, expected in (
        ("obd", [s >= np.sort(s, axis=None)[-round(0.4 * s.size)] for s in obd]),
        ("obd_lookahead", [lookahead_mask(list(map(np.sqrt, obd)), i, round(0.4 * s.size)) for i, s in enumerate(obd)]),
    ):
        model = relu_chain(6, 12, 10, 4)
        for layer, w in zip(model.layers, weights, strict=True):
            layer.kernel.assign(w)
        pruner = tf_lap.Pruner(model, score=score, data=x, allocation="uniform")
        pruner.update(0.6)
        for mask, largest in zip(pruner.masks.values(), expected, strict=True):
            np.testing.assert_array_equal(mask, largest)


def test_kernels_and_outputs_whose_curvature_is_not_known_are_named():
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    before = model.get_weights()
    x = data((6, 3), 5)
    with pytest.raises(ValueError, match=r"the curvature of layer 'conv' \(Conv1D\) is not known: Dense and Conv2D"):
        tf_lap.prune(model, 0.5, score="obd", data=x)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    tf_lap.prune(model, 0.5, score="obd_lookahead", data=x, filters="dense")
    report = tf_lap.prune(model, 0.5, score="obd", data=x, filters="dense")
    assert [layer.path for layer in report.pruned] == [model.layers[-1].name]
    several = keras.Model(inputs, [model.output, layers.Dense(2)(model.layers[-2].output)])
    with pytest.raises(ValueError, match=r"puts out 2 tensors of shapes .* needs one"):
        tf_lap.prune(several, 0.5, score="obd", data=x, filters="dense")
    for units, activation in ((1, "sigmoid"), (1, None), (3, "sigmoid")):
        binary = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation)])
        with pytest.raises(ValueError, match="two classes or more, logits or their softmax"):
            tf_lap.prune(binary, 0.5, score="obd", data=np.ones((3, 4)))


def test_a_kernel_that_is_never_called_is_ranked_by_magnitude():
    model = half_used()
    kernel = model.unused.kernel.numpy()
    tf_lap.prune(model, 0.5, score="obd", data=data((4,)), allocation="uniform")
    np.testing.assert_array_equal(
        model.unused.kernel.numpy() != 0, np.abs(kernel) >= np.sort(np.abs(kernel), None)[-10]
    )
