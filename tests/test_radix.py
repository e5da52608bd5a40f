import numpy as np
import pytest
import tensorflow as tf

from tf_lap.radix import Groups, histograms_of, kth_largest, threshold_of


@pytest.mark.parametrize("owner", [[0], [0, 1, 2], [0, 0, 1]])
def test_the_threshold_is_that_of_a_sort(owner):
    rng = np.random.default_rng(0)
    keys = [rng.choice([0, 1, 5, 1 << 20, (1 << 31) - 1, *range(100)], 500 + i).astype(np.uint32) for i in owner]
    groups = Groups(owner)
    for keep in (1, 7, 400):
        wanted = tf.constant([keep] * len(groups.members), tf.float64)
        threshold, quota = threshold_of([tf.constant(each) for each in keys], groups, wanted)
        for g, members in enumerate(groups.members):
            together = np.sort(np.concatenate([keys[k] for k in members]))[::-1]
            assert threshold[g] == together[keep - 1]
            assert quota[g] == keep - np.count_nonzero(together > together[keep - 1])


def test_digits_beyond_a_histogram_are_not_counted():
    table = histograms_of([tf.constant([0, 3, 3, 300, 2_000_000_000], tf.uint32)], 8)
    np.testing.assert_array_equal(table[0, :4], [1, 0, 0, 2])
    assert tf.reduce_sum(table) == 3
    index, above = kth_largest(table, tf.constant([3.0], tf.float64))
    assert (index, above) == (0, 2)


def test_a_quota_goes_to_the_first_of_a_group():
    shared = Groups([0, 0, 0, 1]).shared(
        tf.constant([5.0, 2.0], tf.float64), tf.constant([3.0, 4.0, 4.0, 9.0], tf.float64)
    )
    np.testing.assert_array_equal(shared, [3, 2, 0, 2])
