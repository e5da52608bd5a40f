"""tfmot's blocks, as a pattern."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

from tf_lap.compat.tfmot import pruning_utils
from tf_lap.graph.layouts import Layout
from tf_lap.patterns import Pattern, Ranked, Unstructured


@dataclasses.dataclass(frozen=True)
class TfmotBlocks(Pattern):
    """Blocks of a matrix go whole, ranked as tfmot pools them.

    Args:
        size: rows and columns of a block.
        pooling: "AVG" or "MAX": what makes one score of a block's.
    """

    size: tuple[int, int]
    pooling: str

    def units(self, layout: Layout) -> int:
        """How many blocks a matrix has."""
        return math.prod(self._extents(layout))

    def pool(self, weights: Ranked, layout: Layout) -> Ranked:
        """The blocks, `(rows of blocks, columns of blocks)`."""
        scores, magnitudes, live = (
            # tfmot squeezes a single row or column of blocks away.
            tf.reshape(
                pruning_utils.factorized_pool(values, self.size, self.pooling, self.size, "SAME"), self._extents(layout)
            )
            for values in (weights.scores, tf.abs(weights.magnitudes), tf.cast(weights.live, tf.float32))
        )
        return Ranked(scores, magnitudes, live > 0)

    def expand(self, kept: tf.Tensor, live: tf.Tensor, layout: Layout) -> tf.Tensor:
        """The matrix's mask, bool, when these blocks are kept."""
        mask = pruning_utils.expand_tensor(tf.cast(kept, tf.float32), list(self.size))
        return (mask[: layout.shape[0], : layout.shape[1]] > 0) & live

    def _extents(self, layout: Layout) -> list[int]:
        return [-(-extent // block) for extent, block in zip(layout.shape, self.size, strict=True)]


def make_pattern(wrapper: Any) -> Pattern:
    """The pattern in which a wrapper prunes. m zeros of n are no such pattern: see `m_zeros_of_n`."""
    size = tuple(wrapper.block_size)
    return Unstructured() if size == (1, 1) else TfmotBlocks(size, wrapper.block_pooling_type)


def m_zeros_of_n(scores: tf.Tensor, m_by_n: tuple[int, int]) -> tf.Tensor:
    """The mask, as float32, that drops the lowest m of every n consecutive inputs of an output.

    Args:
        scores: of the shape of a matrix, or of a 2-d convolution's kernel.
        m_by_n: m and n.
    """
    mask = pruning_utils.generate_m_by_n_mask(pruning_utils.weights_rearrange(scores), m_by_n)
    return pruning_utils.m_by_n_sparsity_mask_prepare(mask, scores.shape)
