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

DAMPING = 0.01
"""The damping, as a fraction of the mean of the diagonal of the second moment."""
_RAISE = 10.0
_LEAST_DAMPING = 1e-16
_MAX_DAMPING = 1e4
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
    scale = float(np.mean(np.diag(second)))
    if scale <= 0:  # all that it reads is zero
        return Solution(np.where(mask, weights, 0.0), damping)
    while damping <= _MAX_DAMPING:
        ridge = damping * scale
        solved = _solve_all(second + ridge * np.eye(len(second)), cross + ridge * weights, mask)
        if np.isfinite(solved).all():
            return Solution(solved, damping)
        damping = max(damping * _RAISE, _LEAST_DAMPING)
    return Solution(np.where(mask, weights, 0.0), math.inf)


def _solve_all(second: np.ndarray, cross: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Solves the system of each output, those of about as many kept weights together.

    NaN stands for what is not solved, because a system is not positive definite.
    """
    solved = np.zeros_like(cross)
    kept = mask.sum(axis=0)
    ascending = np.argsort(kept, kind="stable")
    first = int(np.searchsorted(kept[ascending], 1))
    while first < len(ascending):
        size = int(kept[ascending[-1]])
        batch = max(1, _MAX_NUMBERS // max(size, 1) ** 2)
        outputs = ascending[-batch:] if len(ascending) - first > batch else ascending[first:]
        ascending = ascending[: len(ascending) - len(outputs)]
        _solve_batch(second, cross, mask, outputs, solved)
    return solved


def _solve_batch(
    second: np.ndarray, cross: np.ndarray, mask: np.ndarray, outputs: np.ndarray, solved: np.ndarray
) -> None:
    """Solves the systems of some outputs at once, each filled up with ones on the diagonal to the largest."""
    size = int(mask[:, outputs].sum(axis=0).max())
    order = np.argsort(~mask[:, outputs], axis=0, kind="stable")[:size].T  # kept rows first
    is_kept = np.take_along_axis(mask[:, outputs].T, order, axis=1)
    systems = second[order[:, :, np.newaxis], order[:, np.newaxis, :]]
    systems *= is_kept[:, :, np.newaxis] & is_kept[:, np.newaxis, :]
    diagonal = np.einsum("bii->bi", systems)
    diagonal += ~is_kept
    right = np.where(is_kept, cross[order, outputs[:, np.newaxis]], 0.0)
    try:
        factors = tf.linalg.cholesky(systems)
        weights = tf.linalg.cholesky_solve(factors, right[..., np.newaxis])[..., 0].numpy()
    except tf.errors.InvalidArgumentError:  # releases of TensorFlow differ: others give NaN
        weights = np.full_like(right, np.nan)
    solved[order[is_kept], np.broadcast_to(outputs[:, np.newaxis], order.shape)[is_kept]] = weights[is_kept]
