"""The exact k-th largest of many scores, on the device where they are, without sorting.

Non-negative float32 numbers are ordered as the integers with the same bits. So the k-th largest is found
digit by digit: a histogram of the upper 16 bits names the bucket that holds it, a second one of the lower bits within
that bucket names the number itself. Ties are kept from the lowest flat index, in the order of the kernels.
"""

from __future__ import annotations

import tensorflow as tf

_INFINITY = 0x7F800000  # its bits, the largest of a number
_FIRST_SCORE = (_INFINITY >> 9) + 3
_LOW = 16
_ROW = 256


def keep_largest(
    scores: list[tf.Tensor], weights: list[tf.Tensor], live: list[tf.Tensor], keep: tf.Tensor
) -> list[tf.Tensor]:
    """Masks of exactly the `keep` highest ranks of all kernels together.

    From the bottom rank: weights that are pruned already; weights that are zero; weights whose score is zero, by their
    magnitude (between dead channels no score is above zero, and a live weight must not make room for a zero); and
    all others by their scores.

    Args:
        scores: for each kernel non-negative float32, finite or infinite, no NaN.
        weights: its float32 weights.
        live: bool, False where a weight is pruned already.
        keep: an int32 scalar between 1 and the number of weights.

    Returns:
        Bool tensors, `keep` of them True in all.
    """
    # abs also turns -0.0, whose sign bit would read as a negative number, into 0.0.
    bits = [tf.where(alive, tf.bitcast(tf.abs(s), tf.int32), 0) for s, alive in zip(scores, live, strict=True)]
    threshold, tied, quota = _threshold(bits, keep)

    def ranked() -> list[tf.Tensor]:
        keys = [_rank(*each) for each in zip(bits, weights, live, strict=True)]
        return _masks(keys, *_threshold(keys, keep))

    # Ranks below the scores cost passes of their own, and are seldom reached.
    return tf.cond(threshold > 0, lambda: _masks(bits, threshold, tied, quota), ranked)


def _rank(bits: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    # The upper 22 bits of a magnitude order weights well enough, and leave room below the scores.
    magnitude = tf.bitwise.right_shift(tf.bitcast(tf.abs(weights), tf.int32), 9)
    keys = tf.where(bits > 0, bits + _FIRST_SCORE, tf.where(tf.equal(weights, 0), 1, magnitude + 2))
    return tf.where(live, keys, 0)


def _threshold(keys: list[tf.Tensor], keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The `keep`-th largest key, how many keys equal it, and how many of those belong to the `keep` largest."""
    upper = [tf.bitwise.right_shift(k, _LOW) for k in keys]
    bucket, above, _ = _kth_largest(_histogram(upper, 1 << (31 - _LOW)), keep)
    size = 1 << _LOW
    # What lies in other buckets is counted in a bin of its own, past the end.
    lower = [
        tf.where(tf.equal(u, bucket), tf.bitwise.bitwise_and(k, size - 1), size)
        for k, u in zip(keys, upper, strict=True)
    ]
    low, above_low, tied = _kth_largest(_histogram(lower, size + 1)[:size], keep - above)
    return tf.bitwise.left_shift(bucket, _LOW) + low, tied, keep - above - above_low


def _histogram(digits: list[tf.Tensor], size: int) -> tf.Tensor:
    no_weights = tf.zeros([0], tf.int32)
    counts = [
        tf.raw_ops.DenseBincount(input=tf.reshape(d, [-1]), size=size, weights=no_weights, binary_output=False)
        for d in digits
    ]
    return tf.add_n(counts)


def _kth_largest(histogram: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bin that holds the k-th largest, how many lie in higher bins, and how many in this one."""
    # Row by row, so that the running sums are short. Gathered and not sliced: XLA wants a slice's beginning as a
    # constant, takes the weights for constants to compute it, and compiles for minutes, at each value anew.
    table = tf.reshape(histogram, (-1, _ROW))
    row, above_row = _search(tf.reduce_sum(table, axis=1), k)
    column, above = _search(tf.gather(table, row), k - above_row)
    return row * _ROW + column, above_row + above, tf.gather(histogram, row * _ROW + column)


def _search(counts: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    from_top = tf.cumsum(counts, reverse=True)
    index = tf.math.count_nonzero(from_top >= k, dtype=tf.int32) - 1
    return index, tf.gather(from_top - counts, index)


def _masks(keys: list[tf.Tensor], threshold: tf.Tensor, tied: tf.Tensor, quota: tf.Tensor) -> list[tf.Tensor]:
    # Numbering the ties costs another pass or two; it is rare that a threshold cuts through them.
    return tf.cond(
        tf.equal(tied, quota), lambda: [k >= threshold for k in keys], lambda: _cut_ties(keys, threshold, quota)
    )


def _cut_ties(keys: list[tf.Tensor], threshold: tf.Tensor, quota: tf.Tensor) -> list[tf.Tensor]:
    masks = []
    for k in keys:
        rank = tf.cumsum(tf.reshape(tf.cast(tf.equal(k, threshold), tf.int32), [-1]))
        masks.append((k > threshold) | (tf.equal(k, threshold) & (tf.reshape(rank, tf.shape(k)) <= quota)))
        quota = tf.maximum(quota - rank[-1], 0)
    return masks
