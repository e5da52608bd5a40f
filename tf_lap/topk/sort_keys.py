"""Ranks: one non-negative integer a weight; larger ranks are pruned later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

INFINITY = 0x7F800000  # its bits, the largest of a number
FIRST_SCORE = (INFINITY >> 9) + 3
"""Below it is room for the weights whose score is zero."""
INFINITE = INFINITY + FIRST_SCORE
"""The rank of an infinite score, the largest."""


class Kept(NamedTuple):
    """What is kept of some kernels.

    Attributes:
        masks: bool, of the kernels' shapes, True where the weight stays.
        lowest: float32, the lowest score that is kept; where kernels are ranked in groups, one for each group.
    """

    masks: list[Any]
    lowest: Any


def keys(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """The ranks of a kernel's weights, int64 below 2**31, in their shape.

    From the bottom: 0 for a weight that is pruned; then weights that are zero; weights whose score is zero, by their
    magnitude (between dead channels no score is above zero, and a live weight must not make room for a zero); and all
    others by their scores. Non-negative float32 numbers are ordered as the integers with the same bits.

    Args:
        scores: non-negative float32, finite or infinite; no NaN, no -0.0, and 0 where a weight is pruned already.
        weights: float32.
        live: bool, False where a weight is pruned already; or zeros there and ones elsewhere, float32.
    """
    # Without the sign, which a NaN's may have, and no larger than infinity's: no key may leave int32's range.
    bits = tf.minimum(tf.bitwise.bitwise_and(bits_of(scores), 0x7FFFFFFF), INFINITY)
    # The upper 22 bits of a magnitude order weights well enough, and leave room below the scores.
    magnitude = tf.bitwise.right_shift(bits_of(tf.abs(weights)), 9)
    zero, one = (tf.constant(number, tf.int64) for number in (0, 1))
    rank = tf.where(bits > 0, bits + FIRST_SCORE, tf.where(tf.equal(weights, 0), one, magnitude + 2))
    return tf.where(tf.cast(live, tf.bool), rank, zero)


def bits_of(numbers: tf.Tensor) -> tf.Tensor:
    """The bits of float32 numbers, as int64: TensorFlow takes int32 to the host, on GPUs too."""
    return tf.cast(tf.bitcast(numbers, tf.int32), tf.int64)


def ranks(kernels: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
    """What `keys` gives for each kernel.

    Args:
        kernels: for each what `keys` takes.
    """
    return [keys(*each) for each in kernels]


def score_of(key: tf.Tensor) -> tf.Tensor:
    """The scores, float32, that ranks given as float64 numbers stand for."""
    return tf.bitcast(tf.cast(tf.cast(tf.maximum(key - FIRST_SCORE, 0), tf.int64), tf.uint32), tf.float32)
