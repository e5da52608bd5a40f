"""What is known of a call's argument before the model runs: its value, or at least its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat


def read_static(argument: Any) -> np.ndarray | None:
    """The value of an argument: a number, an array, a tensor, or a list of them; None where it is not known."""
    if isinstance(argument, (list, tuple)):
        values = [read_static(item) for item in argument]
        return None if any(value is None for value in values) else np.array(values)
    if argument is None or isinstance(argument, (str, bytes, compat.Tensor)):
        return None
    return tf.get_static_value(tf.convert_to_tensor(argument))


def read_constant_shape(argument: Any) -> tuple[int, ...] | None:
    """The shape of an argument that is a number, an array, a tensor or a variable; None for anything else."""
    if argument is None or isinstance(argument, (bool, str, bytes, compat.Tensor)):
        return None
    if isinstance(argument, (int, float)):
        return ()
    extents = getattr(argument, "shape", None)
    return None if extents is None else tuple(extents)
