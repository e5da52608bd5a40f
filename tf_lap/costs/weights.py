"""The weights of a model: which of its variables count, how many bytes they take, and how many are zero."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Model, Variable


def weight_variables(model: Model) -> list[Variable]:
    """The weights of a model, each variable once.

    These are the floating-point variables, and the matrices of whole numbers that quantized layers hold.
    """
    variables = {id(variable): variable for variable in compat.weights(model)}.values()
    return [v for v in variables if tf.as_dtype(v.dtype).is_floating or len(v.shape) > 1]


def count_weights(variable: Variable) -> int:
    """How many weights a variable holds."""
    return math.prod(variable.shape)


def count_nonzero(variable: Variable) -> int:
    """How many of them are not exactly 0."""
    return int(np.count_nonzero(compat.host_array(variable)))


def count_bytes(variable: Variable) -> int:
    """How many bytes they take."""
    return count_weights(variable) * find_itemsize(variable)


def find_itemsize(variable: Variable) -> int:
    """How many bytes one of them takes."""
    return int(tf.as_dtype(variable.dtype).size)
