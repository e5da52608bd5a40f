"""Blocks and groups of kernels as plain loops see them: outputs by inputs, one tap at a time."""

import itertools

import numpy as np


def as_rows(kernel, swapped):
    """`(taps, outputs, inputs)`, a view."""
    matrices = kernel.reshape(-1, *kernel.shape[-2:])
    return matrices if swapped else matrices.transpose(0, 2, 1)


def blocks_of(scores, swapped, height, width):
    """The norm of each block, by its tap and first output and input."""
    rows = as_rows(scores.astype(np.float64), swapped)
    taps, outputs, inputs = rows.shape
    starts = itertools.product(range(taps), range(0, outputs, height), range(0, inputs, width))
    return {(t, o, i): np.linalg.norm(rows[t, o : o + height, i : i + width]) for t, o, i in starts}


def groups_of(scores, swapped, m):
    """The positions of each group, in `(tap, output, input)`."""
    taps, outputs, inputs = as_rows(scores, swapped).shape
    for tap, output, first in itertools.product(range(taps), range(outputs), range(0, inputs, m)):
        yield [(tap, output, i) for i in range(first, min(first + m, inputs))]
