"""Masks of the largest scores with NumPy, with exact counts. Of equal scores the first stay.

Everything here works on integers, which NumPy compares faster. They are the bits of the scores where enough scores are
above zero: non-negative float32 numbers have the same order as their bits. Otherwise they are the sort keys of
`tf_lap.topk.sort_keys`, which order weights whose score is zero too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tf_lap.topk.sort_keys import (
    INFINITY_BITS,
    MAGNITUDE_OFFSET,
    MAGNITUDE_SHIFT,
    PRUNED_KEY,
    SCORE_OFFSET,
    ZERO_KEY,
    TopK,
)


def keep_largest_on_host(
    score_bits: Sequence[np.ndarray],
    keep: int,
    make_sort_keys: Callable[[], Sequence[np.ndarray]],
    memory: Callable[[str, int, type], np.ndarray] = lambda name, size, dtype: np.empty(size, dtype),
    out: Sequence[np.ndarray] | None = None,
) -> TopK:
    """Masks of the `keep` largest scores of some kernels together; of all live weights if there are fewer.

    Args:
        score_bits: for each kernel the bits of its scores, int32, in any shape; 0 where a weight is pruned already.
        keep: how many weights stay.
        make_sort_keys: gives the sort keys of each kernel, int32, in its shape. It is called if too few scores are
            above zero.
        memory: gives scratch memory of a size and a dtype under a name. Another call may give the same memory again.
        out: bool arrays of the kernels' shapes for the masks, as NumPy's functions take them; new ones by default.
    """
    ranked = score_bits
    lowest_kept = _kth_largest(ranked, keep, memory)
    threshold = np.int32(lowest_kept).view(np.float32)
    if lowest_kept == 0:
        ranked = make_sort_keys()
        keep = min(keep, sum(int(np.count_nonzero(kernel)) for kernel in ranked))
        lowest_kept = _kth_largest(ranked, keep, memory)
    masks = [np.empty(kernel.shape, np.bool_) for kernel in ranked] if out is None else list(out)
    for kernel, mask in zip(ranked, masks, strict=True):
        np.greater_equal(kernel, lowest_kept, out=mask)
    surplus = sum(int(np.count_nonzero(mask)) for mask in masks) - keep
    for kernel, mask in zip(reversed(ranked), reversed(masks), strict=True):
        if surplus <= 0:
            break
        # The last of the equal ones go.
        ties = np.flatnonzero(kernel == lowest_kept)[-surplus:]
        mask.reshape(-1)[ties] = False
        surplus -= len(ties)
    return TopK(masks, threshold)


def make_sort_keys_on_host(scores: np.ndarray, weights: np.ndarray, live: np.ndarray) -> np.ndarray:
    """The sort keys of a kernel's weights as int32, in their shape; otherwise as `sort_keys.make_sort_keys`.

    Args:
        scores: float32, non-negative; 0 where a weight is pruned already.
        weights: float32.
        live: bool, False where a weight is pruned already.
    """
    score_bits = np.minimum(scores.view(np.int32), np.int32(INFINITY_BITS))  # a NaN counts as infinity
    magnitudes = (np.abs(weights).view(np.int32) >> MAGNITUDE_SHIFT) + MAGNITUDE_OFFSET
    without_score = np.where(weights == 0, ZERO_KEY, magnitudes)
    live_keys = np.where(score_bits > 0, score_bits + np.int32(SCORE_OFFSET), without_score)
    return np.where(live, live_keys, PRUNED_KEY).astype(np.int32)


def _kth_largest(numbers: Sequence[np.ndarray], k: int, memory: Callable[[str, int, type], np.ndarray]) -> int:
    """The k-th largest number of some int32 arrays together; more than all of them if k is 0."""
    if k == 0:
        return np.iinfo(np.int32).max
    size = sum(kernel.size for kernel in numbers)
    # Negated, because NumPy's partition takes thirty times as long where many of the lowest numbers are equal, as those
    # of pruned weights are.
    negated = memory("numbers", size, np.int32)
    first = 0
    for kernel in numbers:
        np.negative(kernel.reshape(-1), out=negated[first : first + kernel.size])
        first += kernel.size
    negated.partition(k - 1)
    return -int(negated[k - 1])
