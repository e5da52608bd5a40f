import numpy as np
import pytest
import tensorflow as tf

from tf_lap.topk.radix_select import BINS, Grouping, kth_bins, kth_smallest


def histograms_of(numbers, grouping):
    """The argument of `kth_smallest`, in NumPy."""

    def histograms(prefixes, shift):
        rows = []
        for number, prefix in zip(numbers, grouping.by_kernel(prefixes).numpy(), strict=True):
            digits = (number ^ prefix) >> shift
            rows.append(np.bincount(digits[digits < BINS], minlength=BINS).astype(np.float64))
        return grouping.sum_by_group(tf.constant(rows))

    return histograms


@pytest.mark.parametrize("bits", [31, 12, 11, 3])
@pytest.mark.parametrize("group_of_kernel", [[0], [0, 1, 2], [0, 0, 1]], ids=str)
def test_it_is_that_of_a_sort(group_of_kernel, bits):
    rng = np.random.default_rng(0)
    drawn = [rng.choice([0, 1, 5, 1 << 20, (1 << 31) - 1, *range(100)], 500 + i) for i in group_of_kernel]
    numbers = [array % (1 << bits) for array in drawn]
    grouping = Grouping(group_of_kernel)
    count = len(grouping.members)
    for k in (1, 7, 400):
        places = tf.fill([count], tf.constant(k, tf.float64))
        below, ties = kth_smallest(histograms_of(numbers, grouping), places)
        for g, members in enumerate(grouping.members):
            together = np.sort(np.concatenate([numbers[i] for i in members]))
            assert below[g] == together[k - 1]
            assert ties[g] == k - np.count_nonzero(together < together[k - 1])


def test_several_are_sought_in_one_histogram():
    table = np.zeros((2, 256))
    table[0, [3, 3 + 128, 255]] = 5, 6, 7
    table[1, 200] = 1
    bins, before = kth_bins(tf.constant(table), tf.constant([[1.0, 5, 6, 18, 19], [0, 1, 1, 1, 1]], tf.float64))
    np.testing.assert_array_equal(bins, [[3, 3, 131, 255, 255], [0, 200, 200, 200, 200]])
    np.testing.assert_array_equal(before[0], [0, 0, 5, 11, 11])


def test_a_quota_goes_to_the_first_of_a_group():
    quotas = Grouping([0, 0, 0, 1]).share(
        tf.constant([5.0, 2.0], tf.float64), tf.constant([3.0, 4.0, 4.0, 9.0], tf.float64)
    )
    np.testing.assert_array_equal(quotas, [3, 2, 0, 2])
