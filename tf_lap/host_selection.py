"""Masks of the highest scores, with NumPy: exactly as many as are to be kept, and of equal scores the first.

Scores are non-negative float32 numbers, which are ordered as the integers with the same bits. So all here works on
integers: the bits of the scores where the last weight that stays has a score above zero, else the keys of
`tf_lap.ranks`, which order the weights whose score is zero too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def select(bits: Sequence[np.ndarray], keep: int, keys: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Masks of the `keep` highest scores of some kernels together; of all live weights, where there are fewer.

    Args:
        bits: for each kernel the bits of its scores, int32, in any shape; 0 where a weight is pruned already.
        keep: how many weights stay.
        keys: gives for each kernel what `tf_lap.ranks.keys` does. It is called where too few scores are above zero.

    Returns:
        For each kernel a bool array of its shape, True where the weight stays.
    """
    threshold = _kth_largest(bits, keep)
    if threshold == 0:
        bits = keys()
        keep = min(keep, sum(np.count_nonzero(kernel) for kernel in bits))
        threshold = _kth_largest(bits, keep)
    masks = [kernel >= threshold for kernel in bits]
    surplus = sum(map(np.count_nonzero, masks)) - keep
    for kernel, mask in zip(reversed(bits), reversed(masks), strict=True):
        if surplus <= 0:
            break
        # Of equal ones the first stay.
        ties = np.flatnonzero(kernel == threshold)[-surplus:]
        mask.reshape(-1)[ties] = False
        surplus -= len(ties)
    return masks


def _kth_largest(bits: Sequence[np.ndarray], k: int) -> int:
    """The k-th largest number of some arrays together; more than all of them where k is 0."""
    if k == 0:
        return np.iinfo(np.int32).max
    numbers = np.concatenate([kernel.reshape(-1) for kernel in bits])
    place = numbers.size - k
    numbers.partition(place)
    return int(numbers[place])
