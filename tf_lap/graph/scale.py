"""Powers of two that keep the squares of weights within float32's range.

In float32 the squares of weights below 1e-19 are near zero, and those of weights above 1e19 are infinite. So a kernel
whose weights are far from 1 is multiplied by a power of two before it is measured and scored. That is exact. Its
energies are then put on a scale that all kernels share, because energies of several kernels are added up. A kernel
without a use in the graph has no part in that scale: its energies meet no others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.model_graph import Recipe

# A kernel whose largest weight lies between 2^-20 and 2^20 is measured unscaled.
_UNSCALED_EXPONENT = 20
# No energy is put further below that of the largest kernel. Added to it in float32, such an energy is lost anyway.
_LOWEST_EXPONENT = -100


@dataclasses.dataclass(frozen=True)
class Scale:
    """How far from 1 the weights of kernels are.

    Attributes:
        exponents: for each kernel the exponent of the power of two that its weights are near; 0 where it is measured
            unscaled.
        unused: the numbers of the kernels that have no use in the graph.
    """

    exponents: tuple[int, ...]
    unused: frozenset[int] = frozenset()

    @classmethod
    def of(cls, recipe: Recipe) -> Scale:
        """The scale of the present weights. While a function is traced, it is that of the weights at that moment."""
        with tf.init_scope():
            largest = [float(tf.reduce_max(tf.abs(compat.value(kernel.variable)))) for kernel in recipe.kernels]
        unused = frozenset(number for number, kernel in enumerate(recipe.kernels) if not kernel.uses)
        return cls(tuple(_find_exponent(weight) for weight in largest), unused)

    def unit(self, kernel: int) -> float:
        """The factor that the weights of a kernel are multiplied by."""
        return 2.0 ** -self.exponents[kernel]

    def factor(self, kernel: int) -> float:
        """The factor that puts the squares of those weights on the scale that all used kernels share."""
        return 1.0 if kernel in self.unused else self._square(self.exponents[kernel] - self._largest)

    def end(self, kernels: int = 1) -> float:
        """The energy of an end of the network on this scale, where other energies went through `kernels` kernels."""
        return self._square(-kernels * self._largest)

    def logarithm(self, kernel: int) -> float:
        """The natural logarithm of the factor that gives the squares of a kernel's scaled weights their true size."""
        return 2 * self.exponents[kernel] * float(np.log(2))

    def is_left_by(self, totals: np.ndarray, sizes: Sequence[int]) -> bool:
        """Whether weights have moved so far that the scale does not fit them any more.

        Args:
            totals: for each kernel the sum of the squares of its scaled weights.
            sizes: for each kernel its number of weights.
        """
        means = np.asarray(totals, np.float64) / np.asarray(sizes, np.float64)
        limit = 2.0 ** (2 * _UNSCALED_EXPONENT)
        return bool(np.any((means < 1 / limit) | (means > limit) | ~np.isfinite(means)))

    @property
    def _largest(self) -> int:
        used = (exponent for number, exponent in enumerate(self.exponents) if number not in self.unused)
        return max(used, default=0)

    @staticmethod
    def _square(exponent: int) -> float:
        """The square of a power of two, kept away from the ends of float32's range."""
        return 2.0 ** max(_LOWEST_EXPONENT, min(-_LOWEST_EXPONENT, 2 * exponent))


def _find_exponent(weight: float) -> int:
    """The exponent of the power of two below a kernel's largest weight; 0 where the kernel is measured unscaled."""
    if not np.isfinite(weight) or weight == 0:
        return 0
    exponent = int(np.floor(np.log2(weight)))
    return exponent if abs(exponent) > _UNSCALED_EXPONENT else 0
