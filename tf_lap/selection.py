"""The exact k-th largest of many scores, on the device where they are, without sorting.

Non-negative float32 numbers are ordered as the integers with the same bits. So the k-th largest is found
digit by digit: a histogram of the upper 16 bits names the bucket that holds it, a second one of the lower bits within
that bucket names the number itself. Ties are kept from the lowest flat index, in the order of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

_INFINITY = 0x7F800000  # its bits, the largest of a number
_FIRST_SCORE = (_INFINITY >> 9) + 3
_LOW = 16
_ROW = 256
_AT_ONCE = 16
_WEIGHTS_AT_ONCE = 1 << 21
_ONE_THREAD = 1 << 19


class _Cut(NamedTuple):
    """Where groups of kernels are cut: an int32 for each group.

    Attributes:
        threshold: the last key that is kept.
        tied: how many keys equal it.
        quota: how many of those are kept.
    """

    threshold: tf.Tensor
    tied: tf.Tensor
    quota: tf.Tensor


def keep_largest(
    scores: Sequence[tf.Tensor],
    weights: Sequence[tf.Tensor],
    live: Sequence[tf.Tensor],
    keep: tf.Tensor,
    groups: Sequence[Sequence[int]] | None = None,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Masks of the `keep` highest ranks of each group of kernels; of all that are live, where there are fewer.

    From the bottom rank: weights that are zero; weights whose score is zero, by their magnitude (between dead
    channels no score is above zero, and a live weight must not make room for a zero); and all others by their scores.

    Args:
        scores: for each kernel non-negative float32, finite or infinite; no NaN, no -0.0, and 0 where a weight is
            pruned already.
        weights: its float32 weights.
        live: bool, False where a weight is pruned already; or zeros there and ones elsewhere, float32.
        keep: int32, for each group a count between 1 and the number of its weights.
        groups: the numbers of the kernels that are ranked together, in order; each kernel by itself if None.

    Returns:
        Bool tensors, exactly `keep` of them True in a group where as many are live; and for each group the score of
        the last that is kept.
    """
    groups = [[i] for i in range(len(scores))] if groups is None else groups
    bits = [[tf.bitcast(scores[i], tf.int32) for i in group] for group in groups]
    others = [[(weights[i], live[i]) for i in group] for group in groups]
    chosen, thresholds = _keep(bits, others, keep)
    masks = {i: mask for group, some in zip(groups, chosen, strict=True) for i, mask in zip(group, some, strict=True)}
    return [masks[i] for i in range(len(scores))], tf.bitcast(thresholds, tf.float32)


def batches(sizes: Sequence[int]) -> list[list[int]]:
    """Which kernels, given their numbers of weights, to pass to `keep_largest` at once.

    Kernels that are searched together cost few small operations; but what they need meanwhile adds up.
    """
    together: list[list[int]] = []
    weights = 0
    for i, size in enumerate(sizes):
        if not together or len(together[-1]) == _AT_ONCE or weights + size > _WEIGHTS_AT_ONCE:
            together.append([])
            weights = 0
        together[-1].append(i)
        weights += size
    return together


def _keep(
    bits: list[list[tf.Tensor]], others: list[list[tuple[tf.Tensor, tf.Tensor]]], keep: tf.Tensor
) -> tuple[list[list[tf.Tensor]], tf.Tensor]:
    cut = _cut(bits, keep)

    def ranked(g: int) -> list[tf.Tensor]:
        ranks = [keys(k, *other) for k, other in zip(bits[g], others[g], strict=True)]
        (masks,) = _masks([ranks], _cut([ranks], keep[g : g + 1]))
        return [mask & (rank > 0) for mask, rank in zip(masks, ranks, strict=True)]

    def by_group() -> list[list[tf.Tensor]]:
        alone = [_Cut(*(each[g : g + 1] for each in cut)) for g in range(len(bits))]
        return [
            tf.cond(cut.threshold[g] > 0, lambda g=g: _masks([bits[g]], alone[g])[0], lambda g=g: ranked(g))
            for g in range(len(bits))
        ]

    # Ranks below the scores cost passes of their own, and are seldom reached.
    return tf.cond(tf.reduce_all(cut.threshold > 0), lambda: _masks(bits, cut), by_group), cut.threshold


