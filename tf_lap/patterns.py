"""In what shape weights go: one by one, in blocks that go whole, or so many of every few inputs."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.graph.kernels import Layout
from tf_lap.topk.sort_keys import bits_of, keys

_EXPONENT = 0x7F800000  # the bits of a float32 that hold it
_SMALLEST = 0x00800000  # the bits of the smallest power of two that is not denormal
_BY_PAIRS = 16


class Ranked(NamedTuple):
    """Things of one kernel that are kept or dropped whole.

    Attributes:
        scores: a non-negative float32 for each; 0 where it is pruned already.
        magnitudes: what tells those of score 0 apart.
        live: bool, or zeros and ones: False or 0 where it is pruned already.
    """

    scores: tf.Tensor
    magnitudes: tf.Tensor
    live: tf.Tensor


class Pattern(Configurable, abc.ABC):
    """In what shape weights go. A pattern of one's own is a subclass, best a frozen dataclass: see `register`.

    What it leaves as it is are weights that go one by one: see `Unstructured`.

    Attributes:
        sparsity: the one fraction of zeros that the pattern ends at; None where it can end at any.
    """

    sparsity: float | None = None

    def units(self, layout: Layout) -> int:
        """How many things a kernel has that are kept or dropped whole."""
        return layout.size

    def least(self, layout: Layout) -> int:
        """The fewest of them that stay."""
        return 1

    def pool(self, weights: Ranked, layout: Layout) -> Ranked:
        """What is ranked in place of a kernel's weights."""
        return weights

    def protect(self, ranked: Ranked, layout: Layout, more: tf.Tensor) -> Ranked:
        """The same with what must stay above all others; `more`, a bool, says that more than the least will stay."""
        return ranked

    def expand(self, kept: tf.Tensor, live: tf.Tensor, layout: Layout) -> tf.Tensor:
        """The kernel's mask, bool, when these things are kept and these weights are live."""
        return kept


@dataclasses.dataclass(frozen=True)
class Unstructured(Pattern):
    """Weights go one by one."""


