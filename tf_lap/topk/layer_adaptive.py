"""How many weights each kernel keeps when all are ranked together by layer-adaptive scores, with NumPy.

Lee, Park, Mo, Ahn, Shin: "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021. A layer-adaptive score
falls with the score itself, so that counts say all: the mask of a kernel is that of its largest scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rank_layer_adaptively(score_bits: np.ndarray, most: int) -> np.ndarray:
    """The largest layer-adaptive scores of a kernel: float32, falling, at most `most` of them, and none of a zero.

    Args:
        score_bits: the bits of the kernel's scores, int32, in any shape; 0 where a weight is pruned already.
        most: how many can matter.
    """
    falling = np.sort(score_bits, axis=None)[::-1][:most]
    scores = falling[: np.count_nonzero(falling)].view(np.float32)
    if not scores.size:
        return scores
    # Divided by the largest, and in double precision: millions of squares are added up.
    squares = np.square((scores / scores[0]).astype(np.float64))
    return (squares / np.cumsum(squares)).astype(np.float32)


def count_layer_adaptively(ranked: Sequence[np.ndarray], keep: int) -> list[int] | None:
    """How many weights each kernel keeps; of equal scores those of the first kernels stay.

    Args:
        ranked: what `rank_layer_adaptively` gives for each kernel.
        keep: how many stay together.

    Returns:
        A count of at least one for each kernel; None where scores do not say it, because too few are above zero.
    """
    if sum(kernel.size for kernel in ranked) < keep or any(kernel.size == 0 for kernel in ranked):
        return None
    negated = -np.concatenate(ranked)
    threshold = -np.partition(negated, keep - 1)[keep - 1]
    counts = [int(np.count_nonzero(kernel > threshold)) for kernel in ranked]
    for kernel, scores in enumerate(ranked):
        counts[kernel] += min(keep - sum(counts), int(np.count_nonzero(scores == threshold)))
    return counts
