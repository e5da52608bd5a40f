"""Masks as matrices that are small enough to look at."""

from __future__ import annotations

import numpy as np

from tf_lap.graph.layouts import Layout

MAX_CELLS = 400
"""A side of a picture has so many cells at most; of a larger kernel a cell is the share of a block of weights."""


def as_matrix(mask: np.ndarray, layout: Layout) -> tuple[np.ndarray, int]:
    """A mask as `(taps * inputs, outputs)`, and how many taps there are. Groups lie beside each other.

    Args:
        mask: of the kernel's shape.
        layout: the kernel's.
    """
    matrices = layout.to_matrices(mask)
    matrix = np.concatenate(list(matrices), axis=1)
    return matrix, int(np.prod(layout.plain.shape[:-2], dtype=int))


def average_blocks(matrix: np.ndarray) -> np.ndarray:
    """The share of ones in each block of a mask, float32; of a small mask each block is one weight.

    Args:
        matrix: the mask, `(rows, columns)`.

    Returns:
        At most `MAX_CELLS` rows and columns.
    """
    shares = matrix.astype(np.float32)
    for axis, length in enumerate(matrix.shape):
        if length > MAX_CELLS:
            starts = np.linspace(0, length, MAX_CELLS, endpoint=False).astype(int)
            widths = np.diff([*starts, length])
            sums = np.add.reduceat(shares, starts, axis=axis)
            shares = sums / np.expand_dims(widths, 1 - axis)
    return shares
