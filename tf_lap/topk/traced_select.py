"""Masks of the highest ranks as a graph of tensors, exactly as many as wanted, on the device where the ranks are.

This serves accelerators and XLA; on the host `tf_lap.topk.select` does the same with NumPy. The threshold is found
digit by digit, without sorting. Of weights whose rank equals it the first stay, in the order of the kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tensorflow as tf

from tf_lap.topk.radix_select import BINS, Groups, kth_smallest, row_counts
from tf_lap.topk.sort_keys import INFINITE, Kept, score_of

_MOST_KERNELS = 16  # that are searched at once
_MOST_WEIGHTS = 1 << 22


def keep_largest(ranks: Sequence[tf.Tensor], keep: tf.Tensor, groups: Sequence[Sequence[int]] | None = None) -> Kept:
    """Masks of the `keep` highest ranks of each group of kernels; of all that are live, where there are fewer.

    Args:
        ranks: for each kernel what `tf_lap.topk.sort_keys.ranks` gives.
        keep: int32, for each group a count between 1 and the number of its weights.
        groups: the numbers of the kernels that are ranked together, in order; each kernel by itself if None.
    """
    groups = [[i] for i in range(len(ranks))] if groups is None else groups
    order = list(itertools.chain.from_iterable(groups))
    ranked = [ranks[i] for i in order]
    owner = Groups([number for number, group in enumerate(groups) for _ in group])

    # The threshold is sought from the highest rank down.
    from_above = [INFINITE - rank for rank in ranked]

    def histograms(base: tf.Tensor, shift: int) -> tf.Tensor:
        bases = _numbers(owner.each(base))
        digits = [
            tf.bitwise.right_shift(tf.bitwise.bitwise_xor(number, own_base), shift)
            for number, own_base in zip(from_above, bases, strict=True)
        ]
        counts = [row_counts(tf.reshape(digit, [1, -1]), BINS) for digit in digits]
        return owner.sums(tf.concat(counts, axis=0))

    below, quota = kth_smallest(histograms, tf.cast(keep, tf.float64))
    threshold = INFINITE - tf.cast(below, tf.float64)
    limits = _numbers(owner.each(threshold))
    ties = [tf.equal(rank, limit) for rank, limit in zip(ranked, limits, strict=True)]
    quotas = tf.unstack(owner.shared(quota, tf.stack([_count(tie) for tie in ties])))
    masks = [
        # Rank 0 is that of pruned weights: of them none is kept.
        (rank > limit) | (_first(tie, most) & (rank > 0))
        for rank, limit, tie, most in zip(ranked, limits, ties, quotas, strict=True)
    ]
    masks = [masks[order.index(i)] for i in range(len(order))]
    return Kept(masks, score_of(threshold))


def batches(sizes: Sequence[int]) -> list[list[int]]:
    """Which kernels, given their numbers of weights, to pass to `keep_largest` at once.

    Kernels that are searched together cost few small operations, but what they need meanwhile adds up.
    """
    together: list[list[int]] = []
    weights = 0
    for i, size in enumerate(sizes):
        if not together or weights + size > _MOST_WEIGHTS or len(together[-1]) == _MOST_KERNELS:
            together.append([])
            weights = 0
        together[-1].append(i)
        weights += size
    return together


def _numbers(values: tf.Tensor) -> list[tf.Tensor]:
    """Each of these numbers, as int64."""
    # GPUs take no vector of integers apart.
    return [tf.cast(value, tf.int64) for value in tf.unstack(tf.cast(values, tf.float64))]


def _count(flags: tf.Tensor) -> tf.Tensor:
    """How many are True, float64: GPUs have no such sum of integers."""
    return tf.reduce_sum(tf.cast(flags, tf.float64))


def _first(flags: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    """The first flags that are True, no more than so many."""
    flat = tf.reshape(flags, [-1])
    return tf.reshape(flat & (tf.cumsum(tf.cast(flat, tf.float64)) <= most), flags.shape)
