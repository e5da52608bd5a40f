"""The parts of a Keras 3 model, made anew: layers, inputs, and the model around them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.saving.serialization_lib import SafeModeScope

from tf_lap.compat.configs import find_custom_objects, restore_functions, update_config
from tf_lap.compat.keras3.graphs import descendants
from tf_lap.compat.nodes import private
from tf_lap.compat.types import KerasTensor, Layer, Model, Variable


def remake_layer(layer: Layer, settings: Mapping[str, Any]) -> Layer:
    """A new layer or operation like another, with its own weights, and with other settings.

    Raises:
        Exception: whatever the layer's `get_config` or `from_config` raises.
    """
    objects = find_custom_objects([layer, *descendants(layer)])
    with warnings.catch_warnings(), keras.saving.custom_object_scope(objects), SafeModeScope(False):
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        config = update_config(layer, settings, keras.saving.serialize_keras_object)
        remade = type(layer).from_config(config)
    restore_functions(layer, remade)
    if not isinstance(layer, keras.Layer):
        remade.name = layer.name  # the configs of operations do not hold it in all releases
    return remade


def remake_wrapper(layer: Layer, inner: Layer) -> Layer:
    """A new layer like one around another, such as TimeDistributed, around a new layer."""
    return type(layer)(**{**layer.get_config(), "layer": inner})


def make_layer(class_name: str, config: Mapping[str, Any]) -> Layer:
    """A new layer, of the class with this name among the layers of Keras."""
    return getattr(keras.layers, class_name)(**config)


def input_structure(model: Model) -> Any:
    """The symbolic inputs of a Functional model, in the structure that the user gave them."""
    return private(model, "_inputs_struct")


def output_structure(model: Model) -> Any:
    """Likewise its outputs."""
    return private(model, "_outputs_struct")


def remake_input(tensor: KerasTensor, shape: Sequence[int | None]) -> KerasTensor:
    """A new symbolic input like another, of another shape, batch included."""
    history = getattr(tensor, "_keras_history", None)
    layer = None if history is None else history.operation
    if not isinstance(layer, keras.layers.InputLayer):
        return keras.Input(batch_shape=tuple(shape), dtype=tensor.dtype, name=tensor.name)
    config = {**layer.get_config(), "batch_shape": tuple(shape)}
    remade = keras.layers.InputLayer.from_config(config).output
    remade.name = tensor.name  # Keras numbers those of a Sequential model
    return remade


def make_functional(like: Model, inputs: Any, outputs: Any) -> Model:
    """A Functional model with the name, and where that can be the class, of another."""
    is_plain = isinstance(like, Functional) and functional_like_constructor(type(like))
    model_class = type(like) if is_plain else keras.Model
    return model_class(inputs, outputs, name=like.name)


def sequence(model: Model) -> tuple[KerasTensor, list[Layer]]:
    """The input of a Sequential model, and its layers without the one of the input."""
    return private(model, "_functional").inputs[0], model.layers


def make_sequential(like: Model, tensor: KerasTensor, layers: Sequence[Layer]) -> Model:
    """A Sequential model of layers behind a symbolic input, with the name of another."""
    return keras.Sequential([private(tensor, "_keras_history").operation, *layers], name=like.name)


def is_sequential(model: Model) -> bool:
    """Whether a model is a Sequential one."""
    return isinstance(model, keras.Sequential)


def count_calls(layer: Layer) -> tuple[int, int]:
    """How many nodes symbolic calls left on a layer: of its own calls, and of those that read what it puts out."""
    return len(private(layer, "_inbound_nodes")), len(private(layer, "_outbound_nodes"))


def forget_calls(layer: Layer, counts: tuple[int, int]) -> None:
    """Removes the nodes of later symbolic calls from a layer.

    Args:
        layer: the layer.
        counts: what `count_calls` said before them.
    """
    inbound, outbound = counts
    del private(layer, "_inbound_nodes")[inbound:]
    del private(layer, "_outbound_nodes")[outbound:]


def all_variables(layer: Layer) -> list[Variable]:
    """The variables of a layer and of those in it, states of random generators among them."""
    return list(layer.variables) if isinstance(layer, keras.Layer) else []


def keep_trainable(old: Variable, new: Variable) -> None:
    """Makes a variable as trainable as another."""
    if new.trainable != old.trainable:
        new.trainable = old.trainable


def keep_flag(old: Layer, new: Layer) -> None:
    """Gives a layer or model the own `trainable` of another, and leaves those in it as they are."""
    if isinstance(old, keras.Layer):
        new._trainable = private(old, "_trainable")


def is_ancillary(layer: Layer) -> bool:
    """Whether it is a layer that adds a loss or a metric, and that no output depends on: Keras 3 has none."""
    return False


def add_ancillary(model: Model, layers: Sequence[Layer]) -> None:
    """Puts layers into a model that no output depends on: Keras 3 has none."""
