"""Powers of two that keep the squares of weights within float32's range.

The squares of weights below 1e-19 are zero in float32, and those above 1e19 infinite. So a kernel whose weights are far
from 1 is multiplied by a power of two before it is measured and scored, which is exact. What it is measured as is put
on the scale that all kernels share: energies of several kernels are added up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.model_graph import Recipe

# A kernel whose largest weight lies within these powers of two is measured as it is.
_PLAIN_EXPONENT = 20
# No energy is put further below those of the largest kernel: beside them it is nothing in float32.
_LOWEST_EXPONENT = -100


@dataclasses.dataclass(frozen=True)
class Scale:
    """How far from 1 the weights of kernels are.

    Attributes:
        exponents: for each kernel the power of two that its weights are near; 0 where it is measured as it is.
    """

    exponents: tuple[int, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> Scale:
        """The scale of the weights as they are now, also where a function is being traced."""
        with tf.init_scope():
            largest = [float(tf.reduce_max(tf.abs(compat.value(kernel.variable)))) for kernel in recipe.kernels]
        return cls(tuple(_exponent(weight) for weight in largest))

    def unit(self, kernel: int) -> float:
        """What the weights of a kernel are multiplied by."""
        return 2.0 ** -self.exponents[kernel]

    def factor(self, kernel: int) -> float:
        """What its squares are multiplied by then, to be on the scale that all kernels share."""
        return self._square(self.exponents[kernel] - self._largest)

    def end(self, kernels: int = 1) -> float:
        """The energy that an end of the network has on this scale, where others went through so many kernels."""
        return self._square(-kernels * self._largest)

    def logarithm(self, kernel: int) -> float:
        """The natural logarithm of what the squares of a kernel are to be multiplied by for their true size."""
        return 2 * self.exponents[kernel] * float(np.log(2))

    def is_left_by(self, totals: np.ndarray, sizes: Sequence[int]) -> bool:
        """Whether weights have moved away from the scale.

        Args:
            totals: for each kernel the sum of its squares, as it was measured with the scale: `(kernels,)`.
            sizes: how many weights each has.
        """
        means = np.asarray(totals, np.float64) / np.asarray(sizes, np.float64)
        limit = 2.0 ** (2 * _PLAIN_EXPONENT)
        return bool(np.any((means < 1 / limit) | (means > limit) | ~np.isfinite(means)))

    @property
    def _largest(self) -> int:
        return max(self.exponents, default=0)

    @staticmethod
    def _square(exponent: int) -> float:
        return 2.0 ** max(_LOWEST_EXPONENT, min(-_LOWEST_EXPONENT, 2 * exponent))


def _exponent(weight: float) -> int:
    if not np.isfinite(weight) or weight == 0:
        return 0
    exponent = int(np.floor(np.log2(weight)))
    return exponent if abs(exponent) > _PLAIN_EXPONENT else 0
