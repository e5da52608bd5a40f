"""Masks of the largest scores with NumPy, with exact counts. Of equal scores the first stay.

Non-negative float32 numbers have the same order as the integers with the same bits, and everything here works on
integers. These are the bits of the scores if enough scores are above zero. Otherwise they are the sort keys of
`tf_lap.topk.sort_keys`, which order weights whose score is zero too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tf_lap.topk.sort_keys import FIRST_SCORE, INFINITY, Kept


def select(
    bits: Sequence[np.ndarray],
    keep: int,
    keys: Callable[[], Sequence[np.ndarray]],
    memory: Callable[[str, int, type], np.ndarray] = lambda name, size, dtype: np.empty(size, dtype),
    out: Sequence[np.ndarray] | None = None,
) -> Kept:
    """Masks of the `keep` largest scores of some kernels together; of all live weights if there are fewer.

    Args:
        bits: for each kernel the bits of its scores, int32, in any shape; 0 where a weight is pruned already.
        keep: how many weights stay.
        keys: gives the sort keys of each kernel, int32, in its shape. It is called if too few scores are above zero.
        memory: gives scratch memory of a size and a dtype under a name. Another call may give the same memory again.
        out: bool arrays of the kernels' shapes for the masks, as NumPy's functions take them; new ones by default.

    Returns:
        For each kernel a bool array of its shape, True where the weight stays, and the lowest score that stays.
    """
    numbers = bits
    threshold = _kth_largest(numbers, keep, memory)
    lowest = np.int32(threshold).view(np.float32)
    if threshold == 0:
        numbers = keys()
        keep = min(keep, sum(int(np.count_nonzero(kernel)) for kernel in numbers))
        threshold = _kth_largest(numbers, keep, memory)
    masks = [np.empty(kernel.shape, np.bool_) for kernel in numbers] if out is None else list(out)
    for kernel, mask in zip(numbers, masks, strict=True):
        np.greater_equal(kernel, threshold, out=mask)
    surplus = sum(int(np.count_nonzero(mask)) for mask in masks) - keep
    for kernel, mask in zip(reversed(numbers), reversed(masks), strict=True):
        if surplus <= 0:
            break
        # The last of the equal ones go.
        ties = np.flatnonzero(kernel == threshold)[-surplus:]
        mask.reshape(-1)[ties] = False
        surplus -= len(ties)
    return Kept(masks, lowest)


def sort_keys(scores: np.ndarray, weights: np.ndarray, live: np.ndarray) -> np.ndarray:
    """The sort keys of a kernel's weights as int32, in their shape; otherwise as `tf_lap.topk.sort_keys.keys`.

    Args:
        scores: float32, non-negative; 0 where a weight is pruned already.
        weights: float32.
        live: bool, False where a weight is pruned already.
    """
    bits = np.minimum(scores.view(np.int32), np.int32(INFINITY))  # a NaN counts as infinity
    magnitudes = (np.abs(weights).view(np.int32) >> 9) + 2
    keys = np.where(bits > 0, bits + np.int32(FIRST_SCORE), np.where(weights == 0, 1, magnitudes))
    return np.where(live, keys, 0).astype(np.int32)


def _kth_largest(bits: Sequence[np.ndarray], k: int, memory: Callable[[str, int, type], np.ndarray]) -> int:
    """The k-th largest number of some int32 arrays together; more than all of them if k is 0."""
    if k == 0:
        return np.iinfo(np.int32).max
    size = sum(kernel.size for kernel in bits)
    # Negated, because NumPy's partition takes thirty times as long where many of the lowest numbers are equal, as those
    # of pruned weights are.
    negated = memory("numbers", size, np.int32)
    first = 0
    for kernel in bits:
        np.negative(kernel.reshape(-1), out=negated[first : first + kernel.size])
        first += kernel.size
    negated.partition(k - 1)
    return -int(negated[k - 1])
