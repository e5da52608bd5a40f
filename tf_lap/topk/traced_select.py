"""Masks of the largest sort keys as a graph of tensors, with exact counts, on the device of the keys.

This serves accelerators and XLA. On the host `tf_lap.topk.select` does the same with NumPy. The threshold is found
digit by digit, without sorting. Of weights whose key equals it the first stay, in the order of the kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tensorflow as tf

from tf_lap.topk.radix_select import BINS, Grouping, count_by_row, kth_smallest
from tf_lap.topk.sort_keys import LARGEST_KEY, PRUNED_KEY, TopK, scores_of

# How much is searched at once, unless a kernel alone has more weights.
_MAX_KERNELS = 16
_MAX_WEIGHTS = 1 << 22


def keep_largest(
    sort_keys: Sequence[tf.Tensor], keep: tf.Tensor, groups: Sequence[Sequence[int]] | None = None
) -> TopK:
    """Masks of the `keep` largest sort keys of each group of kernels; of all live weights if there are fewer.

    Args:
        sort_keys: for each kernel what `tf_lap.topk.sort_keys.make_sort_keys` gives.
        keep: for each group a count between 1 and the number of its weights, `(groups,)`, int32.
        groups: the numbers of the kernels that are ranked together, in order; each kernel by itself if None.
    """
    groups = [[i] for i in range(len(sort_keys))] if groups is None else groups
    kernels = list(itertools.chain.from_iterable(groups))
    keys = [sort_keys[kernel] for kernel in kernels]
    grouping = Grouping([number for number, group in enumerate(groups) for _ in group])

    # The k-th largest key is the k-th smallest of the keys counted down from the largest one.
    reversed_keys = [LARGEST_KEY - key for key in keys]

    def histograms(prefixes: tf.Tensor, shift: int) -> tf.Tensor:
        digits = [
            tf.bitwise.right_shift(tf.bitwise.bitwise_xor(numbers, prefix), shift)
            for numbers, prefix in zip(reversed_keys, _unstack(grouping.by_kernel(prefixes)), strict=True)
        ]
        counts = [count_by_row(tf.reshape(digit, [1, -1]), BINS) for digit in digits]
        return grouping.sum_by_group(tf.concat(counts, axis=0))

    reversed_threshold, tie_counts = kth_smallest(histograms, tf.cast(keep, tf.float64))
    threshold = LARGEST_KEY - tf.cast(reversed_threshold, tf.float64)
    thresholds = _unstack(grouping.by_kernel(threshold))
    ties = [tf.equal(key, kernel_threshold) for key, kernel_threshold in zip(keys, thresholds, strict=True)]
    # How many of its ties each kernel keeps.
    quotas = tf.unstack(grouping.share(tie_counts, tf.stack([_count(tie) for tie in ties])))
    masks = [
        (key > kernel_threshold) | (_mark_first(tie, quota) & (key > PRUNED_KEY))  # no pruned weight stays
        for key, kernel_threshold, tie, quota in zip(keys, thresholds, ties, quotas, strict=True)
    ]
    masks = [masks[kernels.index(kernel)] for kernel in range(len(kernels))]
    return TopK(masks, scores_of(threshold))


def split_into_batches(sizes: Sequence[int]) -> list[list[int]]:
    """Splits kernels into batches, each for one call of `keep_largest`: lists of the kernels' numbers.

    Kernels that are searched together cost fewer small operations, but need memory at the same time.

    Args:
        sizes: the number of weights of each kernel.
    """
    batches: list[list[int]] = []
    weights = 0
    for kernel, size in enumerate(sizes):
        if not batches or weights + size > _MAX_WEIGHTS or len(batches[-1]) == _MAX_KERNELS:
            batches.append([])
            weights = 0
        batches[-1].append(kernel)
        weights += size
    return batches


def _unstack(values: tf.Tensor) -> list[tf.Tensor]:
    """The elements of a vector, as int64 scalars."""
    # As float64, because GPUs have no operation that unstacks integers.
    return [tf.cast(value, tf.int64) for value in tf.unstack(tf.cast(values, tf.float64))]


def _count(flags: tf.Tensor) -> tf.Tensor:
    """How many flags are True, a float64 scalar: GPUs have no sum of integers."""
    return tf.reduce_sum(tf.cast(flags, tf.float64))


def _mark_first(flags: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The first `count` True flags of a bool tensor, in its shape; `count` is a float64 scalar."""
    flat = tf.reshape(flags, [-1])
    return tf.reshape(flat & (tf.cumsum(tf.cast(flat, tf.float64)) <= count), flags.shape)
