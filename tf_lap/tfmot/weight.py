"""One weight that a wrapper prunes, and what is written to it."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import keep_count
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.layouts import Layout
from tf_lap.patterns import Pattern, Ranked
from tf_lap.pruning.constraints import apply_mask


@dataclasses.dataclass(frozen=True, eq=False)
class PrunableWeight:
    """A weight that a wrapper prunes.

    Attributes:
        path: the path of the layer inside the wrapper; the kernel's name follows it where the layer has several.
        wrapper: the wrapper.
        pattern: in what shape it is pruned.
        variable: the weight.
        mask: a variable of its shape, floating-point: 1 where a weight stays, 0 where it is pruned.
        threshold: a scalar variable: the lowest score that the mask kept.
        kernel: its number among the kernels of the recipe.
        layout: how it lies in memory.
    """

    path: str
    wrapper: Layer
    pattern: Pattern
    variable: Variable
    mask: Variable
    threshold: Variable
    kernel: int
    layout: Layout

    def zero_pruned(self) -> None:
        """Zeroes what the mask drops."""
        zero_pruned(self.variable, self.mask)

    def is_pruned(self) -> bool:
        """Whether its mask drops anything, eagerly."""
        return bool(tf.reduce_any(tf.equal(compat.value(self.mask), 0)))

    def keeps_more_than(self, sparsity: float) -> bool:
        """Whether its mask keeps more weights, or blocks of them, than a sparsity leaves; eagerly."""
        live = self.layout.to_plain(tf.reshape(compat.value(self.mask), self.layout.shape))
        blocks = self.pattern.pool(Ranked(live, live, live), self.layout.plain)
        kept = int(tf.math.count_nonzero(tf.cast(blocks.live, tf.bool)))
        return kept > keep_count(self.pattern.units(self.layout.plain), sparsity)

    def set_mask(self, mask: tf.Tensor, threshold: tf.Tensor) -> None:
        """Sets the mask, and zeroes what it drops.

        Args:
            mask: bool, or ones and zeros, float32, of as many elements as the weight.
            threshold: a float32 scalar, the lowest score that it keeps.
        """
        compat.assign(self.mask, tf.reshape(mask, self.variable.shape))
        compat.assign(self.threshold, threshold)
        self.zero_pruned()


def make_layout(variable: Variable) -> Layout:
    """The layout of a weight that has no place in a graph: a vector or a number is a matrix of one row."""
    shape = tuple(variable.shape)
    return Layout((1,) * (2 - len(shape)) + shape)


def zero_pruned(variable: Variable, mask: Variable) -> None:
    """Zeroes in a variable what a mask of ones and zeros drops."""
    compat.assign(variable, apply_mask(variable, mask))