def keys(bits: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Non-negative int32 numbers in the order of the ranks that `keep_largest` goes by.

    Args:
        bits: those of the scores, int32.
        weights: as `keep_largest` takes them, for one kernel.
        live: likewise.
    """
    # The upper 22 bits of a magnitude order weights well enough, and leave room below the scores.
    magnitude = tf.bitwise.right_shift(tf.bitcast(tf.abs(weights), tf.int32), 9)
    rank = tf.where(bits > 0, bits + _FIRST_SCORE, tf.where(tf.equal(weights, 0), 1, magnitude + 2))
    return tf.where(tf.cast(live, tf.bool), rank, 0)


def _cut(ranks: list[list[tf.Tensor]], keep: tf.Tensor) -> _Cut:
    """For each group the `keep`-th largest key."""
    upper = [[tf.bitwise.right_shift(k, _LOW) for k in group] for group in ranks]
    bucket, above, _ = _kth_largest(_histograms(upper, 1 << (31 - _LOW)), keep)
    base = tf.bitwise.left_shift(bucket, _LOW)
    # Without the bucket's bits what lies in it is below the histogram's size, and all else beyond, uncounted.
    lower = [[tf.bitwise.bitwise_xor(k, base[g]) for k in group] for g, group in enumerate(ranks)]
    low, above_low, tied = _kth_largest(_histograms(lower, 1 << _LOW), keep - above)
    return _Cut(base + low, tied, keep - above - above_low)


def _histograms(digits: list[list[tf.Tensor]], size: int) -> tf.Tensor:
    def count(digit: tf.Tensor) -> tf.Tensor:
        # As one row the count is one thread's, and needs less around it: kernels are counted side by side.
        rows = [1, -1] if digit.shape.num_elements() <= _ONE_THREAD else [-1]
        no_weights = tf.zeros([0], tf.int32)
        counts = tf.raw_ops.DenseBincount(
            input=tf.reshape(digit, rows), size=size, weights=no_weights, binary_output=False
        )
        return tf.reshape(counts, [1, size])

    return tf.concat([tf.add_n([count(d) for d in group]) for group in digits], axis=0)


def _kth_largest(histograms: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For each group the bin that holds the k-th largest, how many lie in higher bins, and how many in this one."""
    # Row by row, so that the running sums are short.
    table = tf.reshape(histograms, (histograms.shape[0], -1, _ROW))
    row, above_row = _search(tf.reduce_sum(table, axis=2), k)
    column, above = _search(_entries(table, row), k - above_row)
    index = row * _ROW + column
    return index, above_row + above, _entries(histograms, index)


def _search(counts: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    from_top = tf.cumsum(counts, axis=1, reverse=True)
    index = tf.reduce_sum(tf.cast(from_top >= k[:, tf.newaxis], tf.int32), axis=1) - 1
    return index, _entries(from_top - counts, index)


def _entries(table: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """`table[g, index[g]]` for each g.

    Gathered and not sliced: XLA wants a slice's beginning as a constant, takes the weights for constants to compute
    it, and compiles for minutes, at each value anew.
    """
    groups, length = table.shape[:2]
    return tf.gather(tf.reshape(table, (groups * length, *table.shape[2:])), index + tf.range(groups) * length)


def _masks(ranks: list[list[tf.Tensor]], cut: _Cut) -> list[list[tf.Tensor]]:
    def plain() -> list[list[tf.Tensor]]:
        return [[k >= cut.threshold[g] for k in group] for g, group in enumerate(ranks)]

    # Numbering the ties costs another pass or two; it is rare that a threshold cuts through them.
    return tf.cond(tf.reduce_all(tf.equal(cut.tied, cut.quota)), plain, lambda: _cut_ties(ranks, cut))


def _cut_ties(ranks: list[list[tf.Tensor]], cut: _Cut) -> list[list[tf.Tensor]]:
    masks = []
    for g, group in enumerate(ranks):
        threshold, quota = cut.threshold[g], cut.quota[g]
        masks.append([])
        for k in group:
            rank = tf.cumsum(tf.reshape(tf.cast(tf.equal(k, threshold), tf.int32), [-1]))
            masks[-1].append((k > threshold) | (tf.equal(k, threshold) & (tf.reshape(rank, tf.shape(k)) <= quota)))
            quota = tf.maximum(quota - rank[-1], 0)
    return masks
