"""How much a weight matters: one score a weight, non-negative float32, the larger the dearer."""

from __future__ import annotations

import abc
import dataclasses
import operator
import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.graph.kernels import Layout
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.scores import measurements as probe
from tf_lap.scores.measurements import Batch


class Score(Configurable, abc.ABC):
    """How much a weight matters. A score of one's own is a subclass, best a frozen dataclass: see `register`.

    Attributes:
        distance: how many kernels on a side the energies around a kernel come from: 0 none, so that they are not
            computed; 1 the neighbours; None the whole path.
        norm_order: the order of the norm that makes scores of different kernels comparable in global pruning.
        needs_data: whether `gains` measures the model over data.
    """

    distance: int | None = 1
    norm_order: ClassVar[int] = 2
    needs_data: ClassVar[bool] = False

    @property
    def looks(self) -> bool:
        """Whether it uses the energies around a kernel."""
        return self.distance != 0

    @abc.abstractmethod
    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of shape `kernel.layout.shape`, non-negative float32.

        Args:
            kernel: which kernel it is.
            weights: its float32 values.
            incoming: `(uses, inputs)` energies, ones where the score does not look.
            outgoing: `(uses, outputs)` energies, likewise.
        """

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Where a score is a magnitude times a number of its input and a number of its output: these numbers.

        That is quicker than `score`, and must rank as it does. A subclass that has a `score` of its own needs
        `channel_factors` of its own too, or it is scored by `score`.

        Args:
            incoming: `(uses, inputs)` energies.
            outgoing: `(uses, outputs)` energies.

        Returns:
            Float32 arrays `(inputs,)` and `(outputs,)`, or None where the score is no such product.
        """
        return None

    def gains(self, model: Any, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]) -> dict[int, tf.Tensor]:
        """What kernels are multiplied by before anything else, by their numbers; nothing where no data is needed.

        Args:
            model: the model.
            recipe: its graph.
            targets: the numbers of the kernels that are pruned.
            data: batches of inputs.

        Returns:
            For some kernels a tensor that broadcasts against the kernel.
        """
        return {}


