"""The parts of a tf_keras model, made anew; the functions are described in `compat.keras3.rebuilding`."""

# ruff: noqa: D103

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.engine import base_layer, functional
from tf_keras.src.saving.serialization_lib import SafeModeScope

from tf_lap.compat.configs import find_custom_objects, restore_functions, update_config
from tf_lap.compat.nodes import private
from tf_lap.compat.types import KerasTensor, Layer, Model, Variable


def remake_layer(layer: Layer, settings: Mapping[str, Any]) -> Layer:
    objects = find_custom_objects([layer, *layer._flatten_layers(include_self=False)])
    with tf_keras.saving.custom_object_scope(objects), SafeModeScope(False):
        config = update_config(layer, settings, tf_keras.saving.serialize_keras_object)
        remade = type(layer).from_config(config)
    restore_functions(layer, remade)
    return remade


def remake_wrapper(layer: Layer, inner: Layer) -> Layer:
    return type(layer)(**{**layer.get_config(), "layer": inner})


def make_layer(class_name: str, config: Mapping[str, Any]) -> Layer:
    return getattr(tf_keras.layers, class_name)(**config)


def input_structure(model: Model) -> Any:
    return private(model, "_nested_inputs")


def output_structure(model: Model) -> Any:
    return private(model, "_nested_outputs")


def remake_input(tensor: KerasTensor, shape: Sequence[int | None]) -> KerasTensor:
    history = getattr(tensor, "_keras_history", None)
    layer = None if history is None else history.layer
    batch, *extents = shape
    if not isinstance(layer, tf_keras.layers.InputLayer):
        return tf_keras.Input(extents, batch_size=batch, dtype=tensor.dtype, name=tensor.name)
    config = layer.get_config()
    if "type_spec" in config:
        return tf_keras.layers.InputLayer(**config).output
    return tf_keras.layers.InputLayer(**{**config, "batch_input_shape": (batch, *extents)}).output


def make_functional(like: Model, inputs: Any, outputs: Any) -> Model:
    is_plain = isinstance(like, functional.Functional) and functional.has_functional_like_constructor(type(like))
    model_class = type(like) if is_plain else tf_keras.Model
    return model_class(inputs, outputs, name=like.name)


def sequence(model: Model) -> tuple[KerasTensor, list[Layer]]:
    return model.inputs[0], model.layers


def make_sequential(like: Model, tensor: KerasTensor, layers: Sequence[Layer]) -> Model:
    return tf_keras.Sequential([private(tensor, "_keras_history").layer, *layers], name=like.name)


def is_sequential(model: Model) -> bool:
    return isinstance(model, tf_keras.Sequential)


def count_calls(layer: Layer) -> tuple[int, int]:
    return len(private(layer, "_inbound_nodes")), len(private(layer, "_outbound_nodes"))


def forget_calls(layer: Layer, counts: tuple[int, int]) -> None:
    inbound, outbound = counts
    del private(layer, "_inbound_nodes")[inbound:]
    del private(layer, "_outbound_nodes")[outbound:]


def all_variables(layer: Layer) -> list[Variable]:
    """The variables of a layer and of those in it, statistics among them whose shape is open."""
    return [weight for weight in layer.weights if isinstance(weight, tf.Variable)]


def keep_trainable(old: Variable, new: Variable) -> None:
    """A variable of tf_keras is trained as its layer says."""


def keep_flag(old: Layer, new: Layer) -> None:
    new._trainable = private(old, "_trainable")


def is_ancillary(layer: Layer) -> bool:
    return isinstance(layer, (base_layer.AddLoss, base_layer.AddMetric))


def add_ancillary(model: Model, layers: Sequence[Layer]) -> None:
    nodes = [node for layer in layers for node in private(layer, "_inbound_nodes")]
    model._insert_layers(list(layers), relevant_nodes=tf.nest.flatten(nodes))
