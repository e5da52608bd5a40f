"""Whole blocks of weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tf_lap.graph.layouts import Layout
from tf_lap.patterns.base import Pattern, Ranked, check_whole_number, pad, register
from tf_lap.topk.sort_keys import bits_of

_EXPONENT_MASK = 0x7F800000  # the bits of a float32 that hold its exponent
_SMALLEST_NORMAL_BITS = 0x00800000  # those of the smallest power of two that is not denormal


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
            object.__setattr__(self, name, check_whole_number(name, getattr(self, name)))
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
        padded = pad(pad(tensor, -2, rows), -1, columns)
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
