"""Masks of the largest sort keys as a graph of tensors, with exact counts, on the device of the keys.

This serves accelerators and XLA. On the host `tf_lap.topk.select` does the same with NumPy. The threshold is found
digit by digit, without sorting. Of weights whose key equals it the first stay, in the order of the kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tensorflow as tf

from tf_lap.topk.radix_select import BINS, Groups, kth_smallest, row_counts
from tf_lap.topk.sort_keys import INFINITE, Kept, score_of

_MAX_KERNELS = 16  # that are searched at once
_MAX_WEIGHTS = 1 << 22  # that are searched at once, unless a kernel alone has more


def keep_largest(ranks: Sequence[tf.Tensor], keep: tf.Tensor, groups: Sequence[Sequence[int]] | None = None) -> Kept:
    """Masks of the `keep` largest sort keys of each group of kernels; of all live weights if there are fewer.

    Args:
        ranks: the sort keys of each kernel, as `tf_lap.topk.sort_keys.ranks` gives them.
        keep: for each group a count between 1 and the number of its weights, `(groups,)`, int32.
        groups: the numbers of the kernels that are ranked together, in order; each kernel by itself if None.
    """
    groups = [[i] for i in range(len(ranks))] if groups is None else groups
    order = list(itertools.chain.from_iterable(groups))
    keys = [ranks[kernel] for kernel in order]
    owner = Groups([number for number, group in enumerate(groups) for _ in group])

    # The k-th largest key is the k-th smallest distance from the largest possible one.
    distances = [INFINITE - key for key in keys]

    def histograms(base: tf.Tensor, shift: int) -> tf.Tensor:
        bases = _unstack(owner.spread(base))
        digits = [
            tf.bitwise.right_shift(tf.bitwise.bitwise_xor(distance, kernel_base), shift)
            for distance, kernel_base in zip(distances, bases, strict=True)
        ]
        counts = [row_counts(tf.reshape(digit, [1, -1]), BINS) for digit in digits]
        return owner.add_up(tf.concat(counts, axis=0))

    distance, quota = kth_smallest(histograms, tf.cast(keep, tf.float64))
    threshold = INFINITE - tf.cast(distance, tf.float64)
    thresholds = _unstack(owner.spread(threshold))
    ties = [tf.equal(key, kernel_threshold) for key, kernel_threshold in zip(keys, thresholds, strict=True)]
    quotas = tf.unstack(owner.share(quota, tf.stack([_count(tie) for tie in ties])))
    masks = [
        # Pruned weights have key 0, and none of them stays.
        (key > kernel_threshold) | (_mark_first(tie, kernel_quota) & (key > 0))
        for key, kernel_threshold, tie, kernel_quota in zip(keys, thresholds, ties, quotas, strict=True)
    ]
    masks = [masks[order.index(kernel)] for kernel in range(len(order))]
    return Kept(masks, score_of(threshold))


def batches(sizes: Sequence[int]) -> list[list[int]]:
    """The numbers of the kernels to pass to `keep_largest` in one call, for each call.

    Kernels that are searched together cost few small operations, but need memory at the same time.

    Args:
        sizes: the number of weights of each kernel.
    """
    together: list[list[int]] = []
    weights = 0
    for kernel, size in enumerate(sizes):
        if not together or weights + size > _MAX_WEIGHTS or len(together[-1]) == _MAX_KERNELS:
            together.append([])
            weights = 0
        together[-1].append(kernel)
        weights += size
    return together


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
