"""How many weights each kernel keeps."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.graph.layer_filters import lookup

Sparsity = float | Mapping[str, float]


class Allocation(Configurable, abc.ABC):
    """How many weights each kernel keeps. One's own is a subclass, best a frozen dataclass: see `register`.

    Attributes:
        pooled: whether all kernels' weights are ranked together.
    """

    pooled: ClassVar[bool] = False

    @abc.abstractmethod
    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """How many to keep: a count for each kernel, or one for all of them where they are pooled.

        Args:
            sizes: how many things each kernel has that are kept or dropped whole: weights, or blocks.
            sparsities: the fraction of them to drop.
            shapes: the kernels' shapes.
        """

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Scores of one kernel in units that can be ranked together with other kernels'; by default as they are.

        Args:
            scores: float32, of the kernel's shape.
            live: bool, False where a weight is pruned already.
            norm_order: that of the score.
        """
        return scores


@dataclasses.dataclass(frozen=True)
class Uniform(Allocation):
    """Each kernel at its own sparsity: the same for all, or what a mapping gives it."""

    pooled: ClassVar[bool] = False

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """A count for each kernel."""
        return [keep_count(n, s) for n, s in zip(sizes, sparsities, strict=True)]

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Scores as they are: they are ranked within their kernel."""
        return scores


@dataclasses.dataclass(frozen=True)
class Global(Allocation):
    """All kernels ranked together, each kernel's scores over a norm of them; every kernel keeps at least one weight.

    The norm is the L2 norm for magnitude and the L4 norm for lookahead, which ranks as the authors' code does.
    """

    pooled: ClassVar[bool] = True

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """One count for all kernels together.

        Raises:
            ValueError: the kernels were given different sparsities.
        """
        return [max(len(sizes), keep_count(sum(sizes), _single("global", sparsities)))]

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Scores over their norm."""
        # Over the largest first: the fourth power of a small score would leave float32's range.
        largest = tf.reduce_max(scores)
        unit = tf.math.divide_no_nan(scores, largest)
        return tf.math.divide_no_nan(unit, tf.norm(unit, ord=norm_order))


@dataclasses.dataclass(frozen=True)
class LAMP(Allocation):
    """All kernels ranked together by layer-adaptive scores; every kernel keeps at least one weight.

    Lee, Park, Mo, Ahn, Shin: "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021: a squared score
    over the sum of all squared scores of its kernel that are not below it. Theirs with magnitude; it goes with any
    score.
    """

    pooled: ClassVar[bool] = True

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """One count for all kernels together.

        Raises:
            ValueError: the kernels were given different sparsities.
        """
        return [max(len(sizes), keep_count(sum(sizes), _single("lamp", sparsities)))]

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Layer-adaptive scores; of equal ones the first in the kernel is the higher."""
        flat = tf.reshape(scores, [-1])
        order = tf.argsort(flat, direction="DESCENDING", stable=True)
        # Over the largest, and in double precision: millions of squares are added up.
        unit = tf.cast(tf.math.divide_no_nan(flat, tf.reduce_max(flat)), tf.float64)
        squares = tf.square(tf.gather(unit, order))
        ranked = tf.cast(tf.math.divide_no_nan(squares, tf.cumsum(squares)), tf.float32)
        return tf.reshape(tf.scatter_nd(order[:, tf.newaxis], ranked, tf.shape(flat)), tf.shape(scores))


@dataclasses.dataclass(frozen=True)
class ERK(Allocation):
    """Each kernel keeps a fraction in proportion to `sum(shape) / product(shape)`: Erdos-Renyi-Kernel.

    Mocanu et al., 2018; for convolutions Evci et al.: "Rigging the Lottery", ICML 2020. Kernels for which that is more
    than all stay whole, and the others make up for it, so that all together have the sparsity that is asked.
    """

    pooled: ClassVar[bool] = False

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """A count for each kernel.

        Raises:
            ValueError: the kernels were given different sparsities.
        """
        wanted = max(len(sizes), keep_count(sum(sizes), _single("erk", sparsities)))
        raw = [size * sum(shape) / math.prod(shape) for size, shape in zip(sizes, shapes, strict=True)]
        whole: set[int] = set()
        while True:
            others = [i for i in range(len(sizes)) if i not in whole]
            left = wanted - sum(sizes[i] for i in whole)
            exact = {i: raw[i] * left / sum(raw[j] for j in others) for i in others}
            over = {i for i in others if exact[i] > sizes[i]}
            if not over:
                break
            whole |= over
        kept = [size if i in whole else max(1, math.floor(exact[i])) for i, size in enumerate(sizes)]
        # What rounding down left goes to those that it took most from; what "at least one" took comes from the largest.
        for i in sorted(others, key=lambda i: math.floor(exact[i]) - exact[i]):
            if sum(kept) < wanted and kept[i] < sizes[i]:
                kept[i] += 1
        while sum(kept) > wanted:
            kept[kept.index(max(kept))] -= 1
        return kept

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Scores as they are: they are ranked within their kernel."""
        return scores


