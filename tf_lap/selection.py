"""The exact k-th largest of many scores, on the device where they are, without sorting.

Non-negative float32 numbers are ordered as the integers with the same bits. A sample first tells two numbers that the
threshold very likely lies between; what lies above both is counted, and what lies between them, one weight in thirty or
so, is collected and searched. What comes of it is counted: where the sample misled, or the threshold is zero, all are
searched. Ties are kept from the lowest flat index, in the order of the kernels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lap import compat
from tf_lap.fused import fused
from tf_lap.radix import Groups, histograms_of, kth_largest, threshold_of

_INFINITY = 0x7F800000  # its bits, the largest of a number
_FIRST_SCORE = (_INFINITY >> 9) + 3
_SAMPLED = (17, 14)  # (first bit, bits) of what is looked at in a sample
_SAMPLE = (1 << 13, 1 << 15)  # the fewest and the most of it
_ONE_IN = 64  # so many weights, between those two
_DEVIATIONS = 3.5  # of the sample's error; beyond them lies one threshold in two thousand
_AT_ONCE = 16  # kernels
WEIGHTS_AT_ONCE = 1 << 22
_BESIDE = 4  # weights in a row: most rows have none that the threshold may be among
# More than are in a row: two counts go into one number, those above times 1 and those within times this.
_WITHIN = 1 << 8

_Finish = Callable[[list[tf.Tensor]], Any]


class _Ranked(NamedTuple):
    """Kernels in the order of their groups.

    Attributes:
        scores: of each kernel.
        weights: likewise.
        live: likewise.
        groups: which belong together.
    """

    scores: list[tf.Tensor]
    weights: list[tf.Tensor]
    live: list[tf.Tensor]
    groups: Groups


class _Cut(NamedTuple):
    """Where kernels are cut.

    Attributes:
        threshold: uint32, for each group the last key that is kept.
        last: int64, for each kernel the flat index up to which keys that equal the threshold are kept.
    """

    threshold: tf.Tensor
    last: tf.Tensor


class Kept(NamedTuple):
    """What `keep_largest` gives.

    Attributes:
        masks: bool tensors, or what `then` made of them.
        counts: float64, how many are True in each mask, before `then`.
        lowest: float32, for each group the score of the last that is kept.
    """

    masks: Any
    counts: tf.Tensor
    lowest: tf.Tensor


def keep_largest(
    scores: Sequence[tf.Tensor],
    weights: Sequence[tf.Tensor],
    live: Sequence[tf.Tensor],
    keep: tf.Tensor,
    groups: Sequence[Sequence[int]] | None = None,
    then: _Finish = list,
) -> Kept:
    """Masks of the `keep` highest ranks of each group of kernels; of all that are live, where there are fewer.

    From the bottom rank: weights that are zero; weights whose score is zero, by their magnitude (between dead
    channels no score is above zero, and a live weight must not make room for a zero); and all others by their scores.

    Args:
        scores: for each kernel non-negative float32, finite or infinite; no NaN, no -0.0, and 0 where a weight is
            pruned already.
        weights: its float32 weights.
        live: bool, False where a weight is pruned already; or zeros there and ones elsewhere, float32.
        keep: int32, for each group a count between 1 and the number of its weights.
        groups: the numbers of the kernels that are ranked together, in order; each kernel by itself if None.
        then: what to make of the masks in the same pass.

    Returns:
        Masks with exactly `keep` True in a group where as many are live.
    """
    groups = [[i] for i in range(len(scores))] if groups is None else groups
    order = list(itertools.chain.from_iterable(groups))
    some = ([tf.convert_to_tensor(each[i]) for i in order] for each in (scores, weights, live))
    ranked = _Ranked(*some, Groups([g for g, group in enumerate(groups) for _ in group]))

    def finish(masks: list[tf.Tensor]) -> Any:
        by_kernel = dict(zip(order, masks, strict=True))
        return then([by_kernel[i] for i in range(len(scores))])

    # XLA compiles for minutes, and searches wrongly, where it does not know how many there are.
    search = _whole if compat.under_xla() else _narrowed
    found = search(ranked, tf.cast(keep, tf.float64), finish)
    return found._replace(counts=tf.gather(found.counts, [order.index(i) for i in range(len(order))]))


def batches(sizes: Sequence[int]) -> list[list[int]]:
    """Which kernels, given their numbers of weights, to pass to `keep_largest` at once.

    Kernels that are searched together cost few small operations; but what they need meanwhile adds up.
    """
    together: list[list[int]] = []
    weights = 0
    for i, size in enumerate(sizes):
        if not together or len(together[-1]) == _AT_ONCE or weights + size > WEIGHTS_AT_ONCE:
            together.append([])
            weights = 0
        together[-1].append(i)
        weights += size
    return together


def count(flags: tf.Tensor) -> tf.Tensor:
    """How many are True, float64, for use where passes are fused."""
    return _sum(_rows(tf.cast(flags, tf.float32)))


def _sum(rows: tf.Tensor) -> tf.Tensor:
    # Row by row first, which XLA does in parallel.
    return tf.reduce_sum(tf.cast(tf.reduce_sum(rows, axis=1), tf.float64))


def _rows(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel in rows of a few neighbours, with zeros behind it where that does not come out even."""
    flat = tf.reshape(kernel, [-1])
    missing = -flat.shape[0] % _BESIDE
    return tf.reshape(tf.pad(flat, [[0, missing]]) if missing else flat, (-1, _BESIDE))


