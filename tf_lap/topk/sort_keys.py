"""Sort keys: a non-negative integer for each weight. Weights of larger keys are pruned later.

Weights whose score is zero have keys too, so that they are pruned in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

INFINITY = 0x7F800000
"""The bits of infinity, the largest of a float32 that is a number."""
FIRST_SCORE = (INFINITY >> 9) + 3
"""Added to the bits of a score above zero. So its key exceeds that of every weight whose score is zero."""
INFINITE = INFINITY + FIRST_SCORE
"""The sort key of an infinite score, the largest of all."""


class Kept(NamedTuple):
    """What is kept of some kernels.

    Attributes:
        masks: bool, of the kernels' shapes, True where the weight stays.
        lowest: float32, the lowest score that is kept; where kernels are ranked in groups, one for each group.
    """

    masks: list[Any]
    lowest: Any


def keys(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """The sort keys of a kernel's weights, int64 below 2**31, in their shape.

    From the lowest to the highest: 0 for a pruned weight; 1 for a live weight that is zero; live weights whose score is
    zero, by magnitude; all others, by score. Between dead channels all scores are zero, and a live weight must not be
    pruned before a zero. Non-negative float32 numbers have the same order as the integers with the same bits.

    Args:
        scores: float32, non-negative, finite or infinite; 0 where a weight is pruned already.
        weights: float32.
        live: False where a weight is pruned already, bool; or zeros and ones, float32.
    """
    # Without the sign, which a NaN may have, and no larger than infinity: no key may leave int32's range.
    bits = tf.minimum(tf.bitwise.bitwise_and(bits_of(scores), 0x7FFFFFFF), INFINITY)
    # The upper 22 bits of a magnitude order weights well enough, and leave room below the scores.
    magnitudes = tf.bitwise.right_shift(bits_of(tf.abs(weights)), 9)
    pruned_key, zero_key = (tf.constant(number, tf.int64) for number in (0, 1))
    live_keys = tf.where(bits > 0, bits + FIRST_SCORE, tf.where(tf.equal(weights, 0), zero_key, magnitudes + 2))
    return tf.where(tf.cast(live, tf.bool), live_keys, pruned_key)


def bits_of(numbers: tf.Tensor) -> tf.Tensor:
    """The bits of float32 numbers, as int64: TensorFlow keeps int32 tensors on the host, even with a GPU."""
    return tf.cast(tf.bitcast(numbers, tf.int32), tf.int64)


def ranks(kernels: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
    """The sort keys of several kernels.

    Args:
        kernels: for each the arguments of `keys`.
    """
    return [keys(*kernel) for kernel in kernels]


def score_of(key: tf.Tensor) -> tf.Tensor:
    """The scores of sort keys, float32; 0 for keys of weights without a score.

    Args:
        key: sort keys, float64.
    """
    return tf.bitcast(tf.cast(tf.cast(tf.maximum(key - FIRST_SCORE, 0), tf.int64), tf.uint32), tf.float32)
