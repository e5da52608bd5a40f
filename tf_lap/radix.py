"""The k-th largest of keys, digit by digit.

A histogram of the upper bits of all keys names the bucket that holds it, one of the next bits within that bucket a
smaller one, and a third the key itself. Histograms are float64 as soon as they are there, exact far beyond any kernel:
int32 TensorFlow takes to the host, on GPUs too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf

_DIGITS = ((20, 11), (10, 10), (0, 10))  # (first bit, bits) of the digits of a key
_ROW = 128


@dataclasses.dataclass(frozen=True)
class Groups:
    """Which kernels are ranked together.

    Attributes:
        owner: the number of each kernel's group; kernels of a group stand side by side.
    """

    owner: Sequence[int]

    @functools.cached_property
    def members(self) -> list[list[int]]:
        """The kernels of each group."""
        return [[k for k, owner in enumerate(self.owner) if owner == g] for g in range(self.owner[-1] + 1)]

    def sums(self, values: tf.Tensor) -> tf.Tensor:
        """Sums over each group of what stands for its kernels along the first axis."""
        if len(self.members) == len(self.owner):
            return values
        return tf.stack([tf.reduce_sum(tf.gather(values, kernels), axis=0) for kernels in self.members])

    def each(self, values: tf.Tensor) -> list[tf.Tensor]:
        """For each kernel its group's value, uint32, in a tensor of one."""
        # As float32: GPUs have neither operation for uint32.
        parts = tf.split(tf.gather(tf.bitcast(values, tf.float32), self.owner), len(self.owner))
        return [tf.bitcast(part, tf.uint32) for part in parts]

    def shared(self, quota: tf.Tensor, available: tf.Tensor) -> tf.Tensor:
        """How much each kernel takes of its group's quota, the first as much as it has, then the next, float64."""
        before = tf.cumsum(available, exclusive=True)
        first = [kernels[0] for kernels in self.members]
        return tf.clip_by_value(tf.gather(quota + tf.gather(before, first), self.owner) - before, 0, available)


def threshold_of(ranks: Sequence[tf.Tensor], groups: Groups, keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `keep`-th largest of each group's keys, uint32, and how many that equal it are kept, float64.

    Args:
        ranks: for each kernel uint32 keys below 2^31.
        groups: which of them belong together.
        keep: how many, for each group.
    """
    base = tf.zeros_like(keep, tf.uint32)
    for first_bit, bits in _DIGITS:
        shift = tf.constant(first_bit, tf.uint32)
        # Without the group's bits so far, all others are beyond a digit.
        digits = [
            tf.bitwise.right_shift(tf.bitwise.bitwise_xor(key, own), shift)
            for key, own in zip(ranks, groups.each(base), strict=True)
        ]
        digit, above = kth_largest(groups.sums(histograms_of(digits, bits)), keep)
        base += tf.bitwise.left_shift(digit, shift)
        keep -= above
    return base, keep


def histograms_of(digits: Sequence[tf.Tensor], bits: int) -> tf.Tensor:
    """How often each digit occurs in each kernel, `(kernels, 2^bits)`; digits are uint32, larger ones not counted."""
    # As one row the count is one thread's, and needs less around it: kernels are counted side by side.
    counts = [
        tf.raw_ops.DenseBincount(
            input=tf.bitcast(tf.reshape(each, [1, -1]), tf.int32),
            size=1 << bits,
            weights=tf.zeros([0], tf.int32),
            binary_output=False,
        )
        for each in digits
    ]
    return tf.concat([tf.cast(each, tf.float64) for each in counts], axis=0)


def kth_largest(histograms: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For each group the bin that holds the k-th largest, uint32, and how many lie in higher bins."""
    # Row by row, so that the running sums are short.
    table = tf.reshape(histograms, (histograms.shape[0], -1, _ROW))
    row, above_row = _search(tf.reduce_sum(table, axis=2), k)
    column, above = _search(_entries(table, row), k - above_row)
    return tf.cast(row * _ROW + column, tf.uint32), above_row + above


def _search(counts: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    from_top = tf.cumsum(counts, axis=1, reverse=True)
    reached = tf.reduce_sum(tf.cast(from_top >= k[:, tf.newaxis], tf.float64), axis=1)
    index = tf.cast(tf.maximum(reached - 1, 0), tf.int64)
    return index, _entries(from_top - counts, index)


def _entries(table: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """`table[g, index[g]]` for each g.

    Gathered and not sliced: XLA wants a slice's beginning as a constant, takes the weights for constants to compute
    it, and compiles for minutes, at each value anew.
    """
    groups, length = table.shape[:2]
    first = tf.range(0, groups * length, length, dtype=tf.int64)
    return tf.gather(tf.reshape(table, (groups * length, *table.shape[2:])), index + first)
