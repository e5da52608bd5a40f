"""One kernel fitted to what it put out when it was whole, given the moments of what it reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tf_lap.moments.measured import DAMPING
from tf_lap.reconstruction.solver import solve_kept


@dataclasses.dataclass
class OutputMoments:
    """Moments of the rows x that a kernel is multiplied by, and of the outputs y of the whole kernel; float64 means.

    Attributes:
        second: of x with x, `(groups, rows, rows)`.
        cross: of x with y, `(groups, rows, outputs)`.
        mean: of x, `(groups, rows)`.
        output_mean: of y, `(groups, outputs)`.
        output_square: of y squared, `(groups, outputs)`.
        count: how many rows they are of; 0 where they are not measured.
    """

    second: np.ndarray
    cross: np.ndarray
    mean: np.ndarray
    output_mean: np.ndarray
    output_square: np.ndarray
    count: int = 0

    @classmethod
    def empty(cls, matrices: np.ndarray) -> OutputMoments:
        """Moments of no rows yet, of a kernel with these weights `(groups, rows, outputs)`."""
        groups, rows, outputs = matrices.shape
        return cls(
            np.zeros((groups, rows, rows)),
            np.zeros((groups, rows, outputs)),
            np.zeros((groups, rows)),
            np.zeros((groups, outputs)),
            np.zeros((groups, outputs)),
        )

    def add(self, rows: tf.Tensor, outputs: tf.Tensor) -> None:
        """Takes in more rows.

        Args:
            rows: `(groups, positions, rows)`.
            outputs: what the whole kernel put out at the same positions, `(groups, positions, outputs)`.
        """
        added = rows.shape[1]
        total = self.count + added
        kept = self.count / total
        for name, product in (
            ("second", tf.matmul(rows, rows, transpose_a=True)),
            ("cross", tf.matmul(rows, outputs, transpose_a=True)),
            ("mean", tf.reduce_sum(rows, axis=1)),
            ("output_mean", tf.reduce_sum(outputs, axis=1)),
            ("output_square", tf.reduce_sum(tf.square(outputs), axis=1)),
        ):
            moment = getattr(self, name)
            moment *= kept
            moment += product.numpy().astype(np.float64) / total
        self.count = total

    @property
    def are_finite(self) -> bool:
        """Whether they hold no NaN and no infinity."""
        moments = (self.second, self.cross, self.mean, self.output_mean, self.output_square)
        return all(bool(np.isfinite(moment).all()) for moment in moments)

    def centre(self) -> tuple[np.ndarray, np.ndarray]:
        """`second` and `cross` of rows and outputs less their means."""
        mean = self.mean[:, :, np.newaxis]
        return self.second - mean * mean.swapaxes(1, 2), self.cross - mean * self.output_mean[:, np.newaxis, :]

    def find_shift(self, matrices: np.ndarray) -> np.ndarray:
        """What is to be added to each output so that its mean is that of the whole kernel: `(groups, outputs)`."""
        return self.output_mean - np.einsum("gr,gro->go", self.mean, matrices)

    def find_output_statistics(self, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the variance of each output of a kernel with these weights, without its bias."""
        mean = np.einsum("gr,gro->go", self.mean, matrices)
        square = np.einsum("gro,gro->go", matrices, self.second @ matrices)
        return mean.reshape(-1), np.maximum(square - mean**2, 0.0).reshape(-1)

    @property
    def output_variance(self) -> float:
        """The variance of all outputs together."""
        return float(np.sum(self.output_square - self.output_mean**2))

    def measure_loss(self, matrices: np.ndarray, is_centred: bool) -> float:
        """How much of what the whole kernel put out is lost with other weights, over the variance of it.

        Args:
            matrices: the weights, `(groups, rows, outputs)`.
            is_centred: whether a shift of the outputs makes up for the difference of the means.
        """
        second, cross = self.centre() if is_centred else (self.second, self.cross)
        square = self.output_square - self.output_mean**2 * is_centred
        products = np.einsum("gro,gro->go", matrices, second @ matrices - 2 * cross)
        lost = float(np.sum(square + products))
        return max(lost, 0.0) / self.output_variance if self.output_variance > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Fit:
    """A kernel that was fitted.

    Attributes:
        matrices: its weights, float64 `(groups, rows, outputs)`.
        shift: what is to be added to its outputs, `(groups, outputs)`; zeros where there is nothing to add it to.
        damping: the largest damping that was needed, as a fraction of the mean diagonal.
    """

    matrices: np.ndarray
    shift: np.ndarray
    damping: float


def fit_kernel(
    moments: OutputMoments, weights: np.ndarray, mask: np.ndarray, fits_weights: bool, has_shift: bool
) -> Fit:
    """Fits the kept weights of a kernel, and a shift of its outputs.

    Args:
        moments: those of what it reads and put out.
        weights: the weights of the whole kernel, float64 `(groups, rows, outputs)`.
        mask: bool, of its shape.
        fits_weights: whether weights are fitted; otherwise the mask alone is applied.
        has_shift: whether outputs may be shifted.

    Raises:
        ValueError: moments that are not finite.
    """
    if not moments.are_finite:
        raise ValueError("the moments of what it reads and puts out hold NaN or infinity")
    matrices, damping = np.where(mask, weights, 0.0), DAMPING
    if fits_weights:
        second, cross = moments.centre() if has_shift else (moments.second, moments.cross)
        for group in range(len(weights)):
            solution = solve_kept(second[group], cross[group], weights[group], mask[group])
            matrices[group], damping = solution.weights, max(damping, solution.damping)
    shift = moments.find_shift(matrices) if has_shift else np.zeros_like(moments.output_mean)
    return Fit(matrices, shift, damping)
