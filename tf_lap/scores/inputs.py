"""Scores of weights and of the numbers that they are multiplied with, which are measured over data."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tf_lap.compat.types import Model
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.moments.measured import DAMPING, InputObserver, measure_moments, measure_squares
from tf_lap.moments.rows import RowReader, find_reader
from tf_lap.samples import Batch
from tf_lap.scores.base import Score, register
from tf_lap.scores.weights import Lookahead
from tf_lap.warn import warn

_MAX_NUMBERS = 1 << 27
"""How many numbers the second moments that are measured in one run over the data hold at most: 1 GiB in float64."""


class InputScore(Score, abc.ABC):
    """A magnitude times a factor that what the weight is multiplied with gives.

    The factors are measured at each update, over the data that `prune`, `Pruner` or `LAPCallback` is given; with
    order="forward" those of each kernel when its turn comes. Kernels whose inputs cannot be measured, recurrent ones
    for instance, have the factor 1, and a warning names them.

    Attributes:
        looks_ahead: whether the score is multiplied by the root of the outgoing energy too. Over several uses of a
            layer that energy adds up.
    """

    needs_data: ClassVar[bool] = True
    gains_in_energies: ClassVar[bool] = False
    looks_ahead: ClassVar[bool] = False

    @property
    def needs_energies(self) -> bool:
        """As `Score.needs_energies`."""
        return self.looks_ahead

    @property
    def sides(self) -> tuple[str, ...]:
        """As `Score.sides`."""
        return self._beside_inputs.sides

    @property
    def _beside_inputs(self) -> Lookahead:
        """The score but for the factors of its inputs."""
        return Lookahead(look="ahead") if self.looks_ahead else Lookahead(distance=0)

    def channel_factors(self, incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Score.channel_factors`."""
        return self._beside_inputs.channel_factors(incoming, outgoing)

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """Scores of the kernel's shape."""
        return self._beside_inputs.score(kernel, weights, incoming, outgoing)

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """The factors of the targets whose inputs can be measured, by their numbers: float32, in their shapes."""
        readers: dict[int, RowReader] = {}
        unread: dict[str, list[str]] = {}  # the paths of kernels, by the reason
        for number in targets:
            reader = find_reader(recipe, number)
            if isinstance(reader, RowReader):
                readers[number] = reader
            else:
                unread.setdefault(reader, []).append(recipe.kernels[number].path)
        observer = InputObserver(model, readers, data)
        uncalled = [recipe.kernels[number].path for number in readers if number not in observer.order]
        if uncalled:
            unread["the model does not call its layer"] = uncalled
        self._warn(unread)
        gains = {}
        for number, factors in self.measure(observer):
            layout = recipe.kernels[number].layout
            by_output = factors[:, :, np.newaxis].repeat(layout.outputs // layout.plain.groups, axis=2)
            gains[number] = tf.constant(layout.from_matrices(by_output.astype(np.float32)))
        return gains

    @abc.abstractmethod
    def measure(self, observer: InputObserver) -> Iterator[tuple[int, np.ndarray]]:
        """Measures the kernels of an observer.

        Yields:
            The number of a kernel, and the factors of the numbers in its rows, `(groups, row_size)`.
        """

    def _warn(self, unread: dict[str, list[str]]) -> None:
        if not unread:
            return
        listed = "; ".join(f"{', '.join(map(repr, paths))}: {reason}" for reason, paths in unread.items())
        warn(
            f"score={self!r} cannot measure what these kernels are multiplied with, so they are ranked by magnitude"
            f"{' and by what reads them' if self.looks_ahead else ''}: {listed}. To leave them whole, name the others "
            "in filters; to rank all kernels alike, use a score without data, such as 'lookahead'"
        )


@register("wanda")
@dataclasses.dataclass(frozen=True)
class Wanda(InputScore):
    """`|w|` times the root mean square of the number that it is multiplied with.

    Sun, Liu, Bair, Kolter: "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024. Its square
    is by how much the layer's squared output error grows, on average over the data, when the weight goes alone and
    nothing makes up for it. The paper ranks the weights of each output apart; here a kernel's are ranked together,
    unless the pattern is N:M.

    Example:

    >>> report = tf_lap.prune(model, 0.9, score="wanda", data=x)
    """

    def measure(self, observer: InputObserver) -> Iterator[tuple[int, np.ndarray]]:
        """As `InputScore.measure`."""
        for number, squares in measure_squares(observer, observer.order).items():
            yield number, np.sqrt(squares)


@register("lookahead_wanda")
@dataclasses.dataclass(frozen=True)
class LookaheadWanda(Wanda):
    """`Wanda` times the norm of what reads the weight's output: lookahead with measured inputs in place of energies.

    Example:

    >>> report = tf_lap.prune(model, 0.9, score="lookahead_wanda", data=x)
    """

    looks_ahead: ClassVar[bool] = True
    norm_order: ClassVar[int] = 4


@register("obs")
@dataclasses.dataclass(frozen=True)
class OBS(InputScore):
    """Optimal brain surgeon, layer by layer: the root of `w^2 / inv(G + damping)_jj`.

    Hassibi, Stork: "Second order derivatives for network pruning: Optimal Brain Surgeon", 1992. G is the second moment
    of the numbers that the kernel is multiplied with. The square of the score is by how much the layer's squared output
    error grows, on average over the data, when the weight goes alone and the other weights of its output make up for it
    as well as they can. The damping, 1% of the mean of G's diagonal, keeps them near to what they are. A weight whose
    input is always zero has the score zero.

    Measuring takes, for a kernel of n inputs (times taps), n^2 numbers of memory and about n^3 operations.

    Example:

    >>> report = tf_lap.prune(model, 0.9, score="obs", data=x)
    """

    def measure(self, observer: InputObserver) -> Iterator[tuple[int, np.ndarray]]:
        """As `InputScore.measure`."""
        for numbers in _split(observer):
            moments = measure_moments(observer, numbers)
            for number in numbers:
                yield number, find_obs_factors(moments.pop(number).second)


@register("obs_lookahead")
@dataclasses.dataclass(frozen=True)
class OBSLookahead(OBS):
    """`OBS` times the norm of what reads the weight's output.

    Example:

    >>> report = tf_lap.prune(model, 0.9, score="obs_lookahead", data=x)
    """

    looks_ahead: ClassVar[bool] = True
    norm_order: ClassVar[int] = 4


def find_obs_factors(second: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """The roots of `1 / inv(G + damping)_jj`, where each group has a second moment G.

    Args:
        second: `(groups, row_size, row_size)`, float64.
        damping: what is added to the diagonal, as a fraction of its mean.

    Returns:
        `(groups, row_size)`, float64; 0 where an input is always zero, and NaN where G is not finite.
    """
    if not np.isfinite(second).all():
        return np.full(second.shape[:2], np.nan)
    diagonal = np.einsum("gii->gi", second)
    is_dead = diagonal == 0
    added = np.where(is_dead, 1.0, damping * diagonal.mean(axis=1, keepdims=True))
    inverse = np.linalg.inv(second + added[:, :, np.newaxis] * np.eye(second.shape[1]))
    return np.where(is_dead, 0.0, 1 / np.sqrt(np.einsum("gii->gi", inverse)))


def _split(observer: InputObserver) -> Iterator[list[int]]:
    """The kernels of an observer, divided into those that are measured in one run over the data, first to last."""
    numbers: list[int] = []
    size = 0
    for number in observer.order:
        reader = observer.readers[number]
        moments_size = reader.groups * reader.row_size**2
        if numbers and size + moments_size > _MAX_NUMBERS:
            yield numbers
            numbers, size = [], 0
        numbers.append(number)
        size += moments_size
    if numbers:
        yield numbers
