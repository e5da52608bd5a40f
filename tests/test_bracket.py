import numpy as np
import pytest
import tensorflow as tf

from tf_lap.bracket import Sample
from tf_lap.radix import Groups
from tf_lap.ranks import INFINITE, ranks

OWNERS = [[0], [0, 1], [0, 0]]


def bracket_of(kernels, owner, share):
    """The two ranks, and for each group its ranks in NumPy."""
    keys = ranks([(each, each, tf.ones_like(each, tf.bool)) for each in kernels])
    groups = Groups(owner)
    sample = Sample(groups, [each.shape.num_elements() for each in keys])
    flat = [tf.bitcast(each, tf.int32).numpy().reshape(-1) for each in keys]
    together = [np.concatenate([flat[k] for k in members]) for members in groups.members]
    keep = tf.constant([max(1, round(each.size * share)) for each in together], tf.float64)
    return sample.bracket(sample.draw(keys), keep), together, keep


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("owner", OWNERS, ids=str)
def test_the_threshold_lies_between_and_few_ranks_do(owner, share):
    kernels = [
        np.abs(np.random.default_rng(k).standard_normal((700, 500 + 41 * k))).astype(np.float32)
        for k in range(len(owner))
    ]
    (low, high), together, keep = bracket_of(kernels, owner, share)
    for g, each in enumerate(together):
        threshold = np.sort(each)[::-1][int(keep[g]) - 1]
        assert low[g] <= threshold <= high[g]
        assert np.count_nonzero((each >= low[g]) & (each <= high[g])) < 0.04 * each.size


def test_nothing_bounds_what_no_sample_shows():
    (low, high), _, _ = bracket_of([np.ones((3, 2), np.float32)], [0], 0.2)
    assert high == INFINITE
    assert low == 1


@pytest.mark.parametrize("share", [0.6, 0.7])
def test_infinite_scores_do_not_hide_the_others(share):
    scores = np.abs(np.random.default_rng(0).standard_normal((1000, 800))).astype(np.float32)
    scores[:, ::2] = np.inf
    (low, high), (keys,), keep = bracket_of([scores], [0], share)
    assert low[0] <= np.sort(keys)[::-1][int(keep[0]) - 1] <= high[0]
    assert np.count_nonzero((keys >= low[0]) & (keys <= high[0])) < 0.04 * keys.size


def test_a_threshold_among_infinite_scores_is_within():
    scores = np.full((100, 80), np.inf, np.float32)
    scores[:, ::2] = 0.1
    (_, high), _, _ = bracket_of([scores], [0], 0.3)
    assert high == INFINITE


def test_all_channels_are_sampled():
    sample = Sample(Groups([0]), [4096 * 4096])
    (stride,) = sample._strides
    assert len({(stride * i) % 4096 for i in range(4096)}) == 4096