def _narrowed(ranked: _Ranked, keep: tf.Tensor, finish: _Finish) -> Kept:
    """Searches the scores that each group's threshold may be among."""
    groups = ranked.groups
    bounds = _bracket(ranked, keep)

    def split(scores: list[tf.Tensor], low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        low, high = (tf.gather(tf.bitcast(bound, tf.int32), groups.owner) for bound in (low, high))
        above, within = [], []
        for k, bits in enumerate(_rows(_bits(each)) for each in scores):
            # Both counts in one sum, in one pass.
            kind = tf.where(bits >= high[k], 1, tf.where(bits >= low[k], _WITHIN, 0))
            row = tf.reduce_sum(kind, axis=1)
            above.append(_sum(_rows(tf.cast(row % _WITHIN, tf.float32))))
            within.append(row >= _WITHIN)
        return tf.stack(above), within

    above, within = fused(split)(ranked.scores, *bounds)
    own = zip(ranked.scores, within, *(groups.each(bound) for bound in bounds), strict=True)
    collected = [_collected(*each) for each in own]
    found = [each.keys for each in collected]
    threshold, quota = threshold_of(found, groups, keep - groups.sums(above))
    same = _same(found, groups.each(threshold))
    ties = [each.index(tf.where(flags)[:, 0]) for each, flags in zip(collected, same, strict=True)]
    tied = tf.stack([tf.cast(tf.size(each, tf.int64), tf.float64) for each in ties])
    none = tf.constant([-1], tf.int64)
    last = [
        tf.gather(tf.concat([none, each], axis=0), tf.cast(q, tf.int64))
        for each, q in zip(ties, tf.unstack(groups.shared(quota, tied)), strict=True)
    ]

    # What is made of masks that turn out wrong is thrown away: nothing has been assigned yet.
    def masks(scores: list[tf.Tensor], cut: _Cut) -> Kept:
        lowest = tf.bitcast(cut.threshold, tf.float32)
        return _made([_bits(each) for each in scores], cut, groups, finish, lowest)

    made = fused(masks)(ranked.scores, _Cut(threshold, tf.stack(last)))
    # Of the weights above some threshold, with the first of those that equal it, only the right ones are as many: not
    # so where the sample misled.
    hit = tf.reduce_all(tf.equal(groups.sums(made.counts), keep) & (threshold > 0))
    return tf.cond(hit, lambda: made, lambda: _whole(ranked, keep, finish))


class _Collected(NamedTuple):
    """Some of a kernel's scores.

    Attributes:
        keys: their bits, uint32.
        at: where each of them was in the rows that were looked through.
        rows: the numbers of these rows.
    """

    keys: tf.Tensor
    at: tf.Tensor
    rows: tf.Tensor

    def index(self, some: tf.Tensor) -> tf.Tensor:
        """The flat index of some of them in the kernel."""
        at = tf.gather(self.at, some)
        return tf.gather(self.rows, at // _BESIDE) * _BESIDE + at % _BESIDE


def _collected(score: tf.Tensor, within: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> _Collected:
    """Collects scores between two bounds, given in which rows there are any."""
    rows = tf.where(within)[:, 0]
    few = tf.reshape(tf.gather(_rows(score), rows), [-1])
    bits = tf.bitcast(few, tf.uint32)
    at = tf.where((bits >= low) & (bits < high))[:, 0]
    # Scores and not their bits: GPUs gather no uint32.
    return _Collected(tf.bitcast(tf.gather(few, at), tf.uint32), at, rows)


def _whole(ranked: _Ranked, keep: tf.Tensor, finish: _Finish) -> Kept:
    """Searches all ranks."""
    groups = ranked.groups

    def all_keys(scores: list[tf.Tensor], weights: list[tf.Tensor], live: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.bitcast(keys(_bits(s), *other), tf.uint32) for s, *other in zip(scores, weights, live, strict=True)]

    ranks = fused(all_keys)(ranked.scores, ranked.weights, ranked.live)
    flat = [tf.reshape(each, [-1]) for each in ranks]
    threshold, quota = threshold_of(flat, groups, keep)
    same = [tf.cast(each, tf.float64) for each in _same(flat, groups.each(threshold))]
    quotas = tf.unstack(groups.shared(quota, tf.stack([tf.reduce_sum(each) for each in same])))
    # The one that makes the quota full comes after as many as have not yet. (A range of all numbers would be stored.)
    before = [tf.reduce_sum(tf.cast(tf.cumsum(each) < q, tf.float64)) for each, q in zip(same, quotas, strict=True)]
    last = [tf.cast(tf.where(q > 0, each, -1), tf.int64) for each, q in zip(before, quotas, strict=True)]

    def masks(ranks: list[tf.Tensor], cut: _Cut) -> Kept:
        limit = tf.bitcast(cut.threshold, tf.int32)
        # A threshold of 0 is that of the dead, of whom none is kept.
        last = tf.where(tf.gather(limit, groups.owner) > 0, cut.last, -1)
        lowest = tf.bitcast(tf.maximum(limit - _FIRST_SCORE, 0), tf.float32)
        bits = [tf.bitcast(each, tf.int32) for each in ranks]
        return _made(bits, cut._replace(last=last), groups, finish, lowest)

    return fused(masks)(ranks, _Cut(threshold, tf.stack(last)))


def keys(bits: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Non-negative int32 numbers in the order of the ranks that `keep_largest` goes by.

    Args:
        bits: those of the scores, int32.
        weights: as `keep_largest` takes them, for one kernel.
        live: likewise.
    """
    # The upper 22 bits of a magnitude order weights well enough, and leave room below the scores.
    magnitude = tf.bitwise.right_shift(tf.bitcast(tf.abs(weights), tf.int32), 9)
    rank = tf.where(bits > 0, bits + _FIRST_SCORE, tf.where(tf.equal(weights, 0), 1, magnitude + 2))
    return tf.where(tf.cast(live, tf.bool), rank, 0)


def _bracket(ranked: _Ranked, keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For each group bits, uint32, that the threshold's are very likely not below, and others that they are below."""
    groups = ranked.groups
    sizes = [sum(ranked.scores[k].shape.num_elements() for k in kernels) for kernels in groups.members]
    strides = [_stride(sizes[g], score) for g, score in zip(groups.owner, ranked.scores, strict=True)]
    first_bit, bits = _SAMPLED

    def sample(scores: list[tf.Tensor]) -> list[tf.Tensor]:
        taken = [tf.reshape(score, [-1])[::stride] for score, stride in zip(scores, strides, strict=True)]
        return [tf.bitcast(tf.bitwise.right_shift(_bits(each), first_bit), tf.uint32) for each in taken]

    histograms = groups.sums(histograms_of(fused(sample)(ranked.scores), bits))
    share = keep / tf.constant(sizes, tf.float64)
    size = tf.reduce_sum(histograms, axis=1)
    margin = _DEVIATIONS * tf.sqrt(size * share * (1 - share)) + 2
    first, last = size * share - margin, size * share + margin
    upper, _ = kth_largest(histograms, tf.maximum(first, 1))
    lower, _ = kth_largest(histograms, tf.minimum(last, size))
    shift, one = tf.constant(first_bit, tf.uint32), tf.constant(1, tf.uint32)
    high = tf.where(first >= 1, tf.bitwise.left_shift(upper + one, shift), tf.constant(_INFINITY + 1, tf.uint32))
    # Zeros are not among the candidates: most of a sparse kernel's scores are.
    return tf.where(last <= size, tf.maximum(tf.bitwise.left_shift(lower, shift), one), one), high


def _stride(size: int, score: tf.Tensor) -> int:
    """A step through a kernel of a group of a size that comes through all its channels."""
    fewest, most = _SAMPLE
    stride = max(1, size // min(max(size // _ONE_IN, fewest), most))
    while math.gcd(stride, score.shape.num_elements()) > 1:
        stride += 1
    return stride


def _same(ranks: Sequence[tf.Tensor], thresholds: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    return [tf.equal(key, own) for key, own in zip(ranks, thresholds, strict=True)]


def _made(bits: list[tf.Tensor], cut: _Cut, groups: Groups, finish: _Finish, lowest: tf.Tensor) -> Kept:
    """Keeps the int32 keys that are above their group's threshold, or equal it and are not behind the last of those."""
    threshold = tf.gather(tf.bitcast(cut.threshold, tf.int32), groups.owner)
    masks = []
    for k, each in enumerate(bits):
        number = _numbered(each)
        # One more than the threshold, where it is not above it, only for those up to the last.
        masks.append(each + tf.cast(number <= tf.cast(cut.last[k], number.dtype), tf.int32) > threshold[k])
    return Kept(finish(masks), tf.stack([count(mask) for mask in masks]), lowest)


def _numbered(kernel: tf.Tensor) -> tf.Tensor:
    """The flat index of each weight, in the shorter integers where they reach."""
    size, last = kernel.shape.num_elements(), kernel.shape[-1]
    dtype = tf.int32 if size <= tf.int32.max else tf.int64
    # From two short ranges: one of all numbers would be stored with the compiled function.
    rows = tf.reshape(tf.range(size // last, dtype=dtype) * last, (*kernel.shape[:-1], 1))
    return rows + tf.range(last, dtype=dtype)


def _bits(scores: tf.Tensor) -> tf.Tensor:
    # Without the sign, which a NaN's may have, and no larger than infinity's: no key may leave int32's range.
    return tf.minimum(tf.bitwise.bitwise_and(tf.bitcast(scores, tf.int32), 0x7FFFFFFF), _INFINITY)
