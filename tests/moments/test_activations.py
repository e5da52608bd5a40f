"""Moments behind activations, against a Monte Carlo estimate within its error."""

import keras
import numpy as np
import pytest

from tf_lap.moments.activations import activate, as_function, relu_second_moment
from tf_lap.moments.channels import ChannelMoments

ACTIVATIONS = ["relu", "gelu", "tanh", "sigmoid", "silu", "leaky_relu"]


def correlated(channels=5):
    """A covariance with variances from 0.2 to 3, correlations of both signs, and a channel that is constant."""
    rng = np.random.default_rng(3)
    factors = rng.standard_normal((channels, channels)) * np.linspace(0.3, 1.0, channels)[:, np.newaxis]
    factors[2] = 0.0
    return factors @ factors.T


def estimate(values):
    """The mean of `values` over the first axis, and five standard errors of it."""
    return values.mean(axis=0), 5 * values.std(axis=0) / np.sqrt(len(values))


def draw(covariance, mean, count=100_000):
    return np.random.default_rng(0).multivariate_normal(mean, covariance, count)


def assert_within(found, values, series_error=0.0):
    expected, error = estimate(values)
    assert (np.abs(found - expected) <= error + series_error + 1e-8).all(), np.abs(found - expected).max()


def test_the_arc_cosine_kernel():
    covariance = correlated()
    x = np.maximum(draw(covariance, np.zeros(5)), 0.0)
    assert_within(relu_second_moment(covariance), x[:, :, np.newaxis] * x[:, np.newaxis, :])
    np.testing.assert_allclose(relu_second_moment(np.array([[2.0]])), [[1.0]])  # half of the variance
    np.testing.assert_allclose(relu_second_moment(np.ones((1, 2, 2))), np.full((1, 2, 2), 0.5))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_moments_where_the_mean_is_not_known(name):
    activation = as_function(keras.activations.get(name))
    covariance = correlated()
    x = activation(draw(covariance, np.zeros(5)))
    found = activate(ChannelMoments(covariance[np.newaxis]), activation, name == "relu")
    assert found.mean is None
    assert_within(found.covariance[0], x[:, :, np.newaxis] * x[:, np.newaxis, :], 1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_means_and_covariances_where_the_mean_is_known(name):
    activation = as_function(keras.activations.get(name))
    covariance, mean = correlated(), np.array([0.0, 1.0, -0.5, -2.0, 0.5])
    x = activation(draw(covariance, mean))
    found = activate(ChannelMoments(covariance[np.newaxis], mean), activation, name == "relu")
    assert_within(found.mean, x, 1e-4)
    centred = x - x.mean(axis=0)
    assert_within(found.covariance[0], centred[:, :, np.newaxis] * centred[:, np.newaxis, :], 1e-3)
    assert np.linalg.eigvalsh(found.covariance[0]).min() > -1e-9


def test_blocks_stay_apart():
    blocks = np.stack([correlated(), 2 * correlated()])
    for mean in (None, np.linspace(-1, 1, 10)):
        found = activate(ChannelMoments(blocks, mean), as_function(keras.activations.gelu), False)
        for block, covariance in enumerate(blocks):
            part = None if mean is None else mean[5 * block : 5 * block + 5]
            alone = activate(ChannelMoments(covariance[np.newaxis], part), as_function(keras.activations.gelu), False)
            np.testing.assert_allclose(found.covariance[block], alone.covariance[0])


def test_channels_that_are_all_alike_stay_so():
    alike = ChannelMoments.alike()
    assert activate(alike, as_function(keras.activations.relu), True) is alike
