"""Scores say how much a weight matters: non-negative float32 numbers, of which the lowest are pruned first."""

from __future__ import annotations

import abc
import dataclasses
import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.compat.types import Model
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.samples import Batch
from tf_lap.scores import activity, curvature


class Score(Configurable, abc.ABC):
    """How much a weight matters. Your own score is a subclass, best a frozen dataclass.

    Example:

    >>> import dataclasses, tensorflow as tf
    >>> @tf_lap.register_score("rounded")
    ... @dataclasses.dataclass(frozen=True)
    ... class Rounded(tf_lap.scores.Score):
    ...     distance = 0
    ...     def score(self, kernel, weights, incoming, outgoing):
    ...         return tf.round(tf.abs(weights))
    >>> report = tf_lap.prune(model, 0.5, score="rounded")

    Attributes:
        distance: how many kernels away the energies around a kernel come from, on each side. 0: none, so that they are
            not computed. 1: the neighbours. None: the whole path.
        norm_order: the order of the norm that makes scores of different kernels comparable in global pruning.
        needs_data: whether `gains` measures the model over data.
    """

    distance: int | None = 1
    norm_order: ClassVar[int] = 2
    needs_data: ClassVar[bool] = False

    @property
    def needs_energies(self) -> bool:
        """Whether it uses the energies around a kernel."""
        return self.distance != 0

    @property
    def sides(self) -> tuple[str, ...]:
        """On which sides of a kernel it looks: both of "before" and "after", one, or none."""
        return ("before", "after") if self.needs_energies else ()

    @abc.abstractmethod
    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of shape `kernel.layout.shape`, non-negative float32.

        Args:
            kernel: the kernel.
            weights: its values, float32.
            incoming: energies `(uses, inputs)`, float32; ones where the score does not need energies.
            outgoing: energies `(uses, outputs)`, likewise.
        """

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The two factors of a score that is a magnitude times one number of its input and one of its output.

        This is quicker than `score`, and must rank as it does. A subclass that overrides `score` must override
        `channel_factors` too; otherwise only its `score` is used.

        Args:
            incoming: energies `(uses, inputs)`, float32.
            outgoing: energies `(uses, outputs)`, float32.

        Returns:
            Float32 arrays `(inputs,)` and `(outputs,)`, or None where the score is no such product.
        """
        return None

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What kernels are multiplied by before their energies and scores are computed.

        Args:
            model: the model.
            recipe: its graph.
            targets: the numbers of the kernels that are pruned.
            data: batches of inputs; none where the score needs no data.

        Returns:
            By the numbers of kernels float32 tensors that broadcast against them; kernels that are left out stay as
            they are.
        """
        return {}


ScoreLike: TypeAlias = str | Score | Mapping[str, Any]
"""What the argument `score` takes: a name, an object or a configuration."""

ScoreClass = TypeVar("ScoreClass", bound=type[Score])

_REGISTRY: Registry[Score] = Registry("score", Score, "tf_lap.scores")
get, serialize, deserialize, names = _REGISTRY.get, _REGISTRY.serialize, _REGISTRY.deserialize, _REGISTRY.names
register: Callable[[str], Callable[[ScoreClass], ScoreClass]] = _REGISTRY.register


def channel_factors(score: Score, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """As `score.channel_factors`, but None where a subclass overrides `score` and inherits `channel_factors`."""
    owner = next(cls for cls in type(score).__mro__ if {"score", "channel_factors"} & vars(cls).keys())
    return score.channel_factors(incoming, outgoing) if "channel_factors" in vars(owner) else None


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


@register("lookahead_activation")
@dataclasses.dataclass(frozen=True)
class LookaheadActivation(Lookahead):
    """Lookahead over kernels that are multiplied by the roots of how often their units are active.

    This is LAP-act of Park et al. Activity is measured at each update, over the data that `prune`, `Pruner` or
    `LAPCallback` is given: see `tf_lap.scores.activity`.
    """

    needs_data: ClassVar[bool] = True

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What each kernel is multiplied by, by its number: float32, in a shape that broadcasts against it."""
        roots = activity.measure_activity(model, recipe, data)
        return {
            number: kernel.layout.outer(tf.ones([kernel.layout.inputs]), root)
            for number, (kernel, root) in enumerate(zip(recipe.kernels, roots, strict=True))
        }


@register("obd")
@dataclasses.dataclass(frozen=True)
class OBD(Score):
    """Optimal brain damage: `w^2 h / 2`, h the diagonal of the Gauss-Newton matrix of the softmax cross-entropy.

    LeCun, Denker, Solla: "Optimal Brain Damage", 1989. The score is the root of it, which ranks the same. It is
    measured at each update, over the data that `prune`, `Pruner` or `LAPCallback` is given: see
    `tf_lap.scores.curvature`. Serves Dense and Conv2D layers.
    """

    distance = 0
    norm_order: ClassVar[int] = 4
    needs_data: ClassVar[bool] = True

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What each target is multiplied by, by its number: float32, in its shape."""
        diagonals = curvature.measure_curvature(model, recipe, targets, data)
        return {number: tf.sqrt(diagonal / 2) for number, diagonal in diagonals.items()}

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        return np.ones(incoming.shape[1], np.float32), np.ones(outgoing.shape[1], np.float32)

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        return tf.abs(weights)


@register("obd_lookahead")
@dataclasses.dataclass(frozen=True)
class OBDLookahead(Lookahead):
    """Lookahead over kernels `|w| sqrt(h)`, h as in `OBD`: the product of both in Park et al."""

    needs_data: ClassVar[bool] = True

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What kernels are multiplied by, by their numbers: float32, in their shapes.

        Besides the targets these are all other kernels that have a curvature, because they are neighbours.
        """
        numbers = [
            number
            for number, kernel in enumerate(recipe.kernels)
            if number in targets or curvature.has_curvature(kernel)
        ]
        diagonals = curvature.measure_curvature(model, recipe, numbers, data)
        return {number: tf.sqrt(diagonal) for number, diagonal in diagonals.items()}
