"""The masks of one weight, in the shapes that tfmot's wrappers offer: single weights, blocks, m zeros of n."""

from __future__ import annotations

import tensorflow as tf

from tf_lap.compat.tfmot import pruning_utils
from tf_lap.selection import keep_largest


def choose(
    scores: tf.Tensor,
    weights: tf.Tensor,
    live: tf.Tensor,
    sparsity: tf.Tensor,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    sparsity_m_by_n: tuple[int, int] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The mask of a weight, and the score of the dearest thing that it drops next.

    Args:
        scores: non-negative float32, of the weight's shape.
        weights: its float32 values.
        live: bool, False where a weight is pruned already.
        sparsity: the fraction of zeros, a float64 scalar; not read for m zeros of n.
        block_size: as tfmot's; blocks other than (1, 1) want a matrix.
        block_pooling_type: "AVG" or "MAX": what makes one score of a block's.
        sparsity_m_by_n: m zeros of n consecutive inputs, for a matrix or the kernel of a 2-d convolution.

    Returns:
        A bool mask, and the lowest score that is kept, float32: of a block where there are blocks, and tfmot's
        999 where m of n go.
    """
    if sparsity_m_by_n:
        rows = pruning_utils.weights_rearrange(tf.where(live, scores, 0.0))
        mask = pruning_utils.generate_m_by_n_mask(rows, sparsity_m_by_n)
        return tf.cast(pruning_utils.m_by_n_sparsity_mask_prepare(mask, weights.shape), tf.bool), tf.constant(999.0)
    if tuple(block_size) == (1, 1):
        mask = _largest(scores, weights, live, sparsity)
        return mask, _lowest(scores, mask & live)
    pooled, pooled_weights, alive = (
        _pool(values, block_size, block_pooling_type) for values in (scores, tf.abs(weights), tf.cast(live, tf.float32))
    )
    blocks = _largest(pooled, pooled_weights, alive > 0, sparsity)
    expanded = pruning_utils.expand_tensor(tf.cast(blocks, tf.int32), list(block_size))
    return tf.cast(expanded[: weights.shape[0], : weights.shape[1]], tf.bool), _lowest(pooled, blocks & (alive > 0))


def _largest(scores: tf.Tensor, weights: tf.Tensor, live: tf.Tensor, sparsity: tf.Tensor) -> tf.Tensor:
    # As allocation.keep_count: tf.round too goes half to even.
    keep = tf.maximum(tf.cast(tf.round(scores.shape.num_elements() * (1 - sparsity)), tf.int32), 1)
    return keep_largest([scores], [weights], [live], keep)[0]


def _lowest(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    return tf.reduce_min(tf.where(kept, scores, scores.dtype.max))


def _pool(values: tf.Tensor, block_size: tuple[int, int], pooling_type: str) -> tf.Tensor:
    rows, columns = (-(-extent // block) for extent, block in zip(values.shape, block_size, strict=True))
    pooled = pruning_utils.factorized_pool(values, block_size, pooling_type, block_size, "SAME")
    return tf.reshape(pooled, (rows, columns))  # tfmot squeezes a single row or column away
