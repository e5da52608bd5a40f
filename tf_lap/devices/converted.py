"""A model as the file that a device gets, whose operations are what its rules are about."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from tf_lap import compat
from tf_lap.compat import converting, exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.tflite.errors import explain_errors
from tf_lap.tflite.operations import DeviceGraph, name_by_tensor, read_operations
from tf_lap.tflite.origins import Origins


def convert_model(model: Model) -> DeviceGraph:
    """The operations of a model's float32 file for one sample at a time.

    Raises:
        TypeError, ValueError: the model is not built or not of Keras, or its inputs cannot be told apart.
        ExportError: TensorFlow cannot convert the model.
    """
    compat.check_model(model)
    model = exporting.without_wrappers(model)
    with exporting.in_float32(model), explain_errors(model):
        inputs = exporting.signature(model, None if exporting.has_fixed_batch(model) else 1)
        file, readers = converting.convert_in_memory(model, inputs)
    return read_operations(file, LayerLabels(model, Origins(readers, dict(converting.matrices(model)))))


class LayerLabels:
    """Names the operations of a model's file by the paths of its layers."""

    def __init__(self, model: Model, origins: Origins) -> None:
        self._origins = origins
        self._paths: dict[str, str] = {}
        for name, path in _walk(model, ""):
            self._paths.setdefault(name, path)

    def __call__(self, name: str, values: np.ndarray | None) -> str:
        """The path of the layer that an operation comes from; the converter's name where none is known."""
        path = None if values is None else self._origins.find_path(name, values)
        return path or self._find_by_scope(name) or name_by_tensor(name)

    def _find_by_scope(self, name: str) -> str | None:
        # The converter joins the names of what it merges; TensorFlow numbers scopes that it enters again.
        for part in reversed(name.split(";")):
            for scope in reversed(part.split("/")):
                for candidate in (scope, re.sub(r"_\d+$", "", scope)):
                    if candidate in self._paths:
                        return self._paths[candidate]
        return None


def _walk(layer: Layer, prefix: str) -> Iterator[tuple[str, str]]:
    """The names of all layers in a layer or model, with their paths."""
    for sublayer in compat.sublayers(layer):
        yield sublayer.name, prefix + sublayer.name
        yield from _walk(sublayer, f"{prefix}{sublayer.name}/")
