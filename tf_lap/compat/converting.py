"""A model of either Keras as a TensorFlow function, and that as a TFLite file.

Both Kerases take the same way, through a function traced here and a SavedModel. So it asks nothing of a Keras's own
exporters, which older releases of Keras 3 do not have, and inputs and outputs have the names that `exporting` gives.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.lite.python.convert import mlir_sparsify

from tf_lap.compat import exporting, own_weights, sublayers, variable_name
from tf_lap.compat.exporting import Input


class Program(NamedTuple):
    """A traced model, saved for TensorFlow's converter.

    Attributes:
        folder: the SavedModel's.
        readers: for each operation that reads a weight matrix, by its name, the path of the matrix (see `matrices`).
    """

    folder: str
    readers: dict[str, str]


@contextlib.contextmanager
def saved(model: Any, inputs: Sequence[Input]) -> Iterator[Program]:
    """Traces a model at inference and saves it, to be converted.

    Args:
        model: the model.
        inputs: what the file shall take, from `exporting.signature`.

    Raises:
        Exception: whatever the model's own code raises while it is traced.
    """

    def serve(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        return exporting.tensors(model, arrays)

    specs = [tf.TensorSpec(entry.shape, entry.dtype, entry.name) for entry in inputs]
    function = tf.function(serve, autograph=False).get_concrete_function(*specs)
    module = tf.Module()
    # A SavedModel holds what a module refers to. Layers are left out: each would be traced again by itself.
    parts = tf.train.TrackableView(model).descendants()
    module.variables_read = list(function.variables)
    module.tables = [part for part in parts if isinstance(part, tf.saved_model.experimental.TrackableResource)]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={exporting.SIGNATURE: function})
        yield Program(folder, _readers(model, function))


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
    """A TFLite file with each tensor stored without its zeros that is sparse enough, and of a form known for that.

    It is the pass that ends a conversion with `tf.lite.Optimize.EXPERIMENTAL_SPARSITY`. TensorFlow has no public name
    for it, and does not need the model a second time for it.

    Raises:
        Exception: whatever the converter raises.
    """
    return bytes(mlir_sparsify(file))


def matrices(model: Any) -> Iterator[tuple[str, Any]]:
    """Each weight of two dimensions or more but biases, once, with its layer's path.

    Of a layer that owns several of them, the path ends with the variable's name: `lstm/recurrent_kernel`.
    """
    seen: set[int] = set()

    def walk(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for sub in sublayers(layer):
            if id(sub) in seen:
                continue
            seen.add(id(sub))
            path = prefix + sub.name
            owned = [v for v in own_weights(sub) if len(v.shape) > 1 and "bias" not in variable_name(v)]
            for weight in owned:
                yield path if len(owned) == 1 else f"{path}/{variable_name(weight)}", weight
            yield from walk(sub, path + "/")

    yield from walk(model, "")


_PASSING = {"ReadVariableOp", "Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose"}
"""Operations that hand a weight on to those that compute with it."""


def _readers(model: Any, function: Any) -> dict[str, str]:
    """For each operation that reads one weight matrix, by its name, the path of that matrix."""
    captured = function.captured_inputs
    inside = dict(zip(map(id, captured), function.inputs[len(function.inputs) - len(captured) :], strict=True))
    paths: dict[str, set[str]] = {}
    for path, weight in matrices(model):
        variable = weight if isinstance(weight, tf.Variable) else weight.value
        handed = [inside[id(variable.handle)]] if id(variable.handle) in inside else []
        while handed:
            for operation in handed.pop().consumers():
                paths.setdefault(operation.name, set()).add(path)
                if operation.type in _PASSING:
                    handed.extend(operation.outputs)
    return {name: min(read) for name, read in paths.items() if len(read) == 1}
