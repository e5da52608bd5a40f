"""The k-th smallest of many numbers of at most 31 bits, digit by digit, without sorting.

A histogram of the upper bits names the bin that holds it, one of the next bits from there on a smaller one, and a third
the number itself. Counts are float64 as soon as they are there, exact far beyond any kernel: int32 TensorFlow takes to
the host, on GPUs too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

_DIGIT = 11  # bits
BINS = 1 << _DIGIT
_SHIFTS = (20, 9, 0)  # of the digits, from the upper one on
_ROW = 128

Histograms = Callable[[tf.Tensor, int], tf.Tensor]
"""Of a base, int64, one for each group, and a shift: how often `(number xor base) >> shift` occurs among the group's
numbers, `(groups, BINS)`, float64, those beyond not counted. So one that differs from the base above the next digit
comes behind all others or is not counted."""


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

    @property
    def single(self) -> bool:
        """Whether each kernel is ranked by itself."""
        return len(self.members) == len(self.owner)

    def sums(self, values: tf.Tensor) -> tf.Tensor:
        """Sums over each group of what stands for its kernels along the first axis."""
        if self.single:
            return values
        return tf.stack([tf.reduce_sum(tf.gather(values, kernels), axis=0) for kernels in self.members])

    def each(self, values: tf.Tensor) -> tf.Tensor:
        """For each kernel its group's value."""
        return values if self.single else tf.gather(values, self.owner)

    def shared(self, quota: tf.Tensor, available: tf.Tensor) -> tf.Tensor:
        """How much each kernel takes of its group's quota, the first as much as it has, then the next, float64."""
        if self.single:
            return quota
        before = tf.cumsum(available, exclusive=True)
        first = [kernels[0] for kernels in self.members]
        return tf.clip_by_value(tf.gather(quota + tf.gather(before, first), self.owner) - before, 0, available)


def kth_smallest(histograms: Histograms, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The k-th smallest number of each group, int64, and the how-manieth it is of those that equal it, float64.

    Where k is less than 1, or a group has fewer, it is as if there were such a number: the caller counts how many are.

    Args:
        histograms: of the numbers.
        k: float64, for each group.
    """
    base = tf.zeros_like(k, tf.int64)
    for shift in _SHIFTS:
        bins, before = kth_bins(histograms(base, shift), k[:, tf.newaxis])
        base += bins[:, 0] * (1 << shift)
        k -= before[:, 0]
    return base, k


def kth_bins(histograms: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bins that hold the k-th smallest, int64, and how many lie in lower bins, float64.

    Args:
        histograms: float64, for each group.
        k: `(groups, n)`, float64: n for each group. Where it has fewer than one of them, the last bin.
    """
    # Row by row, so that the running sums are short.
    table = tf.reshape(histograms, (histograms.shape[0], -1, _ROW))
    row, above = _search(tf.reduce_sum(table, axis=2)[:, tf.newaxis], k)
    column, more = _search(tf.gather(table, row, batch_dims=1), k - above)
    return row * _ROW + column, above + more


def _search(counts: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # The last is never passed over.
    most = tf.cumsum(counts, axis=2)[:, :, :-1]
    passed = tf.cast(most < k[:, :, tf.newaxis], tf.float64)
    before = tf.reduce_sum(passed * counts[:, :, :-1], axis=2)
    return tf.cast(tf.reduce_sum(passed, axis=2), tf.int64), before


def row_counts(values: tf.Tensor, size: int) -> tf.Tensor:
    """How often each number below `size` occurs in each row of integers, float64."""
    integers, none = tf.cast(values, tf.int32), tf.zeros([0], tf.int32)
    counts = tf.raw_ops.DenseBincount(input=integers, size=size, weights=none, binary_output=False)
    return tf.cast(counts, tf.float64)
