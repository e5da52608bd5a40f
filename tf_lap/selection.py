"""Masks of the highest ranks, exactly as many as wanted, on the device where they are, without sorting.

A sample first tells two ranks that the threshold very likely lies between; what lies above both is counted, and what
lies between them, one weight in thirty or so, is collected and searched. What is found shows whether the sample
misled: then all are searched. Ties are kept from the lowest flat index, in the order of the kernels.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lap import compat
from tf_lap.bracket import Sample
from tf_lap.fused import fused
from tf_lap.radix import BINS, Groups, kth_smallest, row_counts
from tf_lap.ranks import INFINITE, score_of

_BITS = 31  # of a rank
_AT_ONCE = 16  # kernels
WEIGHTS_AT_ONCE = 1 << 22
_BESIDE = 4  # weights in a row: most rows have none that the threshold may be among
# More than are in a row: two counts go into one number, those above times 1 and those within times this.
_WITHIN = 1 << 8

_Finish = Callable[[list[tf.Tensor]], Any]


class _Ranked(NamedTuple):
    """Kernels in the order of their groups.

    Attributes:
        ranks: of each kernel.
        groups: which belong together.
        keep: float64, for each group.
    """

    ranks: list[tf.Tensor]
    groups: Groups
    keep: tf.Tensor


class Kept(NamedTuple):
    """What `keep_largest` gives.

    Attributes:
        masks: bool tensors, or what `finish` made of them.
        counts: float64, how many are True in each mask, before `finish`.
        lowest: float32, for each group the score of the last that is kept.
    """

    masks: Any
    counts: tf.Tensor
    lowest: tf.Tensor


def keep_largest(
    ranks: Sequence[tf.Tensor],
    keep: tf.Tensor,
    groups: Sequence[Sequence[int]] | None = None,
    finish: _Finish = list,
    then: Callable[[Kept], Any] = lambda kept: kept,
    misled: Callable[[], Any] | None = None,
) -> Any:
    """Masks of the `keep` highest ranks of each group of kernels; of all that are live, where there are fewer.

    Args:
        ranks: for each kernel what `tf_lap.ranks.ranks` gives.
        keep: int32, for each group a count between 1 and the number of its weights.
        groups: the numbers of the kernels that are ranked together, in order; each kernel by itself if None.
        finish: what to make of the masks in the same pass.
        then: what to make of what was kept.
        misled: what to do instead of all that where the sample misled, if not search all ranks. Compiled by XLA as a
            whole, all ranks are searched anyway.

    Returns:
        What `then` makes of masks with exactly `keep` True in a group where as many are live; or what `misled` gives.
    """
    groups = [[i] for i in range(len(ranks))] if groups is None else groups
    order = list(itertools.chain.from_iterable(groups))
    places = [order.index(i) for i in range(len(order))]
    some = [tf.convert_to_tensor(ranks[i]) for i in order]
    ranked = _Ranked(some, Groups([g for g, group in enumerate(groups) for _ in group]), tf.cast(keep, tf.float64))

    def finished(masks: list[tf.Tensor]) -> Any:
        return finish([masks[place] for place in places])

    def done(search: Callable[[], Kept]) -> Any:
        found = search()
        return then(found._replace(counts=tf.gather(found.counts, places)))

    everything = functools.partial(done, functools.partial(_whole, ranked, finished))
    # XLA compiles for minutes, and searches wrongly, where it does not know how many there are.
    if compat.under_xla():
        return everything()
    hit, found = _narrowed(ranked, finished)
    return tf.cond(hit, functools.partial(done, found), misled or everything)


def batches(sizes: Sequence[int]) -> list[list[int]]:
    """Which kernels, given their numbers of weights, to pass to `keep_largest` at once.

    Kernels that are searched together cost few small operations; but what they need meanwhile adds up, and two batches
    are searched side by side.
    """
    half = sum(sizes) / 2
    together: list[list[int]] = []
    weights = 0
    for i, size in enumerate(sizes):
        full = weights >= half or weights + size > WEIGHTS_AT_ONCE
        if not together or full or len(together[-1]) == _AT_ONCE:
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


def _narrowed(ranked: _Ranked, finish: _Finish) -> tuple[tf.Tensor, Callable[[], Kept]]:
    """Searches the ranks that each group's threshold may be among: whether it is, and what makes the masks then."""
    groups = ranked.groups
    sample = Sample(groups, [each.shape.num_elements() for each in ranked.ranks])
    low, high = sample.bracket(fused(sample.draw)(ranked.ranks), ranked.keep)

    def split(ranks: list[tf.Tensor], *bounds: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        low, high = (tf.bitcast(bound, tf.int32) for bound in bounds)
        above, within = [], []
        for k, keys in enumerate(_rows(tf.bitcast(each, tf.int32)) for each in ranks):
            # Both counts in one sum, in one pass.
            kind = tf.where(keys > high[k], 1, tf.where(keys >= low[k], _WITHIN, 0))
            row = tf.reduce_sum(kind, axis=1)
            above.append(_sum(_rows(tf.cast(row % _WITHIN, tf.float32))))
            within.append(row >= _WITHIN)
        return tf.stack(above), within

    above, within = fused(split)(ranked.ranks, *(_unsigned(groups.each(bound)) for bound in (low, high)))
    highs, spreads = (_scalars(groups.each(bound)) for bound in (high, high - low))
    some = [_collected(*each) for each in zip(ranked.ranks, within, highs, spreads, strict=True)]

    def histograms(base: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        bases, shifts = (_scalars(groups.each(value)) for value in (base, shift))
        return groups.sums(_counted([_digit(few.below, *own) for few, *own in zip(some, bases, shifts, strict=True)]))

    collected = groups.sums(_lengths([few.at for few in some]))
    rest = ranked.keep - groups.sums(above)
    bits = tf.cast(tf.math.ceil(tf.math.log(tf.maximum(high - low, 0) + 1) / math.log(2)), tf.int64)
    below, quota = kth_smallest(histograms, bits, rest)
    # All above 0 were counted or collected, and they are no more than are to be kept: all that are live stay.
    all_live = (low <= 1) & (rest > collected)

    def found() -> Kept:
        owns = _scalars(groups.each(below))
        ties = [tf.where(tf.equal(few.below, own))[:, 0] for few, own in zip(some, owns, strict=True)]
        quotas = groups.shared(tf.where(all_live, tf.zeros_like(quota), quota), _lengths(ties))
        none = tf.constant([-1], tf.int64)
        last = [
            tf.gather(tf.concat([none, few.index(each)], axis=0), tf.cast(number, tf.int64))
            for few, each, number in zip(some, ties, tf.unstack(quotas), strict=True)
        ]
        threshold = tf.where(all_live, tf.zeros_like(high), high - tf.cast(below, tf.float64))
        counts = tf.minimum(ranked.keep, above + collected) if groups.single else None
        return _made(ranked, threshold, tf.stack(last), counts, finish)

    # All between the two ranks were collected: the threshold is among them if it lies between.
    return tf.reduce_all((rest >= 1) & ((rest <= collected) | all_live)), found


class _Collected(NamedTuple):
    """Some of a kernel's weights, in their order.

    Attributes:
        below: uint32, by how much their ranks are less than the highest that the threshold may be.
        at: int64, where each of them was in the rows that were looked through.
        rows: int64, the numbers of these rows.
    """

    below: tf.Tensor
    at: tf.Tensor
    rows: tf.Tensor

    def index(self, some: tf.Tensor) -> tf.Tensor:
        """The flat index of some of them in the kernel."""
        at = tf.gather(self.at, some)
        return tf.gather(self.rows, at // _BESIDE) * _BESIDE + at % _BESIDE


def _collected(ranks: tf.Tensor, within: tf.Tensor, high: tf.Tensor, spread: tf.Tensor) -> _Collected:
    """Collects the ranks that are so much below the highest, given in which rows there are any."""
    rows = tf.where(within)[:, 0]
    few = tf.reshape(tf.gather(_rows(ranks), rows), [-1])
    # Above the highest the difference wraps around, and is larger than all others.
    below = high - tf.bitcast(few, tf.uint32)
    at = tf.where(below <= spread)[:, 0]
    return _Collected(high - tf.bitcast(tf.gather(few, at), tf.uint32), at, rows)


def _lengths(each: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.stack([tf.cast(tf.size(some, tf.int64), tf.float64) for some in each])


def _scalars(values: tf.Tensor) -> list[tf.Tensor]:
    """Each of these numbers as uint32."""
    # By way of float32: GPUs have no such operation for uint32.
    return [tf.bitcast(each, tf.uint32) for each in tf.unstack(tf.bitcast(_unsigned(values), tf.float32))]


def _unsigned(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.int64), tf.uint32)


def _digit(number: tf.Tensor, base: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(tf.bitwise.bitwise_xor(number, base), shift)


def _counted(digits: Sequence[tf.Tensor]) -> tf.Tensor:
    """A histogram of each of these tensors of integers of 32 bits, or of what has the bits of such."""
    # As one row the count is one thread's, and needs less around it: kernels are counted side by side.
    return tf.concat([row_counts(tf.reshape(each, [1, -1]), BINS) for each in digits], axis=0)


def _whole(ranked: _Ranked, finish: _Finish) -> Kept:
    """Searches all ranks."""
    groups = ranked.groups

    def digits(ranks: list[tf.Tensor], base: tf.Tensor, shift: tf.Tensor) -> list[tf.Tensor]:
        base, shift = (tf.bitcast(value, tf.int32) for value in (base, shift))
        below = (INFINITE - tf.bitcast(each, tf.int32) for each in ranks)
        return [tf.bitcast(_digit(each, base[k], shift[k]), tf.float32) for k, each in enumerate(below)]

    def histograms(base: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        own = (_unsigned(groups.each(value)) for value in (base, shift))
        return groups.sums(_counted(fused(digits)(ranked.ranks, *own)))

    bits = tf.constant([_BITS] * len(groups.members), tf.int64)
    below, quota = kth_smallest(histograms, bits, ranked.keep)
    threshold = INFINITE - tf.cast(below, tf.float64)
    limits = _unsigned(groups.each(threshold))
    same = [
        tf.cast(tf.equal(tf.bitcast(tf.reshape(each, [-1]), tf.uint32), limits[k]), tf.float64)
        for k, each in enumerate(ranked.ranks)
    ]
    quotas = tf.unstack(groups.shared(quota, tf.stack([tf.reduce_sum(each) for each in same])))
    # The one that makes the quota full comes after as many as have not yet. (A range of all numbers would be stored.)
    before = [tf.reduce_sum(tf.cast(tf.cumsum(each) < q, tf.float64)) for each, q in zip(same, quotas, strict=True)]
    # A threshold of 0 is that of the pruned, of whom none is kept.
    last = tf.where(tf.minimum(tf.stack(quotas), groups.each(threshold)) > 0, tf.stack(before), -1.0)
    return _made(ranked, threshold, last, None, finish)


def _made(ranked: _Ranked, threshold: tf.Tensor, last: tf.Tensor, counts: tf.Tensor | None, finish: _Finish) -> Kept:
    """Keeps what ranks above the threshold of its group, or equals it and is not behind the last of those.

    Args:
        ranked: the kernels.
        threshold: of each group, float64.
        last: for each kernel the flat index of the last tie that is kept.
        counts: how many each keeps, where that is known.
        finish: what to make of the masks.
    """

    def masks(ranks: list[tf.Tensor], limits: tf.Tensor, last: tf.Tensor) -> tuple[Any, tf.Tensor | None]:
        limits, kept = tf.bitcast(limits, tf.int32), []
        for k, keys in enumerate(tf.bitcast(each, tf.int32) for each in ranks):
            number = _numbered(keys)
            # One more than the rank, where it is not above the threshold, only for those up to the last.
            kept.append(keys + tf.cast(number <= tf.cast(last[k], number.dtype), tf.int32) > limits[k])
        return finish(kept), tf.stack([count(mask) for mask in kept]) if counts is None else None

    limits = _unsigned(ranked.groups.each(threshold))
    made, counted = fused(masks)(ranked.ranks, limits, tf.cast(last, tf.int64))
    return Kept(made, counted if counts is None else counts, score_of(threshold))


def _numbered(kernel: tf.Tensor) -> tf.Tensor:
    """The flat index of each weight, in the shorter integers where they reach."""
    size, last = kernel.shape.num_elements(), kernel.shape[-1]
    dtype = tf.int32 if size <= tf.int32.max else tf.int64
    # From two short ranges: one of all numbers would be stored with the compiled function.
    rows = tf.reshape(tf.range(size // last, dtype=dtype) * last, (*kernel.shape[:-1], 1))
    return rows + tf.range(last, dtype=dtype)
