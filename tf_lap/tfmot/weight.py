"""One weight that a wrapper prunes: what of it is ranked, and the mask that comes of it, in the shapes of tfmot."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import keep_count
from tf_lap.compat.tfmot import pruning_utils
from tf_lap.patterns import Ranked
from tf_lap.pruning.constraints import masked


def blocks(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor, size: tuple[int, int], pooling: str) -> Ranked:
    """Blocks of a matrix.

    Args:
        scores: of the matrix's shape, as all.
        weights: the weights.
        live: zeros where a weight is pruned, ones elsewhere.
        size: rows and columns of a block.
        pooling: "AVG" or "MAX": what makes one score of a block's.
    """
    extents = [-(-extent // block) for extent, block in zip(scores.shape, size, strict=True)]
    pooled = [
        # tfmot squeezes a single row or column of blocks away.
        tf.reshape(pruning_utils.factorized_pool(values, size, pooling, size, "SAME"), extents)
        for values in (scores, tf.abs(weights), live)
    ]
    return Ranked(pooled[0], pooled[1], pooled[2] > 0)


def expanded(kept: tf.Tensor, size: tuple[int, int], shape: tuple[int, int]) -> tf.Tensor:
    """The mask of a matrix of a shape, as float32, from that of its blocks."""
    mask = pruning_utils.expand_tensor(tf.cast(kept, tf.float32), list(size))
    return mask[: shape[0], : shape[1]]


def m_zeros_of_n(scores: tf.Tensor, m_by_n: tuple[int, int]) -> tf.Tensor:
    """The mask, as float32, that drops the lowest m of every n consecutive inputs of an output.

    Args:
        scores: of the shape of a matrix, or of a 2-d convolution's kernel.
        m_by_n: m and n.
    """
    mask = pruning_utils.generate_m_by_n_mask(pruning_utils.weights_rearrange(scores), m_by_n)
    return pruning_utils.m_by_n_sparsity_mask_prepare(mask, scores.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight that a wrapper prunes.

    Attributes:
        path: the path of the layer inside the wrapper.
        wrapper: the wrapper.
        variable: the weight.
        mask: a variable of its shape and dtype: 1 where a weight stays, 0 where it is pruned.
        threshold: a scalar variable: the lowest score that the mask kept.
        kernel: its number in the model's recipe; None where it is ranked by magnitude.
    """

    path: str
    wrapper: Any
    variable: Any
    mask: Any
    threshold: Any
    kernel: int | None

    def zero(self) -> None:
        """Zeroes what the mask drops."""
        zero(self.variable, self.mask)

    def ranked(self, scores: tf.Tensor) -> Ranked:
        """What of the weight is kept or dropped whole, in the wrapper's blocks.

        Args:
            scores: of the weight's shape, non-negative float32, 0 where it is pruned already.
        """
        values, live = compat.value(self.variable), compat.value(self.mask)
        size = tuple(self.wrapper.block_size)
        if size == (1, 1):
            return Ranked(scores, values, live)
        return blocks(scores, values, live, size, self.wrapper.block_pooling_type)

    def is_pruned(self) -> bool:
        """Whether its mask drops anything, eagerly."""
        return bool(tf.reduce_any(tf.equal(compat.value(self.mask), 0)))

    def keeps_more_than(self, sparsity: float) -> bool:
        """Whether its mask keeps more weights, or blocks of them, than a sparsity leaves; eagerly."""
        live = tf.cast(self.ranked(compat.value(self.mask)).live, tf.bool)
        return int(tf.math.count_nonzero(live)) > keep_count(live.shape.num_elements(), sparsity)

    def keep(self, kept: tf.Tensor, lowest: tf.Tensor) -> None:
        """Takes over a mask, and zeroes what it drops.

        Args:
            kept: which of the things ranked stay.
            lowest: the lowest score of them.
        """
        size = tuple(self.wrapper.block_size)
        self.take(kept if size == (1, 1) else expanded(kept, size, tuple(self.variable.shape)), lowest)

    def keep_m_of_n(self, scores: tf.Tensor) -> None:
        """Chooses and takes over the mask that drops m of n inputs, as the wrapper asks."""
        mask = m_zeros_of_n(scores, self.wrapper.sparsity_m_by_n) * compat.value(self.mask)
        self.take(mask, tf.constant(999.0))  # as tfmot

    def take(self, mask: tf.Tensor, lowest: tf.Tensor) -> None:
        """Takes over a mask of the weight's shape, and zeroes what it drops.

        Args:
            mask: ones and zeros, float32, or bool.
            lowest: the lowest score that it keeps.
        """
        compat.assign(self.mask, mask)
        compat.assign(self.threshold, lowest)
        self.zero()


def zero(variable: Any, mask: Any) -> None:
    """Zeroes in a variable what a mask of ones and zeros drops."""
    compat.assign(variable, masked(variable, mask))
