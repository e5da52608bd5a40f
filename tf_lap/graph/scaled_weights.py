"""A kernel's weights as they are measured and scored, with NumPy, a piece at a time.

What one operation leaves for the next is then still in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_lap.graph.layouts import Layout

_PIECE = 1 << 17  # weights


class ScaledWeights(NamedTuple):
    """A kernel's weights times a unit, and times a gain where there is one.

    Attributes:
        weights: the weights as they are, float32, in a plain layout.
        unit: a power of two.
        gain: None, or an array that broadcasts against the weights.
    """

    weights: np.ndarray
    unit: float
    gain: Any

    @classmethod
    def of(cls, layout: Layout, weights: np.ndarray, unit: float, gain: Any) -> ScaledWeights:
        """The weights of a kernel in its plain layout.

        Args:
            layout: the kernel's.
            weights: float32, of the kernel's shape.
            unit: as in the attributes.
            gain: None, or an array that broadcasts against the kernel.
        """
        if gain is not None:
            gain = layout.to_plain(np.broadcast_to(gain, layout.shape))
        return cls(layout.to_plain(weights), unit, gain)

    @property
    def columns(self) -> int:
        """How many weights lie on the last axis."""
        return self.weights.shape[-1]

    def pieces(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Goes through the weights as a matrix `(rows, columns)`: some rows at a time, and which rows these are."""
        matrix = self.weights.reshape(-1, self.columns)
        gain = None if self.gain is None else np.broadcast_to(self.gain, self.weights.shape).reshape(matrix.shape)
        rows = max(1, _PIECE // self.columns)
        for first in range(0, len(matrix), rows):
            place = slice(first, first + rows)
            piece = matrix[place]
            if self.unit != 1:
                piece = piece * np.float32(self.unit)
            yield place, piece if gain is None else piece * gain[place]

    def energies(self, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """What `Layout.energies` gives, of a plain layout: `(inputs,)` and `(outputs,)`, float32."""
        if layout.groups > 1:
            weights = np.concatenate([piece for _, piece in self.pieces()])
            squares = np.square(weights).reshape(-1, *layout.shape[-2:]).sum(axis=0)
            squares = squares.T if layout.swapped else squares
            by_group = squares.reshape(len(squares), layout.groups, -1)
            return by_group.sum(axis=2).T.reshape(-1), squares.sum(axis=0)
        row_energies = np.empty(layout.size // self.columns, np.float32)
        column_energies = np.zeros(self.columns, np.float32)
        for place, piece in self.pieces():
            np.einsum("ij,ij->i", piece, piece, out=row_energies[place])
            column_energies += np.einsum("ij,ij->j", piece, piece)
        over_taps = row_energies.reshape(-1, layout.shape[-2]).sum(axis=0)
        return (column_energies, over_taps) if layout.swapped else (over_taps, column_energies)
