"""Chains of Dense layers, and the paper's formula for them in NumPy."""

import keras
import numpy as np

layers = keras.layers


def chain(*widths, **arguments):
    hidden = [layers.Dense(width, name=f"dense_{i}", **arguments) for i, width in enumerate(widths[1:])]
    return keras.Sequential([keras.Input(widths[:1]), *hidden])


def kernels(model):
    return {layer.name: layer.kernel.numpy() for layer in model.layers}


def lookahead_mask(weights, i, keep):
    """Equation (5) of the paper on a chain of matrices, and the `keep` largest."""
    score = np.abs(weights[i]).astype(np.float64)
    if i > 0:
        score *= np.linalg.norm(weights[i - 1], axis=0)[:, None]
    if i + 1 < len(weights):
        score *= np.linalg.norm(weights[i + 1], axis=1)
    return score >= np.sort(score, axis=None)[-keep]
