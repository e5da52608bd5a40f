"""Patterns of zeros: weights are pruned one by one, in whole blocks, or n of every m inputs stay."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.graph.layouts import Layout
from tf_lap.topk.sort_keys import bits_of, make_sort_keys

_EXPONENT_MASK = 0x7F800000  # the bits of a float32 that hold its exponent
_SMALLEST_NORMAL_BITS = 0x00800000  # those of the smallest power of two that is not denormal
_MAX_COMPARED = 16  # members of a group that are compared pair by pair


class Ranked(NamedTuple):
    """The units of one kernel that stay or go whole: its weights, or blocks of them.

    Attributes:
        scores: one for each unit, float32, non-negative; 0 where the unit is pruned already.
        magnitudes: float32, of the same shape. They order units whose score is 0.
        live: False or 0 where the unit is pruned already, of the same shape; bool, or zeros and ones.
    """

    scores: tf.Tensor
    magnitudes: tf.Tensor
    live: tf.Tensor


class Pattern(Configurable, abc.ABC):
    """The shape in which weights are pruned. Your own pattern is a subclass, best a frozen dataclass.

    A method that it does not override treats weights one by one: see `Unstructured`.

    Example:

    >>> import dataclasses, tensorflow as tf
    >>> @tf_lap.register_pattern("whole_outputs")
    ... @dataclasses.dataclass(frozen=True)
    ... class WholeOutputs(tf_lap.patterns.Pattern):
    ...     def units(self, layout):
    ...         return layout.shape[-1]
    ...     def pool(self, weights, layout):
    ...         axes = list(range(len(layout.shape) - 1))
    ...         norms = [tf.sqrt(tf.reduce_sum(x**2, axes)) for x in (weights.scores, weights.magnitudes)]
    ...         return tf_lap.patterns.Ranked(*norms, tf.reduce_any(weights.live, axes))
    ...     def expand(self, kept, live, layout):
    ...         return kept & live
    >>> report = tf_lap.prune(model, 0.5, pattern="whole_outputs")

    Attributes:
        sparsity: the fraction of zeros at which the pattern is complete; None if any fraction is possible.
    """

    sparsity: float | None = None

    def units(self, layout: Layout) -> int:
        """How many units a kernel has, each of which stays or goes whole."""
        return layout.size

    def least(self, layout: Layout) -> int:
        """How many units stay at least."""
        return 1

    def pool(self, weights: Ranked, layout: Layout) -> Ranked:
        """The units of a kernel, given its weights."""
        return weights

    def protect(self, ranked: Ranked, layout: Layout, more: tf.Tensor) -> Ranked:
        """The same units, with the highest scores for those that must stay.

        Args:
            ranked: what `pool` gives.
            layout: the kernel's.
            more: whether more units than `least` are kept, a bool scalar.
        """
        return ranked

    def expand(self, kept: tf.Tensor, live: tf.Tensor, layout: Layout) -> tf.Tensor:
        """The kernel's mask, bool, of its shape.

        Args:
            kept: whether a unit stays, bool, in the shape that `pool` gives.
            live: False where a weight is pruned already, bool, of the kernel's shape.
            layout: the kernel's.
        """
        return kept


PatternLike: TypeAlias = str | Pattern | Mapping[str, Any]
"""What the argument `pattern` takes: a name, an object or a configuration."""

PatternClass = TypeVar("PatternClass", bound=type[Pattern])

_REGISTRY: Registry[Pattern] = Registry(
    "pattern",
    Pattern,
    "tf_lap.patterns",
    ", 'N:M' such as '2:4' (2 of every 4 inputs stay), 'block:RxC' such as 'block:1x4' (blocks of 1 output by 4 inputs "
    "go whole)",
)
serialize, deserialize, names = _REGISTRY.serialize, _REGISTRY.deserialize, _REGISTRY.names
register: Callable[[str], Callable[[PatternClass], PatternClass]] = _REGISTRY.register


@register("unstructured")
@dataclasses.dataclass(frozen=True)
class Unstructured(Pattern):
    """Weights are pruned one by one."""


@register("blocks")
@dataclasses.dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of consecutive outputs by consecutive inputs stay or go whole; "block:1x4" is `Blocks(1, 4)`.

    A block's score is the L2 norm of its weights' scores. In a convolution the inputs are the input channels at one
    tap. Where `outputs` or `inputs` does not divide those of a kernel, its last blocks are smaller. A kernel of b
    blocks at sparsity s keeps exactly `max(1, round(b * (1 - s)))` of them.

    TFLite has fast kernels for blocks of 1 output by 4 inputs, in Dense layers in float32.

    Example:

    >>> report = tf_lap.prune(model, 0.9, pattern=tf_lap.patterns.Blocks(outputs=1, inputs=4))

    Args:
        outputs: how many outputs a block spans.
        inputs: how many inputs it spans.

    Raises:
        TypeError, ValueError: not whole numbers of at least 1, or 1 by 1.
    """

    outputs: int
    inputs: int

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs"):
            object.__setattr__(self, name, _check_whole_number(name, getattr(self, name)))
        if self.outputs == self.inputs == 1:
            raise ValueError("a block of 1 output by 1 input is a weight: use pattern='unstructured'")

    def units(self, layout: Layout) -> int:
        """The number of blocks."""
        rows, columns = (-(-layout.shape[axis] // size) for axis, size in self._extents(layout).items())
        return rows * columns * (layout.size // (layout.shape[-1] * layout.shape[-2]))

    def pool(self, weights: Ranked, layout: Layout) -> Ranked:
        """The blocks, in the order of the kernel: each axis counts blocks where the kernel's counts weights."""
        split, within = self._split(weights.live, layout)
        scores, magnitudes = (
            self._compute_block_norms(values, layout) for values in (weights.scores, weights.magnitudes)
        )
        return Ranked(scores, magnitudes, tf.reduce_any(split, axis=within))

    def expand(self, kept: tf.Tensor, live: tf.Tensor, layout: Layout) -> tf.Tensor:
        """The kernel's mask: each weight has its block's flag, unless it is pruned already."""
        for axis, size in self._extents(layout).items():
            blocks = np.arange(layout.shape[axis]) // size  # the block of each position along the axis
            kept = tf.gather(kept, tf.constant(blocks, tf.int64), axis=axis) if size > 1 else kept
        return kept & live

    def _extents(self, layout: Layout) -> dict[int, int]:
        """The extent of a block along each of a kernel's last two axes."""
        return {layout.input_axis: self.inputs, layout.output_axis: self.outputs}

    def _split(self, tensor: tf.Tensor, layout: Layout) -> tuple[tf.Tensor, list[int]]:
        """A tensor of a kernel's shape with each of the last two axes split in two: blocks, and places in a block.

        Returns:
            The tensor, padded with zeros to whole blocks, and the numbers of the two axes of places.
        """
        rows, columns = (self._extents(layout)[axis] for axis in (-2, -1))
        padded = _pad(_pad(tensor, -2, rows), -1, columns)
        height, width = padded.shape[-2:]
        shape = (*layout.shape[:-2], height // rows, rows, width // columns, columns)
        return tf.reshape(padded, shape), [len(shape) - 3, len(shape) - 1]

    def _compute_block_norms(self, values: tf.Tensor, layout: Layout) -> tf.Tensor:
        """The L2 norm of each block of a float32 tensor of the kernel's shape; infinite if a value is."""
        split, within = self._split(tf.abs(values), layout)
        largest = tf.reduce_max(split, axis=within, keepdims=True)
        # Divided by a power of two near the largest, which is exact: squares would leave float32's range.
        bits = tf.maximum(tf.bitwise.bitwise_and(bits_of(largest), _EXPONENT_MASK), _SMALLEST_NORMAL_BITS)
        unit = tf.bitcast(tf.cast(bits, tf.int32), tf.float32)
        norms = unit * tf.sqrt(tf.reduce_sum(tf.square(split / unit), axis=within, keepdims=True))
        return tf.squeeze(tf.where(tf.math.is_inf(largest), largest, norms), axis=within)


@register("n_of_m")
@dataclasses.dataclass(frozen=True)
class NOfM(Pattern):
    """n of every m consecutive inputs of one output stay; "2:4" is `NOfM(2, 4)`.

    In a convolution the inputs of an output are the input channels at one tap. Where m does not divide them, the last
    group of each output has fewer, of which n stay too, or all where it has no more.

    The pattern is complete at sparsity 1 - n / m. Before, a kernel keeps exactly `round(size * (1 - sparsity))`
    weights, and of each group at least the n of the highest scores.

    Example:

    >>> report = tf_lap.prune(model, 0.5, pattern="2:4")

    Args:
        n: how many inputs stay.
        m: how many inputs a group has.

    Attributes:
        sparsity: 1 - n / m.

    Raises:
        TypeError, ValueError: not whole numbers, or not 1 <= n < m.
    """

    n: int
    m: int
    sparsity: float = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("n", "m"):
            object.__setattr__(self, name, _check_whole_number(name, getattr(self, name)))
        if self.n >= self.m:
            raise ValueError(f"the pattern {self} drops nothing: n must be less than m, as in '2:4'")
        object.__setattr__(self, "sparsity", 1 - self.n / self.m)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def least(self, layout: Layout) -> int:
        """How many weights stay when no group has more than n."""
        inputs = layout.shape[layout.input_axis]
        groups, remainder = divmod(inputs, self.m)
        return (groups * self.n + min(remainder, self.n)) * (layout.size // inputs)

    def protect(self, ranked: Ranked, layout: Layout, more: tf.Tensor) -> Ranked:
        """The weights, with infinite scores for the n best of each group; others count as pruned unless more stay."""
        axis = len(layout.shape) + layout.input_axis
        live = tf.cast(ranked.live, tf.bool)
        sort_keys = make_sort_keys(ranked.scores, ranked.magnitudes, live)
        members = min(self.m, sort_keys.shape[axis])
        padded = _pad(sort_keys, axis, members, -1)
        shape = (*padded.shape[:axis], padded.shape[axis] // members, members, *padded.shape[axis + 1 :])
        best = tf.reshape(_mark_highest(tf.reshape(padded, shape), self.n, axis + 1), padded.shape)
        best = best[..., : sort_keys.shape[-2], : sort_keys.shape[-1]] & live
        live &= best | more
        # Infinite scores of all others become finite, so that none of them equals the best.
        scores = tf.where(best, float("inf"), tf.minimum(ranked.scores, ranked.scores.dtype.max))
        return Ranked(tf.where(live, scores, 0.0), ranked.magnitudes, live)


_FORMS = (
    (re.compile(r"(\d+):(\d+)"), NOfM),
    (re.compile(r"block:(\d+)x(\d+)"), Blocks),
)


def get(pattern: PatternLike) -> Pattern:
    """The pattern object that a name, an object or a configuration stands for.

    Raises:
        ValueError: an unknown name, or one of an impossible pattern. TypeError: none of the three.
    """
    if isinstance(pattern, str):
        for form, cls in _FORMS:
            if match := form.fullmatch(pattern):
                return cls(*map(int, match.groups()))
    return _REGISTRY.get(pattern)


def limit(pattern: Pattern, layout: Layout, kept: int) -> str | None:
    """Why a kernel keeps more than the pattern's share, if the pattern cannot prune more of it; else None.

    Example:

    >>> limit(NOfM(2, 4), Layout((3, 3, 1, 8)), kept=72)
    '2:4 drops nothing where an output has 1 input at each tap'

    Args:
        pattern: the pattern.
        layout: the kernel's.
        kept: how many weights the kernel keeps.
    """
    if pattern.sparsity is None:
        return None
    least, units = pattern.least(layout), pattern.units(layout)
    if kept > least or least <= max(1, round(units * (1 - pattern.sparsity))):
        return None
    inputs = layout.shape[layout.input_axis]
    most = "nothing" if least == units else f"{1 - least / units:.0%} at most"
    taps = " at each tap" if len(layout.shape) > 2 else ""
    return f"{pattern} drops {most} where an output has {inputs} input{'s' * (inputs > 1)}{taps}"


def _check_whole_number(argument: str, value: Any) -> int:
    """A whole number of at least 1, as an int.

    Raises:
        TypeError: no whole number. ValueError: below 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument}={value!r}: expected a whole number of at least 1")
    if value < 1:
        raise ValueError(f"{argument}={value!r}: expected a whole number of at least 1")
    return operator.index(value)


def _pad(tensor: tf.Tensor, axis: int, multiple: int, value: int = 0) -> tf.Tensor:
    """A tensor that is lengthened along an axis to a multiple of `multiple`, with `value`."""
    missing = -tensor.shape[axis] % multiple
    if not missing:
        return tensor
    shape = tensor.shape.as_list()
    shape[axis] = missing
    return tf.concat([tensor, tf.fill(shape, tf.cast(value, tensor.dtype))], axis=axis)


def _mark_highest(numbers: tf.Tensor, n: int, axis: int) -> tf.Tensor:
    """True for the n highest integers along an axis, else False, in the tensor's shape; of equal ones the first."""
    m = numbers.shape[axis]
    if m > _MAX_COMPARED:  # the number of comparisons grows with the square of m
        places = tf.argsort(tf.argsort(numbers, axis, "DESCENDING", stable=True), axis, stable=True)
        return places < n
    # As float64, because GPUs have no operation that unstacks integers.
    members = tf.unstack(tf.cast(numbers, tf.float64), axis=axis)
    above = [tf.zeros_like(member, tf.float32) for member in members]
    for first, second in itertools.combinations(range(m), 2):
        first_is_higher = tf.cast(members[first] >= members[second], tf.float32)
        above[second] += first_is_higher
        above[first] += 1 - first_is_higher
    return tf.stack([count < n for count in above], axis=axis)
