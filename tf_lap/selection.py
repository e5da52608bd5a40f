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


def rank_keys(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Orders scores as int32 keys.

    From the bottom: weights that are pruned already; weights that are zero; weights whose score is zero, by their
    magnitude (between dead channels no score is above zero, and a live weight must not make room for a zero); and
    all others by their scores.

    Args:
        scores: non-negative float32, finite or infinite, no NaN.
        weights: float32 of the same shape.
        live: bool of the same shape, False where the weight is pruned already.
    """
    # abs also turns -0.0, whose sign bit would read as a negative key, into 0.0.
    bits = tf.bitcast(tf.abs(scores), tf.int32)
    # The upper 22 bits of a magnitude order weights well enough, and leave room below the scores.
    magnitude = tf.bitwise.right_shift(tf.bitcast(tf.abs(weights), tf.int32), 9)
    keys = tf.where(bits > 0, bits + _FIRST_SCORE, tf.where(tf.equal(weights, 0), 1, magnitude + 2))
    return tf.where(live, keys, 0)


def keep_largest(keys: list[tf.Tensor], keep: tf.Tensor) -> list[tf.Tensor]:
    """Masks of exactly the `keep` largest of all keys together.

    Args:
        keys: int32 tensors of any shapes, as `rank_keys` makes them.
        keep: an int32 scalar between 1 and the number of keys.

    Returns:
        Bool tensors of the shapes of `keys`, `keep` of them True in all.
    """
    upper = [tf.bitwise.right_shift(k, _LOW) for k in keys]
    bucket, above = _kth_largest(_histogram(upper, 1 << (31 - _LOW)), keep)
    size = 1 << _LOW
    # What lies in other buckets is counted in a bin of its own, past the end.
    lower = [
        tf.where(tf.equal(u, bucket), tf.bitwise.bitwise_and(k, size - 1), size)
        for k, u in zip(keys, upper, strict=True)
    ]
    low, above_low = _kth_largest(_histogram(lower, size + 1)[:size], keep - above)
    threshold = tf.bitwise.left_shift(bucket, _LOW) + low
    quota = keep - above - above_low
    masks = []
    for k in keys:
        tied = tf.equal(k, threshold)
        count = tf.math.count_nonzero(tied, dtype=tf.int32)
        masks.append(_cut(k, threshold, tied, count, quota))
        quota = tf.maximum(quota - count, 0)
    return masks


def _histogram(digits: list[tf.Tensor], size: int) -> tf.Tensor:
    no_weights = tf.zeros([0], tf.int32)
    counts = [
        tf.raw_ops.DenseBincount(input=tf.reshape(d, [-1]), size=size, weights=no_weights, binary_output=False)
        for d in digits
    ]
    return tf.add_n(counts)


def _kth_largest(histogram: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bin that holds the k-th largest, and how many lie in higher bins."""
    # Row by row, so that the running sums are short.
    table = tf.reshape(histogram, (-1, _ROW))
    row, above_row = _search(tf.reduce_sum(table, axis=1), k)
    column, above = _search(table[row], k - above_row)
    return row * _ROW + column, above_row + above


def _search(counts: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    from_top = tf.cumsum(counts, reverse=True)
    index = tf.math.count_nonzero(from_top >= k, dtype=tf.int32) - 1
    return index, from_top[index] - counts[index]


def _cut(k: tf.Tensor, threshold: tf.Tensor, tied: tf.Tensor, count: tf.Tensor, quota: tf.Tensor) -> tf.Tensor:
    def cut_ties() -> tf.Tensor:
        rank = tf.cumsum(tf.reshape(tf.cast(tied, tf.int32), [-1]))
        return (k > threshold) | (tied & (tf.reshape(rank, tf.shape(k)) <= quota))

    # Numbering the ties costs another pass or two; it is rare that a threshold cuts through them.
    return tf.cond(count <= quota, lambda: k >= threshold, cut_ties)
