"""Scores of weights and what they are multiplied with are output errors: by brute force."""

import itertools

import keras
import numpy as np
import pytest
from observed import multiply, observe_rows
from relu_chains import data
from scored import measure_scores

from tf_lap.graph.resolver import resolve
from tf_lap.scores.inputs import find_obs_factors

layers = keras.layers


def network():
    """Kernels of several kinds, each with the rows of several positions or calls."""
    inputs = keras.Input((5, 5, 4), dtype="float64")
    options = {"dtype": "float64", "kernel_initializer": "random_normal"}
    x = layers.Conv2D(4, 3, strides=2, groups=2, padding="same", activation="relu", name="groups", **options)(inputs)
    filters = layers.DepthwiseConv2D(2, dtype="float64", name="filters", activation="relu")
    x = layers.Conv2D(3, 1, name="conv", activation="relu", **options)(filters(x))
    shared = layers.Dense(3, name="shared", **options)
    x = layers.EinsumDense("abcd,bdef->acbfe", (2, 2, 2, 3), name="einsum", **options)(shared(layers.ReLU()(shared(x))))
    return keras.Model(inputs, layers.Dense(3, name="head", **options)(layers.Flatten(dtype="float64")(x)))


def test_the_square_of_wanda_is_the_output_error_of_a_weight_that_goes_alone():
    model, x = network(), data((5, 5, 4), 6).astype(np.float64)
    scores, rows = measure_scores(model, "wanda", x), observe_rows(model, [[x]])
    for kernel in resolve(model).kernels:
        before = multiply(kernel, rows[kernel.path])
        weights = kernel.variable.numpy()
        for index in itertools.islice(np.ndindex(weights.shape), 0, None, 3):
            zeroed = weights.copy()
            zeroed[index] = 0
            kernel.variable.assign(zeroed)
            error = np.mean(np.sum(np.square(multiply(kernel, rows[kernel.path]) - before), axis=1))
            np.testing.assert_allclose(scores[kernel.path][index], np.sqrt(error), rtol=1e-4, err_msg=kernel.path)
        kernel.variable.assign(weights)


def refit(x, weights, dropped, damping):
    """The least squared change of an output when a weight goes and the others make up for it, over all rows.

    Args:
        x: `(rows, inputs)`.
        weights: those of the output, `(inputs,)`.
        dropped: which weight goes.
        damping: what each squared change of a weight counts, as a fraction of the inputs' mean square.
    """
    ridge = np.sqrt(damping * np.mean(np.square(x)) * len(x))
    rows = np.concatenate([x, ridge * np.eye(len(weights))])
    kept = np.arange(len(weights)) != dropped
    target = rows @ weights
    solution, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
    return np.sum(np.square(rows[:, kept] @ solution - target))


def test_the_square_of_obs_is_the_output_error_after_a_refit():
    model, x = network(), data((5, 5, 4), 6).astype(np.float64)
    scores, rows = measure_scores(model, "obs", x), observe_rows(model, [[x]])
    for kernel in resolve(model).kernels:
        matrices = kernel.layout.to_matrices(kernel.variable.numpy())
        by_group = kernel.layout.to_matrices(scores[kernel.path])
        for group, place, output in itertools.islice(np.ndindex(matrices.shape), 0, None, 5):
            read = rows[kernel.path][group]
            if np.any(read[:, place]):
                error = refit(read, matrices[group, :, output], place, 0.01) / len(read)
                found = by_group[group, place, output]
                np.testing.assert_allclose(found, np.sqrt(error), rtol=1e-4, err_msg=kernel.path)


@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.1])
def test_obs_factors_are_those_of_a_refit_at_any_damping(damping):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 7)) @ rng.standard_normal((7, 7))
    weights = rng.standard_normal(7)
    factors = find_obs_factors((x.T @ x / 40)[np.newaxis], damping)[0]
    for dropped in range(7):
        np.testing.assert_allclose(np.square(factors * weights)[dropped] * 40, refit(x, weights, dropped, damping))


def test_inputs_that_say_the_same_are_worth_little_to_obs_and_fewer_samples_than_inputs_will_do():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8))  # rank 3
    x[:, 1] = x[:, 0]
    x[:, 5] = 0
    second = x.T @ x / 3
    factors = find_obs_factors(second[np.newaxis])[0]
    weights = np.ones(8)
    for dropped in range(8):
        expected = refit(x, weights, dropped, 0.01)
        np.testing.assert_allclose(factors[dropped] ** 2 * 3, 0 if dropped == 5 else expected, rtol=1e-9)
    assert factors[0] < 0.2 * np.sqrt(second[0, 0])
    np.testing.assert_array_equal(find_obs_factors(np.zeros((2, 3, 3))), np.zeros((2, 3)))
    assert np.isnan(find_obs_factors(np.full((1, 2, 2), np.inf))).all()
