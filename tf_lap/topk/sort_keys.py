"""Sort keys: a non-negative integer for each weight. Weights of larger keys are pruned later.

From the lowest to the highest:

- `PRUNED_KEY`, of all weights that are pruned already;
- `ZERO_KEY`, of all live weights that are zero;
- from `MAGNITUDE_OFFSET` on, live weights whose score is zero, by magnitude;
- above `SCORE_OFFSET`, all others, by score.

Between dead channels all scores are zero, and a live weight must not be pruned before a zero. Non-negative float32
numbers have the same order as the integers with the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

PRUNED_KEY = 0
ZERO_KEY = 1
MAGNITUDE_OFFSET = 2
"""The key of the smallest magnitude."""
MAGNITUDE_SHIFT = 9
"""How many bits of a magnitude are left out. The others order weights well enough, and leave room for the scores."""
INFINITY_BITS = 0x7F800000
"""The bits of float32's infinity: above those of every finite number, below those of NaN."""
SCORE_OFFSET = (INFINITY_BITS >> MAGNITUDE_SHIFT) + MAGNITUDE_OFFSET + 1
"""Added to the bits of a score above zero, so that its key exceeds that of every magnitude."""
LARGEST_KEY = INFINITY_BITS + SCORE_OFFSET
"""The key of an infinite score."""


class TopK(NamedTuple):
    """The weights of the largest scores.

    Attributes:
        masks: for each kernel bool, of its shape, True where the weight stays.
        threshold: float32, the lowest score that stays; where kernels are ranked in groups, one for each group.
    """

    masks: list[Any]
    threshold: Any


def make_sort_keys(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """The sort keys of a kernel's weights, int64 below 2**31, in their shape.

    Args:
        scores: float32, non-negative, finite or infinite; 0 where a weight is pruned already.
        weights: float32.
        live: False where a weight is pruned already, bool; or zeros and ones, float32.
    """
    # Without the sign, which a NaN may have, and no larger than infinity: no key may leave int32's range.
    score_bits = tf.minimum(tf.bitwise.bitwise_and(bits_of(scores), 0x7FFFFFFF), INFINITY_BITS)
    magnitudes = tf.bitwise.right_shift(bits_of(tf.abs(weights)), MAGNITUDE_SHIFT)
    pruned_key, zero_key = (tf.constant(key, tf.int64) for key in (PRUNED_KEY, ZERO_KEY))
    without_score = tf.where(tf.equal(weights, 0), zero_key, magnitudes + MAGNITUDE_OFFSET)
    live_keys = tf.where(score_bits > 0, score_bits + SCORE_OFFSET, without_score)
    return tf.where(tf.cast(live, tf.bool), live_keys, pruned_key)


def bits_of(numbers: tf.Tensor) -> tf.Tensor:
    """The bits of float32 numbers, as int64: TensorFlow keeps int32 tensors on the host, even with a GPU."""
    return tf.cast(tf.bitcast(numbers, tf.int32), tf.int64)


def scores_of(sort_keys: tf.Tensor) -> tf.Tensor:
    """The scores that sort keys stand for, float32; 0 for keys of weights without a score.

    Args:
        sort_keys: float64.
    """
    score_bits = tf.cast(tf.maximum(sort_keys - SCORE_OFFSET, 0), tf.int64)
    return tf.bitcast(tf.cast(score_bits, tf.uint32), tf.float32)
