"""Graphs of models: the calls of layers in them, and the arguments of these calls."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lap.compat.flavours import flavour_of, is_tf_keras
from tf_lap.compat.nodes import Network, Node
from tf_lap.compat.types import KerasTensor, Layer, Model


def network(model: Model) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    return flavour_of(model).network(model)


def trace(node: Node) -> Network:
    """Runs a custom layer's own `call` on symbolic tensors and returns the graph of what it does.

    Args:
        node: the call of the layer in its model; the same arguments are used, with fresh symbolic tensors.

    Raises:
        Exception: whatever `call` raises on symbolic tensors, for example where it uses raw TensorFlow ops in Keras 3.
    """
    return flavour_of(node.layer).trace(node)


def trace_model(model: Model) -> Network:
    """Runs a subclassed model's `call` on symbolic tensors of the shapes it was built with.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    return flavour_of(model).trace_model(model)


def traceable_code(layer: Layer) -> str:
    """What a layer's or model's own `call` may be made of so that `trace` can follow it, in words."""
    return flavour_of(layer).TRACEABLE_CODE


def per_step(node: Node) -> Node | None:
    """The call of the layer inside a TimeDistributed layer at one time step; None for any other layer."""
    return flavour_of(node.layer).per_step(node)


def entering(node: Node) -> tuple[KerasTensor, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs.

    Raises:
        KeyError: it is called with a dictionary that has other names than its inputs.
    """
    return flavour_of(node.layer).entering(node)


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call by name, in the order of its signature, defaults among them; those in `*args` and
    `**kwargs` one by one.
    """
    signature = inspect.signature(flavour_of(node.layer).called_function(node.layer))
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError:  # a subclass may be called with more than the `call` that it shows
        return {str(i): value for i, value in enumerate((*node.args, *node.kwargs.values()))}
    bound.apply_defaults()
    by_name: dict[str, Any] = {}
    for name, argument in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            by_name.update((f"{name}[{i}]", item) for i, item in enumerate(argument))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            by_name.update(argument)
        else:
            by_name[name] = argument
    return by_name


def symbolic(node: Node, argument: Any) -> list[KerasTensor]:
    """The symbolic tensors in an argument of a call, flattened."""
    tensors = {id(tensor) for tensor in node.inputs}
    flat = tf.nest.flatten(argument) if is_tf_keras(node.layer) else keras.tree.flatten(argument)
    return [item for item in flat if id(item) in tensors]


def static(argument: Any) -> np.ndarray | None:
    """The value of a call's argument: a number, an array, a tensor, or a list of them; None where it is not known."""
    if isinstance(argument, (list, tuple)):
        values = [static(item) for item in argument]
        return None if any(value is None for value in values) else np.array(values)
    if argument is None or isinstance(argument, (str, bytes)) or _is_symbolic(argument):
        return None
    return tf.get_static_value(tf.convert_to_tensor(argument))


def constant_shape(argument: Any) -> tuple[int, ...] | None:
    """The shape of a call's argument that is a number, an array, a tensor or a variable; None for anything else."""
    if argument is None or isinstance(argument, (bool, str, bytes)) or _is_symbolic(argument):
        return None
    if isinstance(argument, (int, float)):
        return ()
    extents = getattr(argument, "shape", None)
    return None if extents is None else tuple(extents)


def _is_symbolic(argument: Any) -> bool:
    return hasattr(argument, "_keras_history")  # in both Kerases


def shape(tensor: KerasTensor) -> tuple[int | None, ...]:
    """The shape of a symbolic tensor, None where it is open; empty where not even the number of axes is known."""
    extents = tensor.shape
    return () if getattr(extents, "rank", 0) is None else tuple(extents)


def is_boolean(tensor: KerasTensor) -> bool:
    """Whether a symbolic tensor holds truth values."""
    return tf.as_dtype(tensor.dtype) == tf.bool


def tensor_name(tensor: KerasTensor) -> str:
    """The name of the layer or operation that a symbolic tensor comes from."""
    return flavour_of(tensor).tensor_name(tensor)
