"""Two ranks that a threshold very likely lies between, from a sample of each kernel."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import tensorflow as tf

from tf_lap.radix import Groups, kth_bins, row_counts
from tf_lap.ranks import INFINITE

_SIZE = (1 << 14, 1 << 16)  # the fewest and the most of a sample
_ONE_IN = 32  # so many weights, between those two
_SHIFT, _BINS = 15, 1 << 12  # 256 bins an octave, for sixteen octaves below the largest
_DEVIATIONS = 3.5  # of the sample's error; beyond them lies one threshold in two thousand


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample of the ranks of some kernels.

    Attributes:
        groups: which kernels are ranked together.
        sizes: how many weights each kernel has.
    """

    groups: Groups
    sizes: Sequence[int]

    def draw(self, ranks: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Where in their group's histogram the sampled ranks are, one kernel a row, and the highest of each group.

        To be fused; both are the bits of float32. Infinite scores, which what must stay is given, are with the highest
        of the others, from which on down the histogram counts.
        """
        taken = self._taken
        some = [
            tf.pad(tf.reshape(tf.bitcast(each, tf.int32), [-1])[::stride], [[0, max(taken) - number]])
            for each, stride, number in zip(ranks, self._strides, taken, strict=True)
        ]
        finite = [tf.where(keys < INFINITE, keys, 0) for keys in some]
        highest = [tf.reduce_max(tf.stack([finite[k] for k in kernels])) for kernels in self.groups.members]
        down = tf.stack([tf.maximum(highest[g] - keys, 0) for g, keys in zip(self.groups.owner, some, strict=True)])
        return tf.bitcast(tf.bitwise.right_shift(down, _SHIFT), tf.float32), tf.bitcast(highest, tf.float32)

    def bracket(self, drawn: tuple[tf.Tensor, tf.Tensor], keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """For each group two ranks, float64, that the threshold very likely lies between, or is.

        Args:
            drawn: what `draw` gave.
            keep: float64, how many of each group lie above the threshold or are it.
        """
        bins, highest = drawn
        histograms = self.groups.sums(row_counts(bins, _BINS))
        highest = tf.cast(tf.bitcast(highest, tf.uint32), tf.float64)
        size = tf.constant(self._totals(self._taken), tf.float64)
        share = keep / tf.constant(self._totals(self.sizes), tf.float64)
        margin = _DEVIATIONS * tf.sqrt(size * share * (1 - share)) + 2
        first, last = size * share - margin, size * share + margin
        found, _ = kth_bins(histograms, tf.stack([first, last], axis=1))
        upper, lower = tf.unstack(tf.cast(found, tf.float64) * float(1 << _SHIFT), axis=1)
        high = tf.where((first >= 1) & (upper > 0), highest - upper, float(INFINITE))
        # Pruned weights are not among the candidates: most of a sparse kernel's are.
        least = tf.maximum(highest - lower - float((1 << _SHIFT) - 1), 1)
        return tf.where(last <= tf.reduce_sum(histograms, axis=1), least, 1), high

    @functools.cached_property
    def _strides(self) -> list[int]:
        """A step through each kernel that comes through all its channels; the same for a group, or nearly."""
        strides = []
        fewest, most = _SIZE
        for kernels, size in zip(self.groups.members, self._totals(self.sizes), strict=True):
            least = max(1, size // min(max(size // _ONE_IN, fewest), most))
            strides += [next(s for s in range(least, size + 2) if math.gcd(s, self.sizes[k]) == 1) for k in kernels]
        return strides

    @functools.cached_property
    def _taken(self) -> list[int]:
        return [-(-size // stride) for size, stride in zip(self.sizes, self._strides, strict=True)]

    def _totals(self, counts: Sequence[int]) -> list[int]:
        """The sum over each group of a count for each kernel."""
        return [sum(counts[k] for k in kernels) for kernels in self.groups.members]
