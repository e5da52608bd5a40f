"""Variables of tf_keras, and how its layers cast them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.mixed_precision import autocast_variable

from tf_lap.compat.nodes import private
from tf_lap.compat.types import Layer, Model, Variable


def own_weights(layer: Layer) -> list[Variable]:
    """The variables that a layer owns itself, without those of the layers inside it."""
    sublayers = layer._flatten_layers(include_self=False)
    inner = {id(variable) for sublayer in sublayers for variable in sublayer.weights}
    return [variable for variable in weights(layer) if id(variable) not in inner]


def weights(layer: Layer) -> list[Variable]:
    """The variables of a layer and of those in it.

    tf_keras lists more: the tables of look-up layers, and statistics of data whose shape is open, as Discretization's.
    """
    return [weight for weight in layer.weights if isinstance(weight, tf.Variable) and None not in tuple(weight.shape)]


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable."""
    return isinstance(kernel, tf.Variable) and kernel.dtype.is_floating


def get_constraint(variable: Variable) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return private(bare(variable)[0], "_constraint")


def set_constraint(variable: Variable, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    for part in bare(variable):
        part._constraint = constraint


def bare(variable: Variable) -> list[Variable]:
    """The variables behind one of mixed precision, and behind one that is mirrored over replicas; else itself."""
    inner = getattr(variable, "_variable", variable)
    return list(getattr(inner, "values", [inner]))


def takes_constraint(layer: Layer, trainer: Model | None) -> bool:
    """Whether the optimizer applies constraints to this layer's weights: legacy ones refuse it for embeddings."""
    is_legacy = isinstance(getattr(trainer, "optimizer", None), tf_keras.optimizers.legacy.Optimizer)
    return not (is_legacy and isinstance(layer, tf_keras.layers.Embedding))


def without_constraint(model: Model) -> list[Variable]:
    """The variables for which the optimizer takes no constraint: embeddings, where it is a legacy one."""
    layers = model._flatten_layers(include_self=False)
    return [variable for layer in layers if not takes_constraint(layer, model) for variable in layer.weights]


def uncast() -> AbstractContextManager[None]:
    """In here variables are read in their own dtype, whatever the mixed precision of the layer that is called."""
    return autocast_variable.enable_auto_cast_variables(None)


def autocasts(layer: Layer) -> bool:
    """Whether a layer casts what it is called with to its own precision."""
    return private(layer, "_autocast")