def channel_factors(score: Score, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """`score.channel_factors`, but None where a subclass scores in a way that its base class's factors do not know."""
    owner = next(cls for cls in type(score).__mro__ if {"score", "channel_factors"} & vars(cls).keys())
    return score.channel_factors(incoming, outgoing) if "channel_factors" in vars(owner) else None


@dataclasses.dataclass(frozen=True)
class Lookahead(Score):
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
        if self.distance is not None:
            object.__setattr__(self, "distance", operator.index(self.distance))
        if self.look not in ("back", "ahead", "both"):
            raise ValueError(f"look={self.look!r}: use 'back', 'ahead' or 'both'")

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        if len(incoming) > 1:
            return None
        back, ahead = (np.sqrt(side[0]) for side in (incoming, outgoing))
        if not self.looks or self.look == "ahead" or not np.any(back > 0):
            back = np.ones_like(back)
        if not self.looks or self.look == "back" or not np.any(ahead > 0):
            ahead = np.ones_like(ahead)
        return back, ahead

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        if not self.looks:
            return tf.abs(weights)
        # Roots before products: the square of a product may leave float32's range where the product does not.
        back, ahead = (_telling(tf.sqrt(side)) for side in (incoming, outgoing))
        back = tf.ones_like(back) if self.look == "ahead" else back
        ahead = tf.ones_like(ahead) if self.look == "back" else ahead
        uses = [kernel.layout.outer(*use) for use in zip(tf.unstack(back), tf.unstack(ahead), strict=True)]
        return tf.abs(weights) * (uses[0] if len(uses) == 1 else _together(tf.stack(uses)))


def _together(uses: tf.Tensor) -> tf.Tensor:
    # Over the largest: squares would leave float32's range.
    largest = tf.reduce_max(uses)
    return largest * tf.norm(tf.math.divide_no_nan(uses, largest), axis=0)


def _telling(norms: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reduce_any(norms > 0), norms, tf.ones_like(norms))


@dataclasses.dataclass(frozen=True)
class Magnitude(Score):
    """`|w|`: what lookahead is measured against. Global pruning compares `|w| / L2 norm`, as the authors do."""

    distance: ClassVar[int] = 0

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        return np.ones(incoming.shape[1], np.float32), np.ones(outgoing.shape[1], np.float32)

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        return tf.abs(weights)


@dataclasses.dataclass(frozen=True)
class Random(Score):
    """Uniform random scores, the same at every update for the same seed and layer path.

    Args:
        seed: an integer.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed={self.seed!r}: expected an integer")
        object.__setattr__(self, "seed", operator.index(self.seed))

    distance: ClassVar[int] = 0

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        seed = (self.seed, zlib.crc32(kernel.path.encode()) & 0x7FFFFFFF)
        return tf.random.stateless_uniform(kernel.layout.shape, seed=seed)


@dataclasses.dataclass(frozen=True)
class LookaheadActivation(Lookahead):
    """Lookahead over kernels each times the root of how often its output units are active: LAP-act of Park et al.

    Activity is measured over the data that `prune`, `Pruner` or `LAPCallback` is given, at each update: see
    `tf_lap.scores.measurements.activity`.
    """

    needs_data: ClassVar[bool] = True

    def gains(self, model: Any, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]) -> dict[int, tf.Tensor]:
        """What each kernel is multiplied by, by its number, in a shape that broadcasts against it."""
        roots = probe.activity(model, recipe, data)
        return {i: _beside(k.layout, root) for i, (k, root) in enumerate(zip(recipe.kernels, roots, strict=True))}


def _beside(layout: Layout, outputs: tf.Tensor) -> tf.Tensor:
    return outputs[:, tf.newaxis] if layout.swapped else outputs


@dataclasses.dataclass(frozen=True)
class OBD(Score):
    """Optimal brain damage: `w^2 h / 2`, h the diagonal of the Gauss-Newton matrix of the softmax cross-entropy.

    LeCun, Denker, Solla: "Optimal Brain Damage", 1989. The score is the root of it, which ranks the same. Measured
    over the data that `prune`, `Pruner` or `LAPCallback` is given, at each update: see `tf_lap.scores.measurements`.
    Serves Dense and Conv2D layers.
    """

    looks: ClassVar[bool] = False
    norm_order: ClassVar[int] = 4
    needs_data: ClassVar[bool] = True

    def gains(self, model: Any, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]) -> dict[int, tf.Tensor]:
        """What each kernel is multiplied by, by its number, in its shape."""
        return {i: tf.sqrt(h / 2) for i, h in probe.curvature(model, recipe, targets, data).items()}

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        return np.ones(incoming.shape[1], np.float32), np.ones(outgoing.shape[1], np.float32)

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        return tf.abs(weights)


@dataclasses.dataclass(frozen=True)
class OBDLookahead(Lookahead):
    """Lookahead over kernels `|w| sqrt(h)`, h as in `OBD`: the product of both in Park et al."""

    needs_data: ClassVar[bool] = True

    def gains(self, model: Any, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]) -> dict[int, tf.Tensor]:
        """What each kernel is multiplied by, by its number, in its shape; neighbours too, where it is known."""
        known = [i for i, kernel in enumerate(recipe.kernels) if i in targets or probe.has_curvature(kernel)]
        return {i: tf.sqrt(h) for i, h in probe.curvature(model, recipe, known, data).items()}


_REGISTRY = Registry("score", Score, "tf_lap.scores")
get, serialize, deserialize = _REGISTRY.get, _REGISTRY.serialize, _REGISTRY.deserialize
names = _REGISTRY.names


def register(name: str) -> Callable[[type[Score]], type[Score]]:
    """A decorator that lets a score of one's own be chosen by a name, which it has in configurations too.

    Example:

    >>> import dataclasses, tensorflow as tf
    >>> @tf_lap.register_score("rounded")
    ... @dataclasses.dataclass(frozen=True)
    ... class Rounded(tf_lap.scores.Score):
    ...     distance = 0
    ...     def score(self, kernel, weights, incoming, outgoing):
    ...         return tf.round(tf.abs(weights))
    >>> report = tf_lap.prune(model, 0.5, score="rounded")

    Args:
        name: what it shall be called.

    Raises:
        TypeError: what is decorated is no subclass of `Score`. ValueError: another class has the name.
    """
    return _REGISTRY.register(name)


for _name, _class in {
    "lookahead": Lookahead,
    "magnitude": Magnitude,
    "random": Random,
    "lookahead_activation": LookaheadActivation,
    "obd": OBD,
    "obd_lookahead": OBDLookahead,
}.items():
    register(_name)(_class)
