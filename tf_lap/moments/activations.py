"""What an activation makes of Gaussian channels: their means and covariances behind it.

With z a standard Gaussian and f(m + s z) = sum over k of c_k He_k(z), He_k the Hermite polynomials, the covariance of
f(x) and f(y) is the sum over k of k! c_k(x) c_k(y) r^k, r the correlation of x and y (Mehler's formula). For ReLU of
channels without a known mean it has a closed form: the arc-cosine kernel of order 1 (Cho, Saul: "Kernel methods for
deep learning", 2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tf_lap.moments.channels import ChannelMoments

Activation: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""A function of each number of an array."""

_ORDER = 24
_NODES = np.linspace(-8.0, 8.0, 801)
_NODE_WEIGHTS = np.exp(-(_NODES**2) / 2) * (_NODES[1] - _NODES[0]) / math.sqrt(2 * math.pi)


def relu_second_moment(covariance: np.ndarray) -> np.ndarray:
    """E relu(x) relu(y) for Gaussians of mean zero, by the arc-cosine kernel.

    Args:
        covariance: `(..., channels, channels)`.
    """
    deviations = np.sqrt(np.maximum(np.einsum("...ii->...i", covariance), 0.0))
    products = deviations[..., :, np.newaxis] * deviations[..., np.newaxis, :]
    cosine = np.clip(np.divide(covariance, products, out=np.zeros_like(covariance), where=products > 0), -1.0, 1.0)
    angle = np.arccos(cosine)
    return products * (np.sqrt(1 - cosine**2) + (math.pi - angle) * cosine) / (2 * math.pi)


def activate(moments: ChannelMoments, activation: Activation, is_relu: bool) -> ChannelMoments:
    """The moments behind an activation, of channels that are Gaussian in front of it.

    Args:
        moments: those in front of it. Where the mean is not known it counts as zero, and the result is the second
            moment.
        activation: the function.
        is_relu: whether it is ReLU.
    """
    if moments.is_alike:
        return moments
    if is_relu and moments.mean is None:
        return ChannelMoments(relu_second_moment(moments.covariance))
    deviations = np.sqrt(np.maximum(moments.variances, 0.0))
    mean = np.zeros_like(deviations) if moments.mean is None else moments.mean
    values = activation(mean[:, np.newaxis] + deviations[:, np.newaxis] * _NODES)
    coefficients = _expand(values)
    blocks, size, _ = moments.covariance.shape
    by_block = deviations.reshape(blocks, size)
    products = by_block[:, :, np.newaxis] * by_block[:, np.newaxis, :]
    ratios = np.divide(moments.covariance, products, out=np.zeros_like(products), where=products > 0)
    correlation = np.clip(ratios, -1, 1)
    power, result = np.ones_like(correlation), np.zeros_like(correlation)
    for order in range(1, _ORDER + 1):
        power *= correlation
        factors = coefficients[order].reshape(blocks, size) * math.sqrt(math.factorial(order))
        result += factors[:, :, np.newaxis] * factors[:, np.newaxis, :] * power
    mean_behind = coefficients[0]
    variances = values**2 @ _NODE_WEIGHTS - mean_behind**2
    # The diagonal is known without a series.
    diagonal = np.einsum("bii->bi", result)
    diagonal[...] = np.maximum(variances.reshape(blocks, size), diagonal)
    if moments.mean is None:
        means = mean_behind.reshape(blocks, size)
        return ChannelMoments(result + means[:, :, np.newaxis] * means[:, np.newaxis, :])
    return ChannelMoments(result, mean_behind)


def as_function(layer: Callable[[tf.Tensor], tf.Tensor]) -> Activation:
    """An activation of Keras as a function of arrays."""
    return lambda array: np.asarray(layer(tf.constant(array, tf.float32)), np.float64)


def _expand(values: np.ndarray) -> list[np.ndarray]:
    """The coefficients c_0, c_1, ... of each channel, `(channels,)` each.

    Args:
        values: the activation of each channel at the nodes, `(channels, nodes)`.
    """
    polynomials = [np.ones_like(_NODES), _NODES]
    for order in range(2, _ORDER + 1):
        polynomials.append(_NODES * polynomials[-1] - (order - 1) * polynomials[-2])
    return [values @ (_NODE_WEIGHTS * p) / math.factorial(order) for order, p in enumerate(polynomials)]
