"""Graphs of Keras 3 models, and what its layers and operations are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.src.models.functional import Functional
from keras.src.ops.function import Function
from keras.src.ops.operation import Operation

from tf_lap.compat.nodes import Network, Node, private
from tf_lap.compat.types import KerasTensor, Layer, Model


def network(model: Model) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    if isinstance(model, keras.Sequential):
        holder = private(model, "_functional")
        return None if holder is None else read_graph(holder)
    # A Functional model with a `call` of its own does what that says, and not what its constructor was given.
    is_plain = isinstance(model, Functional) and type(model).call is Functional.call
    return read_graph(model) if is_plain else None


def read_graph(function: Function) -> Network:
    """The graph of a Functional model, or of another function that Keras made of symbolic tensors."""
    by_depth = private(function, "_nodes_by_depth")
    nodes = []
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.is_input:
                continue
            arguments = node.arguments
            nodes.append(
                Node(
                    layer=node.operation,
                    inputs=tuple(arguments.keras_tensors),
                    outputs=tuple(node.outputs),
                    args=tuple(arguments.args),
                    kwargs=dict(arguments.kwargs),
                )
            )
    return Network(tuple(nodes), tuple(function.inputs), tuple(function.outputs))


def called_function(layer: Layer) -> Callable[..., Any]:
    """The function that a call of a layer or operation runs, whose signature names the call's arguments."""
    return layer.call


def entering(node: Node) -> tuple[KerasTensor, ...]:
    """The tensors that a nested model is called with, in the order of the model's inputs."""
    tensors = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(tensors, dict) or isinstance(node.layer, keras.Sequential):
        return tuple(keras.tree.flatten(tensors))
    expected = private(node.layer, "_inputs_struct")
    names = sorted(expected) if isinstance(expected, dict) else [tensor.name for tensor in node.layer.inputs]
    return tuple(tensors[name] for name in names)


def time_step_layer(layer: Layer) -> Layer | None:
    """The layer inside a TimeDistributed layer; None for any other layer."""
    return layer.layer if isinstance(layer, keras.layers.TimeDistributed) else None


def flatten(structure: Any) -> list[Any]:
    """The leaves of a nested structure."""
    return list(keras.tree.flatten(structure))


def map_structure(function: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with the function's value in place of each leaf."""
    return keras.tree.map_structure(function, structure)


def new_input(shape: Any, dtype: Any, index: int) -> KerasTensor:
    """A new symbolic tensor.

    Args:
        shape: its shape, batch included; None where it is open.
        dtype: its dtype.
        index: the number in its name. It has a name so that Keras's counter behind "input_layer_3" does not move.
    """
    return keras.Input(batch_shape=tuple(shape), dtype=dtype, name=f"input_{index}")


def tensor_name(tensor: KerasTensor) -> str:
    """The name of the layer or operation that a symbolic tensor comes from."""
    return private(tensor, "_keras_history").operation.name


# Layers of keras.applications are not among them: they are followed through their `call`, as those of users are.
_MODULES_OF_KERAS = tuple(f"keras.src.{room}." for room in ("layers", "ops", "activations", "quantizers"))


def is_keras_own(layer: Layer) -> bool:
    """Whether Keras ships this exact class as a layer or operation, so that its `call` is no user's code."""
    if isinstance(layer, keras.layers.Lambda):
        return False
    return type(layer).__module__.startswith(_MODULES_OF_KERAS)


def sublayers(layer: Layer) -> list[Layer]:
    """The layers directly inside a layer or a model."""
    if isinstance(layer, Operation) and not isinstance(layer, keras.Layer):
        return []
    return list(layer._flatten_layers(include_self=False, recursive=False))


def descendants(layer: Layer) -> list[Layer]:
    """All layers inside a layer or a model, however deep; none for an operation."""
    if not isinstance(layer, keras.Layer):
        return []
    return layer._flatten_layers(include_self=False)
