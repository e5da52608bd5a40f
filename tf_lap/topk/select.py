"""Masks of the highest scores, with NumPy: exactly as many as are to be kept, and of equal scores the first.

Scores are non-negative float32 numbers, which are ordered as the integers with the same bits. So all here works on
integers: the bits of the scores where the last weight that stays has a score above zero, else the keys of
`tf_lap.topk.sort_keys`, which order the weights whose score is zero too.
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
    new_memory: Callable[[tuple[int, ...], type], np.ndarray] = np.empty,
) -> Kept:
    """Masks of the `keep` highest scores of some kernels together; of all live weights, where there are fewer.

    Args:
        bits: for each kernel the bits of its scores, int32, in any shape; 0 where a weight is pruned already.
        keep: how many weights stay.
        keys: gives for each kernel what `tf_lap.topk.sort_keys.keys` does. It is called where too few scores are above
            zero.
        memory: gives an array of a size and a dtype, for use under a name: another call may give the same array again.
        new_memory: gives an array of a shape and a dtype that nobody else has, for a mask.

    Returns:
        For each kernel a bool array of its shape, True where the weight stays, and the lowest score that stays.
    """
    threshold = _kth_largest(bits, keep, memory)
    lowest = np.int32(threshold).view(np.float32)
    if threshold == 0:
        bits = keys()
        keep = min(keep, sum(map(np.count_nonzero, bits)))
        threshold = _kth_largest(bits, keep, memory)
    masks = []
    for kernel in bits:
        masks.append(np.greater_equal(kernel, threshold, out=new_memory(kernel.shape, np.bool_)))
    surplus = sum(map(np.count_nonzero, masks)) - keep
    for kernel, mask in zip(reversed(bits), reversed(masks), strict=True):
        if surplus <= 0:
            break
        # Of equal ones the first stay.
        ties = np.flatnonzero(kernel == threshold)[-surplus:]
        mask.reshape(-1)[ties] = False
        surplus -= len(ties)
    return Kept(masks, lowest)


def sort_keys(scores: np.ndarray, weights: np.ndarray, live: np.ndarray) -> np.ndarray:
    """What `tf_lap.topk.sort_keys.keys` gives, as int32.

    Args:
        scores: non-negative float32, 0 where a weight is pruned already.
        weights: float32.
        live: bool, False where a weight is pruned already.
    """
    bits = np.minimum(scores.view(np.int32), np.int32(INFINITY))  # a NaN counts as infinity
    magnitudes = (np.abs(weights).view(np.int32) >> 9) + 2
    keys = np.where(bits > 0, bits + np.int32(FIRST_SCORE), np.where(weights == 0, 1, magnitudes))
    return np.where(live, keys, 0).astype(np.int32)


def _kth_largest(bits: Sequence[np.ndarray], k: int, memory: Callable[[str, int, type], np.ndarray]) -> int:
    """The k-th largest number of some arrays together; more than all of them where k is 0."""
    if k == 0:
        return np.iinfo(np.int32).max
    size = sum(kernel.size for kernel in bits)
    # Negated, because NumPy's partition takes thirty times as long where many of the lowest numbers are equal, as those
    # of pruned weights are.
    numbers = memory("numbers", size, np.int32)
    first = 0
    for kernel in bits:
        np.negative(kernel.reshape(-1), out=numbers[first : first + kernel.size])
        first += kernel.size
    numbers.partition(k - 1)
    return -int(numbers[k - 1])
