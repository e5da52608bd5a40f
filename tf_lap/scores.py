"""How much a weight matters: one score a weight, non-negative float32, the larger the dearer."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, ClassVar, Literal, Protocol

import tensorflow as tf

from tf_lap.choices import Configurable, choose
from tf_lap.graph import Kernel


class Score(Protocol):
    """What a score object must offer.

    Attributes:
        looks: whether it uses the energies around a kernel; where it does not, they are not computed.
        distance: how many kernels on a side they come from, if not 1: as in `Lookahead`.
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

    Example:

    >>> report = tf_lap.prune(model, 0.9, score=tf_lap.scores.Lookahead(distance=2, look="ahead"))

    Args:
        distance: how many kernels on a side count: 0 none, which is magnitude; 1 the neighbours, which is the paper's;
            more the neighbours' neighbours, through which energy flows; None the whole path to the network's ends,
            where a score is the root of `w^2` times the derivative by `w^2` of the energy that leaves the network.
        look: "both" sides, "back" or "ahead".

    Raises:
        TypeError, ValueError: a distance that is no whole number of at least 0, or another side.
    """

    distance: int | None = 1
    look: Literal["back", "ahead", "both"] = "both"

    norm_order: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if self.distance is not None and (isinstance(self.distance, bool) or not hasattr(self.distance, "__index__")):
            raise TypeError(f"distance={self.distance!r}: expected a whole number of at least 0, or None")
        if self.distance is not None and self.distance < 0:
            raise ValueError(f"distance={self.distance!r}: expected a whole number of at least 0, or None")
        if self.look not in ("back", "ahead", "both"):
            raise ValueError(f"look={self.look!r}: use 'back', 'ahead' or 'both'")

    @property
    def looks(self) -> bool:
        """Whether it uses the energies around a kernel."""
        return self.distance != 0

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        if not self.looks:
            return tf.abs(weights)
        # Roots before products: the square of a product may leave float32's range where the product does not.
        back, ahead = (_telling(tf.sqrt(side)) for side in (incoming, outgoing))
        back = tf.ones_like(back) if self.look == "ahead" else back
        ahead = tf.ones_like(ahead) if self.look == "back" else ahead
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
