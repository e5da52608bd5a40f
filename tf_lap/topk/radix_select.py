"""The k-th smallest of many numbers of at most 31 bits, digit by digit, without sorting.

A number has three digits, of 11, 11 and 9 bits. A histogram of the upper digits tells the upper digit of the k-th
smallest. A histogram over the numbers with that upper digit tells the next one, and a third histogram the last one.
Counts are float64, which is exact far beyond any kernel: TensorFlow keeps int32 tensors on the host, even with a GPU.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import tensorflow as tf

_DIGIT_BITS = 11
BINS = 1 << _DIGIT_BITS
"""How many values a digit has."""
_SHIFTS = (20, 9, 0)  # of the digits, the upper one first
_ROW = 128  # bins that are added up in one running sum

Histograms: TypeAlias = Callable[[tf.Tensor, int], tf.Tensor]
"""Counts how often each digit occurs in each group.

It takes the digits that are known already, as int64 numbers `(groups,)` whose other bits are zero, and a shift. It
returns how often each value of `(number xor known digits) >> shift` occurs among a group's numbers, `(groups, BINS)`,
float64. A number whose known digits differ has a value of `BINS` or more, or one above those of the numbers whose known
digits agree. Values of `BINS` or more are not counted.
"""


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups of kernels that are ranked together.

    Attributes:
        owner: for each kernel the number of its group. Kernels of a group are neighbours in this list.
    """

    owner: Sequence[int]

    @functools.cached_property
    def members(self) -> list[list[int]]:
        """For each group the numbers of its kernels."""
        return [
            [kernel for kernel, owner in enumerate(self.owner) if owner == group] for group in range(self.owner[-1] + 1)
        ]

    @property
    def has_single_kernels(self) -> bool:
        """Whether each kernel is ranked by itself."""
        return len(self.members) == len(self.owner)

    def add_up(self, values: tf.Tensor) -> tf.Tensor:
        """Sums over the kernels of each group, `(groups, ...)`.

        Args:
            values: `(kernels, ...)`.
        """
        if self.has_single_kernels:
            return values
        return tf.stack([tf.reduce_sum(tf.gather(values, kernels), axis=0) for kernels in self.members])

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """For each kernel the value of its group, `(kernels, ...)`.

        Args:
            values: `(groups, ...)`.
        """
        return values if self.has_single_kernels else tf.gather(values, self.owner)

    def share(self, quota: tf.Tensor, available: tf.Tensor) -> tf.Tensor:
        """How many of its group's quota each kernel gets, `(kernels,)`, float64.

        The first kernel gets as many as it has, then the next, until the quota is used up.

        Args:
            quota: `(groups,)`, float64.
            available: how many each kernel has, `(kernels,)`, float64.
        """
        if self.has_single_kernels:
            return quota
        before = tf.cumsum(available, exclusive=True)
        first = [kernels[0] for kernels in self.members]
        return tf.clip_by_value(tf.gather(quota + tf.gather(before, first), self.owner) - before, 0, available)


def kth_smallest(histograms: Histograms, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The k-th smallest number of each group, and its place among those that are equal to it.

    If k is less than 1, or a group has fewer than k numbers, no error is raised, and the result may be a number that
    does not occur.

    Args:
        histograms: counts digits of the numbers.
        k: `(groups,)`, float64.

    Returns:
        Numbers `(groups,)`, int64, and places `(groups,)`, float64, of which the first is 1.
    """
    base = tf.zeros_like(k, tf.int64)
    for shift in _SHIFTS:
        bins, before = kth_bins(histograms(base, shift), k[:, tf.newaxis])
        base += bins[:, 0] * (1 << shift)
        k -= before[:, 0]
    return base, k


def kth_bins(histograms: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bins of the k-th smallest numbers, int64, and how many numbers lie in lower bins, float64: `(groups, n)`.

    Args:
        histograms: `(groups, bins)`, float64.
        k: `(groups, n)`, float64. One that is above a group's size gives the last bin.
    """
    # Row by row, so that the running sums are short.
    table = tf.reshape(histograms, (histograms.shape[0], -1, _ROW))
    row, in_rows_before = _search(tf.reduce_sum(table, axis=2)[:, tf.newaxis], k)
    column, in_columns_before = _search(tf.gather(table, row, batch_dims=1), k - in_rows_before)
    return row * _ROW + column, in_rows_before + in_columns_before


def _search(counts: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The place at which the running sum of counts reaches k, int64, and the sum before it, float64: `(groups, n)`.

    Args:
        counts: `(groups, n, places)` or `(groups, 1, places)`, float64.
        k: `(groups, n)`, float64. One that is above the sum gives the last place.
    """
    sums = tf.cumsum(counts, axis=2)[:, :, :-1]
    is_passed = tf.cast(sums < k[:, :, tf.newaxis], tf.float64)
    before = tf.reduce_sum(is_passed * counts[:, :, :-1], axis=2)
    return tf.cast(tf.reduce_sum(is_passed, axis=2), tf.int64), before


def row_counts(values: tf.Tensor, size: int) -> tf.Tensor:
    """How often each number below `size` occurs in each row of integers, `(rows, size)`, float64.

    Args:
        values: integers, `(rows, columns)`.
        size: how many numbers are counted.
    """
    integers, no_weights = tf.cast(values, tf.int32), tf.zeros([0], tf.int32)
    counts = tf.raw_ops.DenseBincount(input=integers, size=size, weights=no_weights, binary_output=False)
    return tf.cast(counts, tf.float64)
