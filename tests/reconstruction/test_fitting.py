"""Moments and what they say of a kernel's outputs, against the outputs themselves."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lap.reconstruction.fitting import OutputMoments, fit_kernel


def measured(parts=1, shift=1.0):
    """Rows of two groups, the outputs of a whole kernel on others, and their moments."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 50, 6)) @ rng.standard_normal((6, 6)) + shift
    whole_rows = x + 0.1 * rng.standard_normal(x.shape)
    matrices = rng.standard_normal((2, 6, 4))
    y = whole_rows @ matrices
    moments = OutputMoments.empty(matrices)
    for rows, outputs in zip(np.array_split(x, parts, axis=1), np.array_split(y, parts, axis=1), strict=True):
        moments.add(tf.constant(rows), tf.constant(outputs))
    return x, y, matrices, moments


@pytest.mark.parametrize("parts", [1, 7])
def test_moments_are_means_over_all_parts(parts):
    x, y, _, moments = measured(parts)
    assert moments.count == 50
    for found, expected in (
        (moments.second, x.swapaxes(1, 2) @ x / 50),
        (moments.cross, x.swapaxes(1, 2) @ y / 50),
        (moments.mean, x.mean(axis=1)),
        (moments.output_mean, y.mean(axis=1)),
        (moments.output_square, np.square(y).mean(axis=1)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_losses_and_statistics_are_those_of_the_outputs():
    x, y, matrices, moments = measured()
    others = matrices * (np.abs(matrices) > 0.5)
    outputs = x @ others
    variance = np.var(y, axis=1).sum()
    lost = np.square(y - outputs).mean(axis=1).sum()
    centred = np.var(y - outputs, axis=1).sum()
    np.testing.assert_allclose(moments.measure_loss(others, False), lost / variance)
    np.testing.assert_allclose(moments.measure_loss(others, True), centred / variance)
    mean, deviation = moments.find_output_statistics(others)
    np.testing.assert_allclose(mean, outputs.mean(axis=1).reshape(-1))
    np.testing.assert_allclose(deviation, np.var(outputs, axis=1).reshape(-1))
    shifted = outputs + moments.find_shift(others)[:, np.newaxis, :]
    np.testing.assert_allclose(shifted.mean(axis=1), y.mean(axis=1))


def test_outputs_that_do_not_vary_lose_nothing():
    moments = OutputMoments.empty(np.ones((1, 2, 3)))
    moments.add(tf.ones((1, 5, 2), tf.float64), tf.ones((1, 5, 3), tf.float64))
    assert moments.measure_loss(np.zeros((1, 2, 3)), False) == 0.0


@pytest.mark.parametrize("has_shift", [False, True])
def test_no_other_weights_lose_less(has_shift):
    _, _, matrices, moments = measured()
    mask = np.abs(matrices) > 0.5
    fit = fit_kernel(moments, matrices, mask, True, has_shift)
    least = moments.measure_loss(fit.matrices, has_shift)
    assert least < moments.measure_loss(matrices * mask, has_shift)
    assert not fit.matrices[~mask].any()
    assert fit.shift.any() == has_shift
    np.testing.assert_array_equal(fit.shift, moments.find_shift(fit.matrices) if has_shift else 0 * fit.shift)


def test_a_shift_alone_leaves_the_weights():
    _, _, matrices, moments = measured()
    mask = np.abs(matrices) > 0.5
    fit = fit_kernel(moments, matrices, mask, False, True)
    np.testing.assert_array_equal(fit.matrices, matrices * mask)
    np.testing.assert_array_equal(fit.shift, moments.find_shift(matrices * mask))


@pytest.mark.parametrize("fits_weights", [False, True])
def test_moments_that_are_not_finite_are_refused(fits_weights):
    _, _, matrices, moments = measured()
    moments.add(tf.fill((2, 1, 6), tf.constant(np.inf, tf.float64)), tf.zeros((2, 1, 4), tf.float64))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        fit_kernel(moments, matrices, matrices > 0, fits_weights, True)


def test_the_covariance_of_constant_rows_is_zero():
    moments = OutputMoments.empty(np.zeros((1, 2, 3)))
    rows, outputs = np.tile([[[1.0, -2.0]]], (1, 7, 1)), np.tile([[[3.0, 0.0, -1.0]]], (1, 7, 1))
    moments.add(tf.constant(rows), tf.constant(outputs))
    second, cross = moments.centre()
    np.testing.assert_array_equal(second, np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(cross, np.zeros((1, 2, 3)))
    assert moments.count == 7
