"""Layers made anew from their configs, with other settings, in a scope that knows the user's own classes."""

from __future__ import annotations

import builtins
import copy
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tf_lap.compat.types import Layer

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def update_config(layer: Layer, settings: Mapping[str, Any], serialize: Callable[[Any], Any]) -> dict[str, Any]:
    """A layer's config with other settings.

    Args:
        layer: the layer.
        settings: by name. A mapping holds settings of the layer inside that the config has by this name, and a list
            those of several.
        serialize: writes a layer inside that the config does not have.
    """
    config = copy.copy(layer.get_config())
    for name, function in _own_functions(layer).items():
        # A Lambda layer reads the code out of its config by itself.
        if isinstance(config.get(name), dict) and name != "function":
            config[name] = function
    for name, value in settings.items():
        if isinstance(value, dict) and config.get(name) is None:
            config[name] = serialize(getattr(layer, name))
        config[name] = _merge(config.get(name), value)
    return {name: _forget_shapes(value) for name, value in config.items()}


def _forget_shapes(configured: Any) -> Any:
    """A part of a config without the shapes that layers inside were built with: they are built anew."""
    if isinstance(configured, dict):
        return {name: _forget_shapes(value) for name, value in configured.items() if name != "build_config"}
    if isinstance(configured, list):
        return list(map(_forget_shapes, configured))
    return configured


def _merge(configured: Any, value: Any) -> Any:
    """A setting's new value: for layers inside, what is configured with other settings."""
    if isinstance(value, dict):
        inner = configured["config"]
        merged = {name: _merge(inner.get(name), part) for name, part in value.items()}
        return {**configured, "config": {**inner, **merged}}
    if isinstance(value, list):
        return [_merge(*pair) for pair in zip(configured, value, strict=True)]
    return value


def find_custom_objects(layers: Iterable[Layer]) -> dict[str, Any]:
    """The classes of layers and the functions and classes that their attributes are of, by name, but for Keras's."""
    objects: dict[str, Any] = {}
    for layer in layers:
        for value in (type(layer), *vars(layer).values()):
            definition = value if isinstance(value, (*_FUNCTIONS, type)) else type(value)
            module = getattr(definition, "__module__", None) or builtins.__name__
            if module.partition(".")[0] not in ("keras", "tf_keras", "tensorflow", "numpy", builtins.__name__):
                objects[definition.__name__] = definition
    return objects


def restore_functions(layer: Layer, remade: Layer) -> None:
    """Gives a layer that was made anew the functions that the other has: a config holds a lambda by its code alone."""
    for name, function in _own_functions(layer).items():
        if vars(remade).get(name) is not function:
            setattr(remade, name, function)


def _own_functions(layer: Layer) -> dict[str, Any]:
    """The functions that a layer was given, by the names of its attributes; Keras puts methods there, too."""
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, _FUNCTIONS) and not name.startswith("_") and not hasattr(type(layer), name)
    }
