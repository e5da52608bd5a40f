"""Graphs of tf_keras models, and what its layers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.engine import base_layer
from tf_keras.src.layers.core import tf_op_layer

from tf_lap.compat.nodes import Network, Node, private
from tf_lap.compat.tf_keras.wrappers import unwrapped
from tf_lap.compat.types import KerasTensor, Layer, Model

_FunctionLayer = tf_op_layer.TFOpLambda
"""The layer behind `x + y` and every other TensorFlow function of symbolic tensors."""


def network(model: Model) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of.

    Pruning wrappers are seen through: a call of a wrapper is one of the layer in it.
    """
    return read_graph(model) if isinstance(model, tf_keras.Model) and graph_of(model) is not None else None


def read_graph(model: Model) -> Network:
    """The same for a model that has a graph."""
    by_depth = private(model, "_nodes_by_depth")
    nodes = [
        Node(
            layer=unwrapped(node.layer),
            inputs=tuple(node.keras_inputs),
            outputs=tuple(tf.nest.flatten(node.outputs)),
            args=tuple(node.call_args),
            kwargs=dict(node.call_kwargs),
        )
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]
    return Network(tuple(nodes), tuple(tf.nest.flatten(model.inputs)), tuple(tf.nest.flatten(model.outputs)))


def graph_of(model: Model) -> Any | None:
    """An object that changes with the graph of a Sequential or Functional model; None for any other model."""
    return private(model, "_nodes_by_depth") if private(model, "_is_graph_network") else None


def called_function(layer: Layer) -> Callable[..., Any]:
    """The function that a call of a layer runs, whose signature names the call's arguments."""
    return layer.function if isinstance(layer, _FunctionLayer) else layer.call


def function_name(layer: Layer) -> str | None:
    """The name below `tf.` of the TensorFlow function that a layer was made of; None for any other layer.

    Many functions of `tf` call the one of the same name in `tf.compat.v1`, and that one is recorded.
    """
    return (layer.symbol or "").removeprefix("compat.v1.") if isinstance(layer, _FunctionLayer) else None


def entering(node: Node) -> tuple[KerasTensor, ...]:
    """The tensors that a nested model is called with, in the order of the model's inputs."""
    tensors = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(tensors, dict):
        return tuple(tf.nest.flatten(tensors))
    return tuple(tensors[tensor_name(tensor)] for tensor in tf.nest.flatten(node.layer.inputs))


def time_step_layer(layer: Layer) -> Layer | None:
    """The layer inside a TimeDistributed layer; None for any other layer."""
    return unwrapped(layer.layer) if isinstance(layer, tf_keras.layers.TimeDistributed) else None


def flatten(structure: Any) -> list[Any]:
    """The leaves of a nested structure."""
    return list(tf.nest.flatten(structure))


def map_structure(function: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with the function's value in place of each leaf."""
    return tf.nest.map_structure(function, structure)


def new_input(shape: Any, dtype: Any, index: int) -> KerasTensor:
    """A new symbolic tensor.

    Args:
        shape: its shape, batch included; None where it is open.
        dtype: its dtype.
        index: the number in its name. It has a name so that the counter behind "input_3" does not move.
    """
    batch, *extents = shape
    return tf_keras.Input(extents, batch_size=batch, dtype=dtype, name=f"input_{index}")


def tensor_name(tensor: KerasTensor) -> str:
    """The name of the layer that a symbolic tensor comes from."""
    return unwrapped(private(tensor, "_keras_history").layer).name


def is_keras_own(layer: Layer) -> bool:
    """Whether tf_keras ships this exact class as a layer, so that its `call` is no user's code."""
    if isinstance(layer, tf_keras.layers.Lambda):
        return False
    if isinstance(layer, (base_layer.AddLoss, base_layer.AddMetric)):
        return True
    return type(layer).__module__.startswith(("tf_keras.src.layers.", "tf_keras.src.feature_column."))


def sublayers(layer: Layer) -> list[Layer]:
    """The layers directly inside a layer or a model."""
    return [unwrapped(sublayer) for sublayer in layer._flatten_layers(include_self=False, recursive=False)]


def layers_inside(model: Model) -> Iterator[Layer]:
    """All layers and models in a model, however deep; wrappers and what is in them too."""
    return iter(model._flatten_layers(include_self=False))


def symbolic_calls(layer: Layer) -> int:
    """How often a layer itself was called to build a model's graph."""
    return len(private(layer, "_inbound_nodes"))
