"""Moments of channels in blocks do as those in one matrix do."""

import numpy as np
import pytest

from tf_lap.moments import channels
from tf_lap.moments.channels import ChannelMoments, add_independent


def in_blocks(blocks, size, has_mean=True, seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((blocks, size, size))
    return ChannelMoments(factors @ factors.swapaxes(1, 2), rng.standard_normal(blocks * size) if has_mean else None)


def join(moments):
    """The covariance in one matrix."""
    size = moments.covariance.shape[1]
    whole = np.zeros((moments.width, moments.width))
    for block, covariance in enumerate(moments.covariance):
        whole[block * size : (block + 1) * size, block * size : (block + 1) * size] = covariance
    return whole


@pytest.mark.parametrize("shape", [(1, 6), (3, 2), (6, 1)])
def test_one_block_holds_all(shape):
    moments = in_blocks(*shape)
    np.testing.assert_array_equal(join(moments.as_one_block()), join(moments))
    np.testing.assert_array_equal(moments.variances, np.diag(join(moments)))
    assert moments.as_one_block().covariance.shape == (1, 6, 6)


def test_wide_ones_keep_their_variances_alone(monkeypatch):
    monkeypatch.setattr(channels, "MAX_WIDTH", 5)
    moments = in_blocks(3, 2)
    for narrow in (moments.as_one_block(), moments.gather(np.arange(6))):
        np.testing.assert_array_equal(join(narrow), np.diag(moments.variances))
        np.testing.assert_array_equal(narrow.mean, moments.mean)


@pytest.mark.parametrize("has_mean", [True, False])
def test_scales(has_mean):
    moments, factors = in_blocks(3, 2, has_mean), np.linspace(-1, 2, 6)
    scaled = moments.scale(factors)
    np.testing.assert_allclose(join(scaled), join(moments) * np.outer(factors, factors))
    if has_mean:
        np.testing.assert_allclose(scaled.mean, moments.mean * factors)
    np.testing.assert_allclose(join(moments.scale(np.array([3.0]))), 9 * join(moments))
    np.testing.assert_allclose(join(ChannelMoments.alike().scale(factors)), np.diag(factors**2))


def test_channels_that_are_all_alike_are_spread():
    assert ChannelMoments.alike().is_alike
    np.testing.assert_array_equal(join(ChannelMoments.alike().spread(3)), np.eye(3))
    with_mean = ChannelMoments(np.full((1, 1, 1), 2.0), np.array([0.5])).spread(3)
    np.testing.assert_array_equal(join(with_mean), 2 * np.eye(3))
    np.testing.assert_array_equal(with_mean.mean, np.full(3, 0.5))


@pytest.mark.parametrize("shape", [(1, 4), (2, 2)])
@pytest.mark.parametrize("index", [[3, 0, 2], [0, -1, 2, 1], [0, 1, 2, 3] * 3, [0, 0, 1, 1, 2], [2, 2, 2]], ids=str)
def test_gathered_channels_are_those_and_copies_are_independent(index, shape):
    moments, index = in_blocks(*shape), np.array(index)
    found = moments.gather(index)
    copies = [sum(index[:place] == channel) for place, channel in enumerate(index)]
    for i, left in enumerate(index):
        assert found.mean[i] == (moments.mean[left] if left >= 0 else 0.0)
        for j, right in enumerate(index):
            is_same = left >= 0 and right >= 0 and copies[i] == copies[j]
            assert join(found)[i, j] == (join(moments)[left, right] if is_same else 0.0)


def test_sums_of_independent_tensors():
    parts = [in_blocks(2, 3, seed=1), in_blocks(1, 6, seed=2), ChannelMoments(np.ones((1, 1, 1)), np.ones(1))]
    total = add_independent(parts)
    np.testing.assert_allclose(join(total), join(parts[0]) + join(parts[1]) + np.eye(6))
    np.testing.assert_allclose(total.mean, parts[0].mean + parts[1].mean + 1)
    assert add_independent([parts[0], in_blocks(2, 3, False)]).mean is None
    assert add_independent([parts[0], parts[0]]).covariance.shape == (2, 3, 3)
