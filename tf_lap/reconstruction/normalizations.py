"""Statistics of batch normalizations, measured anew."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model, Variable
from tf_lap.samples import Batch


class _Reached(BaseException):
    """Ends a call of the model at the normalization."""


def measure_statistics(model: Model, layer: Layer, data: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray] | None:
    """The mean and the variance of what a batch normalization reads, over all its calls but those of later uses.

    Args:
        model: the model.
        layer: a batch normalization in it.
        data: batches of the model's inputs.

    Returns:
        Float64 arrays of the shape of its statistics; None where the model does not call it at inference.
    """
    total, square, count = np.zeros(()), np.zeros(()), 0

    def note(inputs: Any, _: Any) -> None:
        nonlocal total, square, count
        tensor = tf.cast(tf.convert_to_tensor(inputs), tf.float64)
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        reduced = [a for a in range(tensor.shape.rank) if a != axis % tensor.shape.rank]
        total = total + tf.reduce_sum(tensor, reduced).numpy()
        square = square + tf.reduce_sum(tf.square(tensor), reduced).numpy()
        count += int(tf.size(tensor)) // tensor.shape[axis]
        raise _Reached

    for batch in data:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exporting.states_kept(model))
            stack.enter_context(exporting.in_float32(model))
            stack.enter_context(compat.intercepted(layer, note, False))
            stack.enter_context(contextlib.suppress(_Reached))
            exporting.tensors(model, batch)
    if not count:
        return None
    mean = total / count
    return mean, np.maximum(square / count - mean**2, 0.0)


def statistics_of(layer: Layer) -> list[Variable]:
    """The variables of a batch normalization that a repair may change."""
    return [layer.moving_mean, layer.moving_variance]
