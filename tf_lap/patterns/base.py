"""What a pattern is, patterns by name, and weights that are pruned one by one."""

from __future__ import annotations

import abc
import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import tensorflow as tf

from tf_lap.choices import Configurable, Registry
from tf_lap.graph.layouts import Layout


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
get, serialize, deserialize, names = _REGISTRY.get, _REGISTRY.serialize, _REGISTRY.deserialize, _REGISTRY.names
register: Callable[[str], Callable[[PatternClass], PatternClass]] = _REGISTRY.register


@register("unstructured")
@dataclasses.dataclass(frozen=True)
class Unstructured(Pattern):
    """Weights are pruned one by one."""


def check_whole_number(argument: str, value: Any) -> int:
    """A whole number of at least 1, as an int.

    Raises:
        TypeError: no whole number. ValueError: below 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument}={value!r}: expected a whole number of at least 1")
    if value < 1:
        raise ValueError(f"{argument}={value!r}: expected a whole number of at least 1")
    return operator.index(value)


def pad(tensor: tf.Tensor, axis: int, multiple: int, value: int = 0) -> tf.Tensor:
    """A tensor that is lengthened along an axis to a multiple of `multiple`, with `value`."""
    missing = -tensor.shape[axis] % multiple
    if not missing:
        return tensor
    shape = tensor.shape.as_list()
    shape[axis] = missing
    return tf.concat([tensor, tf.fill(shape, tf.cast(value, tensor.dtype))], axis=axis)
