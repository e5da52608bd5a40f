"""The kept weights of a kernel that give back most of what the whole kernel computed: least squares, output by output.

For an output with kept inputs S, the weights are those that minimize `E (x_S w_S + b - y)^2 + damping |w_S - v_S|^2`,
where y is the output of the whole kernel and v its weights. With G the second moment of x that is
`w_S = inv(G_SS + damping) (C + damping v)_S`, C the moment of x with y. Where x is what the whole kernel read too, C is
`G v`, and `w_S` is `v_S + inv(G_SS) G_SR v_R` for dropped inputs R: the update of optimal brain surgeon for all dropped
weights at once (Hassibi, Stork: "Second order derivatives for network pruning", 1992).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tf_lap.moments.measured import DAMPING

_RAISE = 10.0
_LEAST_DAMPING = 1e-16
_MAX_DAMPING = 1e4
_LEAST_FOR_INVERSE = 1e-4
"""With less damping than this a second moment may be so close to one without an inverse that it is not used."""
_LEAST_FILLED = 0.8
"""How full the smallest of the systems that are solved at once is, against the largest."""
_MAX_NUMBERS = 1 << 25
"""How many numbers the systems that are solved at once hold at most: 256 MiB in float64."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """The kept weights.

    Attributes:
        weights: float64, of the shape of the matrices, zero where the mask is False.
        damping: the damping with which the systems were solved, as a fraction of the mean diagonal; infinity where no
            damping helps, so that weights stay what they are.
    """

    weights: np.ndarray
    damping: float


def solve_kept(
    second: np.ndarray, cross: np.ndarray, weights: np.ndarray, mask: np.ndarray, damping: float = DAMPING
) -> Solution:
    """The kept weights of one group of a kernel.

    Args:
        second: G, the second moment of what the kernel reads, float64 `(rows, rows)`.
        cross: C, the moment of it with what the whole kernel put out, float64 `(rows, outputs)`.
        weights: the weights of the whole kernel, float64 `(rows, outputs)`.
        mask: bool, of their shape, True where a weight stays.
        damping: what is added to the diagonal, as a fraction of its mean. It is raised tenfold until the systems can be
            solved.

    Returns:
        The solution. Outputs of which nothing was dropped keep their weights where `cross` is `second @ weights`.
    """
    if not second.any():  # all that it reads is zero
        return Solution(np.where(mask, weights, 0.0), damping)
    scale = float(np.mean(np.diag(second)))
    while scale > 0 and damping <= _MAX_DAMPING:
        ridge = damping * scale
        damped = second + ridge * np.eye(len(second))
        solved = _solve_all(damped, cross + ridge * weights, mask, damping >= _LEAST_FOR_INVERSE)
        if np.isfinite(solved).all():
            return Solution(solved, damping)
        damping = max(damping * _RAISE, _LEAST_DAMPING)
    return Solution(np.where(mask, weights, 0.0), math.inf)


def _solve_all(second: np.ndarray, cross: np.ndarray, mask: np.ndarray, has_inverse: bool) -> np.ndarray:
    """Solves the system of each output; NaN stands for what is not solved, because one is not positive definite.

    Where an output keeps more weights than it drops, the solution with all weights is corrected for those that it
    drops: `w = u - inv(G)[:, R] inv(inv(G)[R, R]) u_R`. So a system has half the rows at most.

    Args:
        second: as in `solve_kept`, damped.
        cross: likewise.
        mask: likewise.
        has_inverse: whether `second` is so well conditioned that its inverse can be used.
    """
    solved = np.zeros_like(cross)
    are_few = (2 * mask.sum(axis=0) <= len(mask)) | (not has_inverse)
    _solve_systems(second, cross, mask & are_few, solved)
    many = np.flatnonzero(~are_few)
    if len(many):
        inverse = _solve_definite(second, np.eye(len(second)))
        unpruned = inverse @ cross[:, many]
        corrections = np.zeros_like(unpruned)
        _solve_systems(inverse, unpruned, ~mask[:, many], corrections)
        solved[:, many] = np.where(mask[:, many], unpruned - inverse @ corrections, 0.0)
    return solved


def _solve_systems(matrix: np.ndarray, right: np.ndarray, chosen: np.ndarray, solved: np.ndarray) -> None:
    """For each column of `right` solves the system of its chosen rows, and writes what solves it into `solved`.

    Systems of about as many rows are solved together.
    """
    sizes = chosen.sum(axis=0)
    ascending = np.argsort(sizes, kind="stable")
    ascending = ascending[np.searchsorted(sizes[ascending], 1) :]
    while len(ascending):
        size = int(sizes[ascending[-1]])
        first = int(np.searchsorted(sizes[ascending], _LEAST_FILLED * size))
        first = max(first, len(ascending) - max(1, _MAX_NUMBERS // size**2))
        _solve_batch(matrix, right, chosen, ascending[first:], solved)
        ascending = ascending[:first]


def _solve_batch(
    matrix: np.ndarray, right: np.ndarray, chosen: np.ndarray, columns: np.ndarray, solved: np.ndarray
) -> None:
    """Solves the systems of some columns at once, each filled up with ones on the diagonal to the largest."""
    size = int(chosen[:, columns].sum(axis=0).max())
    order = np.argsort(~chosen[:, columns], axis=0, kind="stable")[:size].T  # chosen rows first
    is_chosen = np.take_along_axis(chosen[:, columns].T, order, axis=1)
    systems = matrix[order[:, :, np.newaxis], order[:, np.newaxis, :]]
    systems *= is_chosen[:, :, np.newaxis] & is_chosen[:, np.newaxis, :]
    diagonal = np.einsum("bii->bi", systems)
    diagonal += ~is_chosen
    sides = np.where(is_chosen, right[order, columns[:, np.newaxis]], 0.0)
    solutions = _solve_definite(systems, sides[..., np.newaxis])[..., 0]
    places = np.broadcast_to(columns[:, np.newaxis], order.shape)
    solved[order[is_chosen], places[is_chosen]] = solutions[is_chosen]


def _solve_definite(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solves systems by Cholesky's factors; NaN where a matrix is not positive definite."""
    try:
        return tf.linalg.cholesky_solve(tf.linalg.cholesky(matrices), right).numpy()
    except tf.errors.InvalidArgumentError:  # releases of TensorFlow differ: others give NaN
        return np.full_like(right, np.nan)
