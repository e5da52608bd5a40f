"""Statistics of batch normalizations, measured anew."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tf_lap.compat.types import Layer, Model
from tf_lap.moments.measured import InputObserver
from tf_lap.moments.rows import ChannelReader


def find_normalizations(model: Model) -> list[Layer]:
    """The batch normalizations of a model that are built, each once."""
    return [
        layer
        for layer in model._flatten_layers()
        if any(cls.__name__ == "BatchNormalization" for cls in type(layer).__mro__) and layer.built
    ]


def read_channels(layer: Layer) -> ChannelReader:
    """What reads the channels that a batch normalization has statistics of."""
    axes = (layer.axis,) if isinstance(layer.axis, int) else tuple(layer.axis)
    return ChannelReader(layer, 1, math.prod(layer.moving_mean.shape), axes)


def measure_statistics(observer: InputObserver, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the variance of each channel that a batch normalization reads, over all its calls.

    Args:
        observer: what runs the model.
        number: the number of the normalization's reader.

    Returns:
        Float64 `(channels,)` each.

    Raises:
        ValueError: they are not finite.
    """
    total, square, count = np.zeros(()), np.zeros(()), 0

    def add(_: int, rows: tf.Tensor) -> None:
        nonlocal total, square, count
        rows = tf.cast(rows[0], tf.float64)
        total = total + tf.reduce_sum(rows, axis=0).numpy()
        square = square + tf.reduce_sum(tf.square(rows), axis=0).numpy()
        count += rows.shape[0]

    for batch in observer.data:
        observer.visit_rows(batch, [number], add)
    if not (np.isfinite(total).all() and np.isfinite(square).all()):
        raise ValueError("what it reads holds NaN or infinity")
    mean = total / count
    return mean, np.maximum(square / count - mean**2, 0.0)
