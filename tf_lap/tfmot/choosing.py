"""What is ranked of a weight, and the mask that comes of it: single weights, blocks, m zeros of n, as in tfmot."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_lap.compat.tfmot import pruning_utils


class Ranked(NamedTuple):
    """Things of one weight that are kept or dropped whole.

    Attributes:
        scores: a non-negative float32 for each; 0 where it is pruned already.
        magnitudes: what tells those of score 0 apart.
        live: bool, or zeros and ones: False or 0 where it is pruned already.
    """

    scores: tf.Tensor
    magnitudes: tf.Tensor
    live: tf.Tensor


def single_weights(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor) -> Ranked:
    """Each weight by itself."""
    return Ranked(scores, weights, live)


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
