"""How many weights each kernel keeps."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar

import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.graph.layer_filters import lookup

Sparsity: TypeAlias = float | Mapping[str, float]
"""A fraction of zeros, or fractions by layer paths or regular expressions."""


class Allocation(Configurable, abc.ABC):
    """How many weights each kernel keeps. Your own allocation is a subclass, best a frozen dataclass.

    Example:

    >>> import dataclasses
    >>> @tf_lap.register_allocation("spare_the_first")
    ... @dataclasses.dataclass(frozen=True)
    ... class SpareTheFirst(tf_lap.allocation.Allocation):
    ...     def keep(self, sizes, sparsities, shapes):
    ...         return [sizes[0]] + [round(n * (1 - s)) for n, s in zip(sizes[1:], sparsities[1:])]
    >>> report = tf_lap.prune(model, 0.5, allocation="spare_the_first")

    Attributes:
        pooled: whether all kernels' weights are ranked together.
    """

    pooled: ClassVar[bool] = False

    @abc.abstractmethod
    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """How many to keep: a count for each kernel, or a single one for all of them together if they are pooled.

        Args:
            sizes: how many units each kernel has, which are its weights or blocks of them.
            sparsities: the fraction of them to prune.
            shapes: the kernels' shapes.
        """

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Scores of one kernel that can be ranked together with those of other kernels; by default as they are.

        Args:
            scores: float32, in the shape of the kernel or of its blocks.
            live: bool, in the same shape, False where a unit is pruned already.
            norm_order: the score's `norm_order`.
        """
        return scores


AllocationLike: TypeAlias = str | Allocation | Mapping[str, Any]
"""What the argument `allocation` takes: a name, an object or a configuration."""

AllocationClass = TypeVar("AllocationClass", bound=type[Allocation])

_REGISTRY: Registry[Allocation] = Registry("allocation", Allocation, "tf_lap.allocation")
get, serialize, deserialize, names = _REGISTRY.get, _REGISTRY.serialize, _REGISTRY.deserialize, _REGISTRY.names
register: Callable[[str], Callable[[AllocationClass], AllocationClass]] = _REGISTRY.register


@register("uniform")
@dataclasses.dataclass(frozen=True)
class Uniform(Allocation):
    """Each kernel at its own sparsity: the same for all, or what a mapping gives it."""

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """A count for each kernel."""
        return [keep_count(size, sparsity) for size, sparsity in zip(sizes, sparsities, strict=True)]


