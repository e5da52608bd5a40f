"""Mask updates of other packages, for the same kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import tf_lap.tfmot  # noqa: F401  (before tfmot, which sets an environment variable for good)

import tensorflow_model_optimization as tfmot  # isort: skip
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl  # isort: skip


class Peer(NamedTuple):
    """A mask update to compare with.

    Attributes:
        update: makes the masks and zeroes weights by them.
        reset: puts the weights back.
    """

    update: Callable[[], Any]
    reset: Callable[[], Any] = lambda: None


def tfmot_magnitude(arrays: Sequence[np.ndarray], sparsity: float) -> Peer:
    """tfmot's own update of its magnitude masks, and its zeroing of the weights."""
    schedule = tfmot.sparsity.keras.ConstantSparsity(sparsity, 0, frequency=1)
    variables = [(tf.Variable(array), tf.Variable(tf.ones_like(array)), tf.Variable(0.0)) for array in arrays]
    pruning = pruning_impl.Pruning(lambda: tf.constant(1), variables, schedule, (1, 1), "AVG")

    def update() -> tf.Tensor:
        masks = pruning.conditional_mask_update()
        with tf.control_dependencies([masks] if masks is not None else []):
            zeroed = pruning.weight_mask_op()
        with tf.control_dependencies([zeroed] if zeroed is not None else []):
            return tf.identity(variables[-1][2])

    def reset() -> None:
        for (weight, mask, _), array in zip(variables, arrays, strict=True):
            weight.assign(array)
            mask.assign(tf.ones_like(mask))

    return Peer(tf.function(update), reset)


def numpy_partition(arrays: Sequence[np.ndarray], sparsity: float) -> Peer:
    """Magnitude masks by np.partition."""

    def update() -> list[np.ndarray]:
        masks = []
        for array in arrays:
            scores = np.abs(array).reshape(-1)
            dropped = scores.size - max(1, round(scores.size * (1 - sparsity)))
            masks.append(scores >= np.partition(scores, dropped)[dropped])
            _ = array.reshape(-1) * masks[-1]
        return masks

    return Peer(update)


def torch_lookahead(arrays: Sequence[np.ndarray], sparsity: float) -> Peer | None:
    """Lookahead scores of a list of layers and a sort of each layer's, as formulas in PyTorch; None without PyTorch.

    The score of `w[k, j]` is `|w|` times the norm of row j of the layer before times that of column k of the layer
    behind (Park et al., equation 5), whose neighbours are those in the list; the threshold is found by sorting.
    """
    try:
        import torch
    except ImportError:
        return None
    # Outputs first and taps last, as PyTorch has them.
    layers = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, (-1, -2), (0, 1)))) for array in arrays]

    def norms(layer: Any, axis: int) -> Any:
        return layer.square().sum(dim=[d for d in range(layer.dim()) if d != axis]).sqrt()

    def update() -> list[Any]:
        with torch.no_grad():
            masks = []
            for before, layer, behind in zip([None, *layers[:-1]], layers, [*layers[1:], None], strict=True):
                scores = layer.abs()
                shape = [1] * layer.dim()
                if before is not None and before.shape[0] == layer.shape[1]:
                    scores = scores * norms(before, 0).reshape(1, -1, *shape[2:])
                if behind is not None and behind.shape[1] == layer.shape[0]:
                    scores = scores * norms(behind, 1).reshape(-1, *shape[1:])
                flat = scores.reshape(-1)
                keep = max(1, round(flat.numel() * (1 - sparsity)))
                order, _ = torch.sort(flat, descending=True)
                masks.append(scores >= order[keep - 1])
                _ = layer * masks[-1]
            return masks

    return Peer(update)


def all_of(arrays: Sequence[np.ndarray], sparsity: float) -> dict[str, Peer]:
    """Every peer that is installed, by name."""
    peers = {
        "tfmot magnitude": tfmot_magnitude(arrays, sparsity),
        "np.partition magnitude": numpy_partition(arrays, sparsity),
        "torch lookahead": torch_lookahead(arrays, sparsity),
    }
    return {name: peer for name, peer in peers.items() if peer is not None}
