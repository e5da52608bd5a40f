"""Which of the two Kerases a model or layer is of, and the module that knows it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tf_lap.compat import keras3


def is_tf_keras(thing: Any) -> bool:
    """Whether a model or layer is one of tf_keras."""
    return any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(thing).__mro__)


def flavour_of(layer: Any) -> ModuleType:
    """The module for the kind of Keras that a model or layer is of."""
    return tf_keras_module() if is_tf_keras(layer) else keras3


def tf_keras_module() -> ModuleType:
    """The module for tf_keras; importing tf_lap does not import it."""
    from tf_lap.compat import tf_keras

    return tf_keras
