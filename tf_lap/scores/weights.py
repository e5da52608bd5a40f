"""Scores of weights alone: lookahead, magnitude and random ones."""

from __future__ import annotations

import dataclasses
import operator
import zlib
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf

from tf_lap.graph.model_graph import Kernel
from tf_lap.scores.base import Score, register


@register("lookahead")
@dataclasses.dataclass(frozen=True)
class Lookahead(Score):
    """`|w| * ||what feeds its input|| * ||what reads its output||`: Park et al., ICLR 2020, equation (5).

    The energies of a shared layer add up over its uses. A side counts as 1 if all of its energies are zero, as with
    layers that are initialized to zero, or with weights whose squares are below float32's range. Global pruning
    compares `score / L4 norm`, which ranks as the authors' squared score over its L2 norm.

    Example:

    >>> report = tf_lap.prune(model, 0.9, score=tf_lap.scores.Lookahead(distance=2, look="ahead"))

    Args:
        distance: how many kernels count on a side. 0: none, which is magnitude. 1: the neighbours, as in the paper.
            More: the neighbours' neighbours too, through which energy flows. None: the whole path to the network's
            ends; a score is then the root of `w^2` times the derivative by `w^2` of the energy that leaves the network.
        look: "both" sides, "back" or "ahead".

    Raises:
        TypeError, ValueError: a distance that is no whole number of at least 0, or an unknown side.
    """

    distance: int | None = 1
    look: Literal["back", "ahead", "both"] = "both"

    norm_order: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if self.distance is not None and (isinstance(self.distance, bool) or not hasattr(self.distance, "__index__")):
            raise TypeError(f"distance={self.distance!r}: expected a whole number of at least 0, or None")
        if self.distance is not None and self.distance < 0:
            raise ValueError(f"distance={self.distance!r}: expected a whole number of at least 0, or None")
        if self.distance is not None:
            object.__setattr__(self, "distance", operator.index(self.distance))
        if self.look not in ("back", "ahead", "both"):
            raise ValueError(f"look={self.look!r}: use 'back', 'ahead' or 'both'")

    @property
    def sides(self) -> tuple[str, ...]:
        """As `Score.sides`."""
        looked_at = {"both": ("before", "after"), "back": ("before",), "ahead": ("after",)}[self.look]
        return looked_at if self.needs_energies else ()

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        if len(incoming) > 1:
            return None
        back, ahead = (np.sqrt(side[0]) for side in (incoming, outgoing))
        if not self.needs_energies or self.look == "ahead" or not np.any(back > 0):
            back = np.ones_like(back)
        if not self.needs_energies or self.look == "back" or not np.any(ahead > 0):
            ahead = np.ones_like(ahead)
        return back, ahead

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        if not self.needs_energies:
            return tf.abs(weights)
        # Roots before products: the square of a product may leave float32's range where the product does not.
        back, ahead = (_ones_if_all_zero(tf.sqrt(side)) for side in (incoming, outgoing))
        back = tf.ones_like(back) if self.look == "ahead" else back
        ahead = tf.ones_like(ahead) if self.look == "back" else ahead
        factors = [kernel.layout.outer(*use) for use in zip(tf.unstack(back), tf.unstack(ahead), strict=True)]
        return tf.abs(weights) * (factors[0] if len(factors) == 1 else _root_of_squares(tf.stack(factors)))


def _root_of_squares(factors: tf.Tensor) -> tf.Tensor:
    """The L2 norm over the first axis, which is that of a layer's uses."""
    # Divided by the largest: squares would leave float32's range.
    largest = tf.reduce_max(factors)
    return largest * tf.norm(tf.math.divide_no_nan(factors, largest), axis=0)


def _ones_if_all_zero(norms: tf.Tensor) -> tf.Tensor:
    """The norms of one side, `(uses, channels)`, or ones if all of them are zero."""
    return tf.where(tf.reduce_any(norms > 0), norms, tf.ones_like(norms))


@register("magnitude")
@dataclasses.dataclass(frozen=True)
class Magnitude(Score):
    """`|w|`: what lookahead is compared with. Global pruning compares `|w| / L2 norm`, as the authors do."""

    distance = 0

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        return np.ones(incoming.shape[1], np.float32), np.ones(outgoing.shape[1], np.float32)

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        return tf.abs(weights)


@register("random")
@dataclasses.dataclass(frozen=True)
class Random(Score):
    """Uniform random scores, the same at every update for the same seed and layer path.

    Args:
        seed: an integer.

    Raises:
        TypeError: the seed is no integer.
    """

    seed: int = 0

    distance = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed={self.seed!r}: expected an integer")
        object.__setattr__(self, "seed", operator.index(self.seed))

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        seed = (self.seed, zlib.crc32(kernel.path.encode()) & 0x7FFFFFFF)
        return tf.random.stateless_uniform(kernel.layout.shape, seed, alg="philox")
