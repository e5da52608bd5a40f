"""A model of either Keras as a TensorFlow function, and that as a TFLite file.

Models of both Kerases go the same way, through a function that is traced here and a SavedModel. Keras's own exporters
are not used: older releases of Keras 3 do not have them. Inputs and outputs have the names that `exporting` gives.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.lite.python.convert import mlir_sparsify

from tf_lap.compat import exporting, own_weights, variable_name
from tf_lap.compat.exporting import Input
from tf_lap.compat.models import sublayers
from tf_lap.compat.types import Layer, Model, Variable


class Program(NamedTuple):
    """A traced model, saved for TensorFlow's converter.

    Attributes:
        folder: the SavedModel's.
        readers: for each operation that reads a weight matrix, by its name, the path of the matrix (see `matrices`).
    """

    folder: str
    readers: dict[str, str]


@contextlib.contextmanager
def save_program(model: Model, inputs: Sequence[Input]) -> Iterator[Program]:
    """Traces a model at inference and saves it in a folder that is removed at the end.

    Args:
        model: the model.
        inputs: what the file is to take, from `exporting.signature`.

    Raises:
        Exception: whatever the model's own code raises while it is traced.
    """
    function = _trace(model, inputs)
    module = tf.Module()
    # A SavedModel holds what a module refers to. Layers are left out: each would be traced again by itself.
    parts = tf.train.TrackableView(model).descendants()
    module.variables_read = list(function.variables)
    module.tables = [part for part in parts if isinstance(part, tf.saved_model.experimental.TrackableResource)]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={exporting.SIGNATURE: function})
        yield Program(folder, _find_readers(model, function))


def _trace(model: Model, inputs: Sequence[Input]) -> Any:
    """The function of a model's call at inference on tensors of these shapes."""

    def serve(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        return exporting.tensors(model, arrays)

    specs = [tf.TensorSpec(entry.shape, entry.dtype, entry.name) for entry in inputs]
    return tf.function(serve, autograph=False).get_concrete_function(*specs)


def convert_in_memory(model: Model, inputs: Sequence[Input]) -> tuple[bytes, dict[str, str]]:
    """A float32 file of a model to look at, made without a SavedModel, which takes as long as the rest together.

    Args:
        model: the model.
        inputs: what the file takes, from `exporting.signature`.

    Returns:
        The file, and the readers of weight matrices as in `Program`.

    Raises:
        Exception: whatever the model's own code or the converter raises.
    """
    function = _trace(model, inputs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter.experimental_lower_to_saved_model = False  # so that weights become constants here
    converter.experimental_enable_resource_variables = False
    with exporting.expected_warnings():
        return converter.convert(), _find_readers(model, function)


def convert(program: Program, settings: Mapping[str, Any]) -> bytes:
    """A TFLite file of a saved model.

    Args:
        program: the model.
        settings: attributes of `tf.lite.TFLiteConverter`; `target_spec` is a mapping of its own attributes.

    Raises:
        Exception: whatever the converter raises.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(program.folder, signature_keys=[exporting.SIGNATURE])
    # With TensorFlow's own operations allowed the file itself says which of them it would need.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter.experimental_enable_resource_variables = True
    for name, value in settings.items():
        if name != "target_spec":
            setattr(converter, name, value)
    for name, value in settings.get("target_spec", {}).items():
        setattr(converter.target_spec, name, value)
    with exporting.expected_warnings():
        return converter.convert()


def without_zeros(file: bytes) -> bytes:
    """A TFLite file in which tensors with many zeros are stored without them, where TensorFlow's converter can.

    This is the last pass of a conversion with `tf.lite.Optimize.EXPERIMENTAL_SPARSITY`. TensorFlow has no public name
    for it. The pass needs the file alone, so the model is converted once.

    Raises:
        Exception: whatever the converter raises.
    """
    return bytes(mlir_sparsify(file))


def matrices(model: Model) -> Iterator[tuple[str, Variable]]:
    """All weights of two dimensions or more except biases, with their layers' paths. A shared weight comes once.

    Where a layer has several of them, the path ends with the variable's name: `lstm/recurrent_kernel`.
    """
    visited: set[int] = set()

    def walk(layer: Layer, prefix: str) -> Iterator[tuple[str, Variable]]:
        for sublayer in sublayers(layer):
            if id(sublayer) in visited:
                continue
            visited.add(id(sublayer))
            path = prefix + sublayer.name
            weights = [v for v in own_weights(sublayer) if len(v.shape) > 1 and "bias" not in variable_name(v)]
            for weight in weights:
                yield path if len(weights) == 1 else f"{path}/{variable_name(weight)}", weight
            yield from walk(sublayer, path + "/")

    yield from walk(model, "")


_FORWARDING = {"ReadVariableOp", "Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose"}
"""Operations that hand a weight on to the operations that compute with it."""


def _find_readers(model: Model, function: Any) -> dict[str, str]:
    """For each operation that reads one weight matrix, by its name, the path of that matrix."""
    captured = function.captured_inputs
    # Inside the function each captured tensor has a placeholder, behind those of the arguments.
    placeholders = dict(zip(map(id, captured), function.inputs[len(function.inputs) - len(captured) :], strict=True))
    paths: dict[str, set[str]] = {}
    for path, weight in matrices(model):
        variable = weight if isinstance(weight, tf.Variable) else weight.value
        pending = [placeholders[id(variable.handle)]] if id(variable.handle) in placeholders else []
        while pending:
            for operation in pending.pop().consumers():
                paths.setdefault(operation.name, set()).add(path)
                if operation.type in _FORWARDING:
                    pending.extend(operation.outputs)
    return {operation: min(read) for operation, read in paths.items() if len(read) == 1}