def _single(name: str, sparsities: Sequence[float]) -> float:
    if len(set(sparsities)) > 1:
        raise ValueError(
            f"allocation={name!r} divides one sparsity among all kernels, got {sorted(set(sparsities))}: pass a "
            "number, use filters to leave layers out, or use allocation='uniform' with the mapping"
        )
    return sparsities[0]


def best_first(scores: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Scores of one kernel with infinity for the largest live one: ranked with others, no kernel then loses all."""
    first = tf.argmax(tf.reshape(tf.where(live, scores, -1.0), [-1]))
    best = tf.reshape(tf.range(tf.size(scores, tf.int64)) == first, tf.shape(scores))
    return tf.where(best & live, float("inf"), scores)


_REGISTRY = Registry("allocation", Allocation, "tf_lap.allocation")
get, serialize, deserialize = _REGISTRY.get, _REGISTRY.serialize, _REGISTRY.deserialize


def register(name: str) -> Callable[[type[Allocation]], type[Allocation]]:
    """A decorator that lets an allocation of one's own be chosen by a name, which it has in configurations too.

    Example:

    >>> import dataclasses
    >>> @tf_lap.register_allocation("spare_the_first")
    ... @dataclasses.dataclass(frozen=True)
    ... class SpareTheFirst(tf_lap.allocation.Allocation):
    ...     def keep(self, sizes, sparsities, shapes):
    ...         return [sizes[0]] + [round(n * (1 - s)) for n, s in zip(sizes[1:], sparsities[1:])]
    >>> report = tf_lap.prune(model, 0.5, allocation="spare_the_first")

    Args:
        name: what it shall be called.

    Raises:
        TypeError: what is decorated is no subclass of `Allocation`. ValueError: another class has the name.
    """
    return _REGISTRY.register(name)


for _name, _class in {"uniform": Uniform, "global": Global, "erk": ERK, "lamp": LAMP}.items():
    register(_name)(_class)


def keep_count(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at a sparsity: `max(1, round(size * (1 - sparsity)))`, half to even."""
    return max(1, round(size * (1 - sparsity)))


def check_fraction(what: str, value: Any) -> float:
    """A sparsity as a float.

    Raises:
        TypeError: not a number. ValueError: outside [0, 1).
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{what}={value!r}: expected the fraction of zeros, a number in [0, 1)")
    try:
        number = float(value)
    except TypeError as error:  # an array of several numbers
        raise TypeError(f"{what}={value!r}: expected one number in [0, 1)") from error
    if not (0.0 <= number < 1.0) or math.isnan(number):
        raise ValueError(
            f"{what}={value!r}: a sparsity is the fraction of zeros and lies in [0, 1); 0.9 leaves one weight in ten"
        )
    return number


def check_sparsity(what: str, sparsity: Any) -> Sparsity:
    """A sparsity, or a mapping from layer paths or regular expressions to sparsities.

    Raises:
        TypeError: neither. ValueError: a fraction outside [0, 1), or an empty mapping.
    """
    if isinstance(sparsity, Mapping):
        if not sparsity:
            raise ValueError(f"{what} is an empty mapping: give it a layer path or a regular expression")
        return {key: check_fraction(f"{what}[{key!r}]", value) for key, value in sparsity.items()}
    return check_fraction(what, sparsity)


def per_kernel(sparsity: Sparsity, paths: Sequence[str]) -> dict[str, float]:
    """The sparsity of each kernel that is spoken of, by path; kernels that a mapping does not name are left out.

    Raises:
        ValueError: a key of a mapping that matches no kernel.
    """
    if isinstance(sparsity, Mapping):
        return lookup("sparsity", sparsity, paths)
    return dict.fromkeys(paths, sparsity)