@register("global")
@dataclasses.dataclass(frozen=True)
class Global(Allocation):
    """All kernels ranked together, by scores divided by their kernel's norm. Every kernel keeps at least one weight.

    The norm is the L2 norm for magnitude and the L4 norm for lookahead, which ranks as the authors' code does.
    """

    pooled: ClassVar[bool] = True

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """One count for all kernels together.

        Raises:
            ValueError: the kernels were given different sparsities.
        """
        return [_count_total("global", sizes, sparsities)]

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Scores divided by their norm."""
        # Divided by the largest first: the fourth power of a small score would leave float32's range.
        largest = tf.reduce_max(scores)
        relative = tf.math.divide_no_nan(scores, largest)
        return tf.math.divide_no_nan(relative, tf.norm(relative, ord=norm_order))


@register("lamp")
@dataclasses.dataclass(frozen=True)
class LAMP(Allocation):
    """All kernels ranked together by layer-adaptive scores. Every kernel keeps at least one weight.

    Lee, Park, Mo, Ahn, Shin: "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021: a squared score
    divided by the sum of all squared scores of its kernel that are not below it. The paper uses magnitude; here it
    goes with any score.
    """

    pooled: ClassVar[bool] = True

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """One count for all kernels together.

        Raises:
            ValueError: the kernels were given different sparsities.
        """
        return [_count_total("lamp", sizes, sparsities)]

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """Layer-adaptive scores; of equal ones the first in the kernel is the higher."""
        flat = tf.reshape(scores, [-1])
        order = tf.argsort(flat, direction="DESCENDING", stable=True)
        # Divided by the largest, and in double precision: millions of squares are added up.
        relative = tf.cast(tf.math.divide_no_nan(flat, tf.reduce_max(flat)), tf.float64)
        squares = tf.square(tf.gather(relative, order))
        ranked = tf.cast(tf.math.divide_no_nan(squares, tf.cumsum(squares)), tf.float32)
        return tf.reshape(tf.scatter_nd(order[:, tf.newaxis], ranked, tf.shape(flat)), tf.shape(scores))


@register("auto")
@dataclasses.dataclass(frozen=True)
class Auto(LAMP):
    """The default: `LAMP` where one sparsity is for all kernels together, and `Uniform` where each has its own.

    That is so with a mapping of sparsities, with a pattern of m of n, and in the orders "forward" and "backward". The
    runs of `python -m benchmarks accuracy` recommend it.
    """

    def resolve(self, by_kernel: bool) -> LAMP | Uniform:
        """What it stands for.

        Args:
            by_kernel: whether each kernel has a sparsity of its own.
        """
        return Uniform() if by_kernel else LAMP()


@register("erk")
@dataclasses.dataclass(frozen=True)
class ERK(Allocation):
    """Each kernel keeps a fraction in proportion to `sum(shape) / product(shape)`: Erdos-Renyi-Kernel.

    Mocanu et al., 2018; for convolutions Evci et al.: "Rigging the Lottery", ICML 2020. Kernels whose fraction would be
    above 1 keep all weights, and the others keep fewer, so that all together have the sparsity that is given.
    """

    def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
        """A count for each kernel.

        Raises:
            ValueError: the kernels were given different sparsities.
        """
        total = _count_total("erk", sizes, sparsities)
        shares = [size * sum(shape) / math.prod(shape) for size, shape in zip(sizes, shapes, strict=True)]
        dense: set[int] = set()
        while True:
            sparse = [kernel for kernel in range(len(sizes)) if kernel not in dense]
            remaining = total - sum(sizes[kernel] for kernel in dense)
            sparse_shares = sum(shares[kernel] for kernel in sparse)
            exact = {kernel: shares[kernel] * remaining / sparse_shares for kernel in sparse}
            too_large = {kernel for kernel in sparse if exact[kernel] > sizes[kernel]}
            if not too_large:
                break
            dense |= too_large
        counts = [size if kernel in dense else max(1, math.floor(exact[kernel])) for kernel, size in enumerate(sizes)]
        # Rounding down left some weights over: they go to the kernels that lost most by it.
        for kernel in sorted(sparse, key=lambda kernel: math.floor(exact[kernel]) - exact[kernel]):
            if sum(counts) < total and counts[kernel] < sizes[kernel]:
                counts[kernel] += 1
        # Keeping at least one weight may have added some: they come from the largest kernels.
        while sum(counts) > total:
            counts[counts.index(max(counts))] -= 1
        return counts


def _count_total(allocation: str, sizes: Sequence[int], sparsities: Sequence[float]) -> int:
    """How many weights all kernels keep together: at least one for each kernel.

    Raises:
        ValueError: the kernels were given different sparsities.
    """
    if len(set(sparsities)) > 1:
        raise ValueError(
            f"allocation={allocation!r} divides one sparsity among all kernels, got {sorted(set(sparsities))}: pass a "
            "number, use filters to leave layers out, or use allocation='uniform' with the mapping"
        )
    return max(len(sizes), keep_count(sum(sizes), sparsities[0]))


def protect_best(scores: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Scores of one kernel, with infinity for the largest live one: so no kernel loses all when ranked with others.

    Args:
        scores: float32, of any shape.
        live: bool, of the same shape, False where a weight is pruned already.
    """
    first = tf.argmax(tf.reshape(tf.where(live, scores, -1.0), [-1]))
    best = tf.reshape(tf.range(tf.size(scores, tf.int64)) == first, tf.shape(scores))
    return tf.where(best & live, float("inf"), scores)


def keep_count(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at a sparsity: `max(1, round(size * (1 - sparsity)))`, half to even."""
    return max(1, round(size * (1 - sparsity)))


def check_fraction(argument: str, value: Any) -> float:
    """A sparsity as a float.

    Raises:
        TypeError: not a number. ValueError: outside [0, 1).
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{argument}={value!r}: expected the fraction of zeros, a number in [0, 1)")
    try:
        number = float(value)
    except TypeError as error:  # an array of several numbers
        raise TypeError(f"{argument}={value!r}: expected one number in [0, 1)") from error
    if not (0.0 <= number < 1.0) or math.isnan(number):
        raise ValueError(
            f"{argument}={value!r}: a sparsity is the fraction of zeros and lies in [0, 1); "
            "0.9 leaves one weight in ten"
        )
    return number


def check_sparsity(argument: str, sparsity: Any) -> Sparsity:
    """A sparsity, or a mapping from layer paths or regular expressions to sparsities.

    Raises:
        TypeError: neither. ValueError: a fraction outside [0, 1), or an empty mapping.
    """
    if isinstance(sparsity, Mapping):
        if not sparsity:
            raise ValueError(f"{argument} is an empty mapping: give it a layer path or a regular expression")
        return {key: check_fraction(f"{argument}[{key!r}]", value) for key, value in sparsity.items()}
    return check_fraction(argument, sparsity)


def assign_sparsities(sparsity: Sparsity, paths: Sequence[str], opt_in: Collection[str] = ()) -> dict[str, float]:
    """The sparsity of each kernel, by path; kernels that a mapping does not name are left out.

    Args:
        sparsity: a number, or a mapping.
        paths: the paths of the kernels.
        opt_in: those of them that only a key of a mapping speaks of that matches the whole path.

    Raises:
        ValueError: a key of a mapping that matches no kernel.
    """
    if isinstance(sparsity, Mapping):
        return lookup("sparsity", sparsity, paths, opt_in)
    return {path: sparsity for path in paths if path not in opt_in}
