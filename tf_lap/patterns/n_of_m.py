"""N of every M consecutive inputs stay."""

from __future__ import annotations

import dataclasses
import itertools

import tensorflow as tf

from tf_lap.graph.layouts import Layout
from tf_lap.patterns.base import Pattern, Ranked, check_whole_number, pad, register
from tf_lap.topk.sort_keys import make_sort_keys

_MAX_COMPARED = 16  # members of a group that are compared pair by pair


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
            object.__setattr__(self, name, check_whole_number(name, getattr(self, name)))
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
        padded = pad(sort_keys, axis, members, -1)
        shape = (*padded.shape[:axis], padded.shape[axis] // members, members, *padded.shape[axis + 1 :])
        best = tf.reshape(_mark_highest(tf.reshape(padded, shape), self.n, axis + 1), padded.shape)
        best = best[..., : sort_keys.shape[-2], : sort_keys.shape[-1]] & live
        live &= best | more
        # Infinite scores of all others become finite, so that none of them equals the best.
        scores = tf.where(best, float("inf"), tf.minimum(ranked.scores, ranked.scores.dtype.max))
        return Ranked(tf.where(live, scores, 0.0), ranked.magnitudes, live)


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
