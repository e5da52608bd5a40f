"""What a score is, and the scores by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.compat.types import Model
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.samples import Batch


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
        gains_in_energies: whether energies too are those of kernels that are multiplied by `gains`; otherwise only the
            scores of a kernel are. With order="forward" the gains of a kernel are then measured when its turn comes.
    """

    distance: int | None = 1
    norm_order: ClassVar[int] = 2
    needs_data: ClassVar[bool] = False
    gains_in_energies: ClassVar[bool] = True

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
        """What kernels are multiplied by before they are scored, and before their energies are where these count too.

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
