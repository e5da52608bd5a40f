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
_ROW_BINS = 128  # that are added up in one running sum

Histograms: TypeAlias = Callable[[tf.Tensor, int], tf.Tensor]
"""Counts how often each digit occurs in each group.

It takes the prefixes and a shift. A group's prefix is what is known of the number that is sought: an int64 number,
`(groups,)`, whose lower bits are zero. It returns how often each value of `(number xor prefix) >> shift` occurs among a
group's numbers, `(groups, BINS)`, float64. A number with another prefix has a value of `BINS` or more, or one above
those of the numbers with this prefix. Values of `BINS` or more are not counted.
"""


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Which kernels are ranked together.

    Attributes:
        group_of_kernel: for each kernel the number of its group. Kernels of a group are neighbours in this list.
    """

    group_of_kernel: Sequence[int]

    @functools.cached_property
    def members(self) -> list[list[int]]:
        """For each group the numbers of its kernels."""
        return [
            [kernel for kernel, number in enumerate(self.group_of_kernel) if number == group]
            for group in range(self.group_of_kernel[-1] + 1)
        ]

    @property
    def has_single_kernels(self) -> bool:
        """Whether each kernel is ranked by itself."""
        return len(self.members) == len(self.group_of_kernel)

    def sum_by_group(self, values: tf.Tensor) -> tf.Tensor:
        """Sums over the kernels of each group, `(groups, ...)`.

        Args:
            values: `(kernels, ...)`.
        """
        if self.has_single_kernels:
            return values
        return tf.stack([tf.reduce_sum(tf.gather(values, kernels), axis=0) for kernels in self.members])

    def by_kernel(self, values: tf.Tensor) -> tf.Tensor:
        """For each kernel the value of its group, `(kernels, ...)`.

        Args:
            values: `(groups, ...)`.
        """
        return values if self.has_single_kernels else tf.gather(values, self.group_of_kernel)

    def share(self, quota: tf.Tensor, available: tf.Tensor) -> tf.Tensor:
        """How much of its group's quota each kernel gets, `(kernels,)`, float64.

        The first kernel gets as much as it has, then the next, until the quota is used up.

        Args:
            quota: `(groups,)`, float64.
            available: how much each kernel has, `(kernels,)`, float64.
        """
        if self.has_single_kernels:
            return quota
        before = tf.cumsum(available, exclusive=True)
        first_kernels = [kernels[0] for kernels in self.members]
        left = self.by_kernel(quota + tf.gather(before, first_kernels)) - before
        return tf.clip_by_value(left, 0, available)


def kth_smallest(histograms: Histograms, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The k-th smallest number of each group, and how many of those equal to it are among the k smallest.

    If k is less than 1, or a group has fewer than k numbers, no error is raised, and the result may be a number that
    does not occur.

    Args:
        histograms: counts digits of the numbers.
        k: `(groups,)`, float64.

    Returns:
        Numbers `(groups,)`, int64, and counts `(groups,)`, float64, 1 or more.
    """
    prefix = tf.zeros_like(k, tf.int64)
    for shift in _SHIFTS:
        bins, before = kth_bins(histograms(prefix, shift), k[:, tf.newaxis])
        prefix += bins[:, 0] * (1 << shift)
        k -= before[:, 0]
    return prefix, k


def kth_bins(histograms: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bins of the k-th smallest numbers, int64, and how many numbers lie in lower bins, float64: `(groups, n)`.

    Args:
        histograms: `(groups, bins)`, float64.
        k: `(groups, n)`, float64. One that is above a group's size gives the last bin.
    """
    # Row by row, so that the running sums are short.
    table = tf.reshape(histograms, (histograms.shape[0], -1, _ROW_BINS))
    row, in_rows_before = _search(tf.reduce_sum(table, axis=2)[:, tf.newaxis], k)
    column, in_columns_before = _search(tf.gather(table, row, batch_dims=1), k - in_rows_before)
    return row * _ROW_BINS + column, in_rows_before + in_columns_before


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


def count_by_row(values: tf.Tensor, size: int) -> tf.Tensor:
    """How often each number below `size` occurs in each row of integers, `(rows, size)`, float64.

    Args:
        values: integers, `(rows, columns)`.
        size: how many numbers are counted.
    """
    integers, no_weights = tf.cast(values, tf.int32), tf.zeros([0], tf.int32)
    counts = tf.raw_ops.DenseBincount(input=integers, size=size, weights=no_weights, binary_output=False)
    return tf.cast(counts, tf.float64)
