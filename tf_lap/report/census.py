"""How many weights a whole model has, and how many of them are zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lap.compat.types import Model, Variable
from tf_lap.costs.weights import count_weights, weight_variables


class ModelCensus(NamedTuple):
    """The weights of a whole model, counted.

    Attributes:
        weights: how many there are.
        zeros: how many of them are exactly 0.
        matrices: the variables with two or more axes, in the order of the model.
        zeros_in: how many zeros each of these holds, by the `id` of the variable.
    """

    weights: int
    zeros: int
    matrices: tuple[Variable, ...]
    zeros_in: dict[int, int]


def model_census(model: Model) -> tuple[int, int]:
    """How many weights a model has, and how many of them are exactly 0.

    All weights count: kernels, biases, normalization, embeddings, recurrent and depthwise weights, frozen ones too,
    each variable once. Seed generators and counters are no weights.

    Example:

    >>> model_census(model)  # its biases are zero yet
    (2778, 58)

    Args:
        model: a built Keras model.

    Returns:
        `(weights, zeros)`.
    """
    variables = weight_variables(model)
    return sum(map(count_weights, variables)), round(float(tf.reduce_sum(_count_zeros(variables))))


def count_model(model: Model, matrices: Sequence[Variable] = ()) -> ModelCensus:
    """Counts as `model_census`, and the zeros of each matrix by itself.

    Args:
        model: a built Keras model.
        matrices: variables that are counted too where the model does not track them.
    """
    variables = list({id(variable): variable for variable in (*weight_variables(model), *matrices)}.values())
    counts = _count_zeros(variables).numpy()
    in_model = _select_matrices(variables)
    # Behind the counts of the matrices are those of the vectors.
    zeros_in = {id(matrix): round(zeros) for matrix, zeros in zip(in_model, counts, strict=False)}
    return ModelCensus(sum(map(count_weights, variables)), round(counts.sum()), tuple(in_model), zeros_in)


def _count_zeros(variables: Sequence[Variable]) -> tf.Tensor:
    """A float64 vector: how many zeros each matrix holds, and then how many all vectors of each dtype hold."""
    groups = [tf.convert_to_tensor(matrix) for matrix in _select_matrices(variables)]
    # Vectors are many and short. Joined, those of a dtype take a few operations and not a few each.
    vectors_by_dtype: dict[str, list[tf.Tensor]] = {}
    for variable in variables:
        if len(variable.shape) < 2:
            tensor = tf.convert_to_tensor(variable)
            vectors_by_dtype.setdefault(tensor.dtype.name, []).append(tf.reshape(tensor, [-1]))
    groups += [tf.concat(vectors, axis=0) for vectors in vectors_by_dtype.values()]
    return tf.stack([tf.zeros([], tf.float64), *map(_count_zeros_in, groups)])[1:]


def _count_zeros_in(tensor: tf.Tensor) -> tf.Tensor:
    """A float64 scalar: how many elements of a tensor with one or more axes are zero."""
    # Row by row first: float32 counts exactly to 2**24, and int64 would take twice the memory.
    rows = tf.reduce_sum(tf.cast(tf.equal(tensor, 0), tf.float32), axis=-1)
    return tf.reduce_sum(tf.cast(rows, tf.float64))


def _select_matrices(variables: Sequence[Variable]) -> list[Variable]:
    return [variable for variable in variables if len(variable.shape) > 1]
