"""Variables of Keras 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_lap.compat.keras3.graphs import descendants
from tf_lap.compat.types import Layer, Model, Variable


def own_weights(layer: Layer) -> list[Variable]:
    """The variables that a layer owns itself, without those of the layers inside it."""
    if not isinstance(layer, keras.Layer):
        return []
    inner = {id(variable) for sublayer in descendants(layer) for variable in sublayer.variables}
    return [variable for variable in layer.weights if id(variable) not in inner]


def weights(layer: Layer) -> list[Variable]:
    """The variables of a layer and of those in it, without the states of random generators."""
    return list(layer.weights)


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable (not a tensor of LoRA, nor a quantized table)."""
    return isinstance(kernel, keras.Variable) and tf.as_dtype(kernel.dtype).is_floating


def get_constraint(variable: Variable) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return variable.constraint


def set_constraint(variable: Variable, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    variable.constraint = constraint


def bare(variable: Variable) -> list[Variable]:
    """The variable itself: Keras 3 has one object for it, whatever its precision and over replicas."""
    return [variable]


def without_constraint(model: Model) -> list[Variable]:
    """The variables for which the optimizer takes no constraint: none."""
    return []