@dataclasses.dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of some outputs by some consecutive inputs go whole; "block:1x4" is `Blocks(1, 4)`.

    A block's score is the L2 norm of its weights' scores. In a convolution the inputs are the input channels at one
    tap. Where `outputs` or `inputs` does not divide those of a kernel, its last blocks are smaller. A kernel of b
    blocks at sparsity s keeps exactly `max(1, round(b * (1 - s)))` of them.

    TFLite multiplies by blocks of 1 output and 4 inputs fast, in Dense layers in float32.

    Example:

    >>> report = tf_lap.prune(model, 0.9, pattern=tf_lap.patterns.Blocks(outputs=1, inputs=4))

    Args:
        outputs: how many outputs a block spans.
        inputs: how many inputs.

    Raises:
        TypeError, ValueError: not whole numbers of at least 1, or 1 by 1.
    """

    outputs: int
    inputs: int

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.outputs == self.inputs == 1:
            raise ValueError("a block of 1 output by 1 input is a weight: use pattern='unstructured'")

    def units(self, layout: Layout) -> int:
        """The number of blocks."""
        rows, columns = (-(-layout.shape[axis] // size) for axis, size in self._sizes(layout).items())
        return rows * columns * (layout.size // (layout.shape[-1] * layout.shape[-2]))

    def pool(self, weights: Ranked, layout: Layout) -> Ranked:
        """The blocks, in the order of the kernel."""
        split, within = self._split(weights.live, layout)
        return Ranked(
            self._norms(weights.scores, layout),
            self._norms(weights.magnitudes, layout),
            tf.reduce_any(split, axis=within),
        )

    def expand(self, kept: tf.Tensor, live: tf.Tensor, layout: Layout) -> tf.Tensor:
        """Each block's flag for all its weights."""
        for axis, size in self._sizes(layout).items():
            blocks = np.arange(layout.shape[axis]) // size  # which block each of them is in
            kept = tf.gather(kept, tf.constant(blocks, tf.int64), axis=axis) if size > 1 else kept
        return kept & live

    def _sizes(self, layout: Layout) -> dict[int, int]:
        return {layout.input_axis: self.inputs, layout.output_axis: self.outputs}

    def _split(self, tensor: tf.Tensor, layout: Layout) -> tuple[tf.Tensor, list[int]]:
        """A kernel's tensor with an axis within blocks behind each of the last two, and these axes."""
        rows, columns = (self._sizes(layout)[axis] for axis in (-2, -1))
        padded = _padded(_padded(tensor, -2, rows), -1, columns)
        height, width = padded.shape[-2:]
        shape = (*layout.shape[:-2], height // rows, rows, width // columns, columns)
        return tf.reshape(padded, shape), [len(shape) - 3, len(shape) - 1]

    def _norms(self, values: tf.Tensor, layout: Layout) -> tf.Tensor:
        split, within = self._split(tf.abs(values), layout)
        largest = tf.reduce_max(split, axis=within, keepdims=True)
        # Over a power of two near the largest, which is exact: squares would leave float32's range.
        bits = tf.maximum(tf.bitwise.bitwise_and(bits_of(largest), _EXPONENT), _SMALLEST)
        unit = tf.bitcast(tf.cast(bits, tf.int32), tf.float32)
        norms = unit * tf.sqrt(tf.reduce_sum(tf.square(split / unit), axis=within, keepdims=True))
        return tf.squeeze(tf.where(tf.math.is_inf(largest), largest, norms), axis=within)


@dataclasses.dataclass(frozen=True)
class NOfM(Pattern):
    """n of every m consecutive inputs of one output stay; "2:4" is `NOfM(2, 4)`.

    In a convolution the inputs of an output are the input channels at one tap. Where m does not divide them, the last
    group of each output has fewer, of which n stay too, or all where it has no more.

    The pattern ends at the sparsity 1 - n / m. On the way there a kernel keeps exactly `round(size * (1 - sparsity))`
    weights, and never fewer than n of a group, the highest scores of it.

    Example:

    >>> report = tf_lap.prune(model, 0.5, pattern="2:4")

    Args:
        n: how many stay.
        m: of how many.

    Raises:
        TypeError, ValueError: not whole numbers, or not 1 <= n < m.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        for name in ("n", "m"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.n >= self.m:
            raise ValueError(f"the pattern {self} drops nothing: n must be less than m, as in '2:4'")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """The fraction of zeros that the pattern ends at."""
        return 1 - self.n / self.m

    def least(self, layout: Layout) -> int:
        """How many weights stay when no group has more than n."""
        inputs = layout.shape[layout.input_axis]
        whole, rest = divmod(inputs, self.m)
        return (whole * self.n + min(rest, self.n)) * (layout.size // inputs)

    def protect(self, ranked: Ranked, layout: Layout, more: tf.Tensor) -> Ranked:
        """The weights, the n highest of each group above all others, which stay only where there are more."""
        axis = len(layout.shape) + layout.input_axis
        live = tf.cast(ranked.live, tf.bool)
        order = keys(ranked.scores, ranked.magnitudes, live)
        members = min(self.m, order.shape[axis])
        padded = _padded(order, axis, members, -1)
        shape = (*padded.shape[:axis], padded.shape[axis] // members, members, *padded.shape[axis + 1 :])
        best = tf.reshape(_highest(tf.reshape(padded, shape), self.n, axis + 1), padded.shape)
        best = best[..., : order.shape[-2], : order.shape[-1]] & live
        live &= best | more
        # Others below infinity, so that none is as high.
        scores = tf.where(best, float("inf"), tf.minimum(ranked.scores, ranked.scores.dtype.max))
        return Ranked(tf.where(live, scores, 0.0), ranked.magnitudes, live)


_FORMS = (
    (re.compile(r"(\d+):(\d+)"), NOfM),
    (re.compile(r"block:(\d+)x(\d+)"), Blocks),
)
_REGISTRY = Registry(
    "pattern",
    Pattern,
    "tf_lap.patterns",
    ", 'N:M' such as '2:4' (2 of every 4 inputs stay), 'block:RxC' such as 'block:1x4' (blocks of 1 output by 4 inputs "
    "go whole)",
)
serialize, deserialize = _REGISTRY.serialize, _REGISTRY.deserialize


def register(name: str) -> Callable[[type[Pattern]], type[Pattern]]:
    """A decorator that lets a pattern of one's own be chosen by a name, which it has in configurations too.

    Example:

    >>> import dataclasses, tensorflow as tf
    >>> @tf_lap.register_pattern("whole_outputs")
    ... @dataclasses.dataclass(frozen=True)
    ... class WholeOutputs(tf_lap.patterns.Pattern):
    ...     def units(self, layout):
    ...         return layout.shape[-1]
    ...     def pool(self, weights, layout):
    ...         over = list(range(len(layout.shape) - 1))
    ...         norms = [tf.sqrt(tf.reduce_sum(x**2, over)) for x in (weights.scores, weights.magnitudes)]
    ...         return tf_lap.patterns.Ranked(*norms, tf.reduce_any(weights.live, over))
    ...     def expand(self, kept, live, layout):
    ...         return kept & live
    >>> report = tf_lap.prune(model, 0.5, pattern="whole_outputs")

    Args:
        name: what it shall be called.

    Raises:
        TypeError: what is decorated is no subclass of `Pattern`. ValueError: another class has the name.
    """
    return _REGISTRY.register(name)


for _name, _class in {"unstructured": Unstructured, "n_of_m": NOfM, "blocks": Blocks}.items():
    register(_name)(_class)


def get(pattern: Any) -> Pattern:
    """The pattern object that a name, an object or a configuration stands for.

    Raises:
        ValueError: an unknown name, or one that makes no sense. TypeError: none of the three.
    """
    if isinstance(pattern, str):
        for form, cls in _FORMS:
            if match := form.fullmatch(pattern):
                return cls(*map(int, match.groups()))
    return _REGISTRY.get(pattern)


def limit(pattern: Pattern, layout: Layout, kept: int) -> str | None:
    """Why a kernel keeps more than the pattern's share, where the pattern lets no more of it go; else None.

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


def _whole(what: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what}={value!r}: expected a whole number of at least 1")
    if value < 1:
        raise ValueError(f"{what}={value!r}: expected a whole number of at least 1")
    return operator.index(value)


def _padded(tensor: tf.Tensor, axis: int, multiple: int, value: int = 0) -> tf.Tensor:
    """A tensor lengthened along an axis to a multiple."""
    missing = -tensor.shape[axis] % multiple
    if not missing:
        return tensor
    shape = tensor.shape.as_list()
    shape[axis] = missing
    return tf.concat([tensor, tf.fill(shape, tf.cast(value, tensor.dtype))], axis=axis)


def _highest(order: tf.Tensor, n: int, axis: int) -> tf.Tensor:
    """Which are the n highest along an axis; of equal ones the first."""
    m = order.shape[axis]
    if m > _BY_PAIRS:  # comparisons grow with the square
        ranks = tf.argsort(tf.argsort(order, axis, "DESCENDING", stable=True), axis, stable=True)
        return ranks < n
    each = tf.unstack(tf.cast(order, tf.float64), axis=axis)  # GPUs take no tensor of integers apart
    above = [tf.zeros_like(one, tf.float32) for one in each]
    for first, second in itertools.combinations(range(m), 2):
        ahead = tf.cast(each[first] >= each[second], tf.float32)
        above[second] += ahead
        above[first] += 1 - ahead
    return tf.stack([count < n for count in above], axis=axis)
