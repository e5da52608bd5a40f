"""How much a weight matters: one score a weight, non-negative float32, the larger the dearer."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, ClassVar, Protocol

import tensorflow as tf

from tf_lap.choices import Configurable, choose
from tf_lap.graph import Kernel


class Score(Protocol):
    """What a score object must offer.

    Attributes:
        looks: whether it uses the energies around a kernel; where it does not, they are not computed.
        norm_order: the order of the norm that makes scores of different kernels comparable in global pruning.
    """

    looks: bool
    norm_order: int

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of shape `kernel.layout.shape`.

        Args:
            kernel: which kernel it is.
            weights: its float32 values.
            incoming: `(uses, inputs)` energies, ones where the score does not look.
            outgoing: `(uses, outputs)` energies, likewise.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Lookahead(Configurable):
    """`|w| * ||what feeds its input|| * ||what reads its output||`: Park et al., ICLR 2020, equation (5).

    For a shared layer the squares add up over its uses. A side whose norms are all zero (a zero-initialised layer, or
    weights too small to square) tells nothing apart, and counts as 1. Global pruning compares `score / L4 norm`, which
    ranks as the authors' squared score over its L2 norm.
    """

    looks: ClassVar[bool] = True
    norm_order: ClassVar[int] = 4

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        # Roots before products: the square of a product may leave float32's range where the product does not.
        back, ahead = (_telling(tf.sqrt(side)) for side in (incoming, outgoing))
        uses = [kernel.layout.outer(*use) for use in zip(tf.unstack(back), tf.unstack(ahead), strict=True)]
        gain = uses[0] if len(uses) == 1 else tf.norm(tf.stack(uses), axis=0)
        return tf.abs(weights) * gain


def _telling(norms: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reduce_any(norms > 0), norms, tf.ones_like(norms))


@dataclasses.dataclass(frozen=True)
class Magnitude(Configurable):
    """`|w|`: what lookahead is measured against. Global pruning compares `|w| / L2 norm`, as the authors do."""

    looks: ClassVar[bool] = False
    norm_order: ClassVar[int] = 2

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        return tf.abs(weights)


@dataclasses.dataclass(frozen=True)
class Random(Configurable):
    """Uniform random scores, the same at every update for the same seed and layer path.

    Args:
        seed: an integer.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed={self.seed!r}: expected an integer")

    looks: ClassVar[bool] = False
    norm_order: ClassVar[int] = 2

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        seed = (self.seed, zlib.crc32(kernel.path.encode()) & 0x7FFFFFFF)
        return tf.random.stateless_uniform(kernel.layout.shape, seed=seed)


NAMED: dict[str, type] = {"lookahead": Lookahead, "magnitude": Magnitude, "random": Random}


def get(score: Any) -> Score:
    """The score object that a name or an object stands for.

    Raises:
        ValueError: an unknown name. TypeError: not a name, nor an object with a `score` method.
    """
    return choose("score", score, NAMED, ("score", "looks", "norm_order"))
