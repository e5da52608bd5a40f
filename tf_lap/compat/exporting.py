"""Running and exporting a model of either Keras: its inputs and outputs by name, and its call in float32."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lap.compat import has_wrappers, is_tf_keras, own_weights
from tf_lap.compat.types import KerasTensor, Layer, Model

SIGNATURE = "serving_default"
"""What the one function of an exported file is called."""


class Input(NamedTuple):
    """One input of a model.

    Attributes:
        name: its name in the exported file.
        key: what the model's own mapping of inputs calls it; its name where it has no such mapping.
        shape: its shape, with None where it is open; the batch comes first.
        dtype: its dtype.
    """

    name: str
    key: str
    shape: tuple[int | None, ...]
    dtype: np.dtype


def inputs(model: Model) -> list[Input] | None:
    """The inputs of a Sequential or Functional model, in their order; None for a subclassed model."""
    tensors: Sequence[KerasTensor] | None = getattr(model, "inputs", None)
    if not tensors:
        return None
    names = model.input_names if is_tf_keras(model) else [tensor.name for tensor in tensors]
    # Both Kerases flatten a mapping in the order of its sorted keys; one that is nested has no key for each input.
    keys = sorted(model.input) if _takes(model, Mapping) and len(model.input) == len(names) else names
    return [
        Input(name, key, tuple(tensor.shape), np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype))
        for name, key, tensor in zip(names, keys, tensors, strict=True)
    ]


def _takes(model: Model, classes: type | tuple[type, ...]) -> bool:
    """Whether the model takes its inputs in a structure of one of these classes."""
    # A Sequential takes one tensor, and in Keras 3.4 it has no `input` of its own.
    has_structure = bool(getattr(model, "inputs", None)) and not isinstance(model, keras.Sequential)
    return has_structure and isinstance(model.input, classes)


def has_fixed_batch(model: Model) -> bool:
    """Whether the model takes batches of one size alone."""
    model_inputs = inputs(model)
    return model_inputs is not None and model_inputs[0].shape[0] is not None


def signature(model: Model, batch_size: int | None = None) -> list[Input]:
    """What a file of the model takes.

    Args:
        model: the model.
        batch_size: the batch of each input whose own is open; None leaves it open.

    Raises:
        ValueError: an input has a batch of another size, or the inputs of a subclassed model cannot be told apart.
    """
    model_inputs = inputs(model) or [_subclassed_input(model)]
    for entry in model_inputs:
        if batch_size is not None and entry.shape[0] not in (None, batch_size):
            raise ValueError(
                f"batch_size={batch_size}: input {entry.name!r} of model {model.name!r} has a batch of "
                f"{entry.shape[0]} of its own: pass that or None, or build the model with an open batch"
            )
    return [entry._replace(shape=(entry.shape[0] or batch_size, *entry.shape[1:])) for entry in model_inputs]


def _subclassed_input(model: Model) -> Input:
    """The one input that a subclassed model was built with; its batch is open.

    Raises:
        ValueError: Keras keeps no record of the inputs, or there are several.
    """
    if is_tf_keras(model):
        record = model.save_spec()
    else:
        config = model.get_build_config() or {}
        record = config.get("input_shape") or config.get("shapes_dict")
    if record is None:
        raise ValueError(f"model {model.name!r} keeps no record of its inputs: call it once on a batch")
    if is_tf_keras(model):
        specs = [(tuple(spec.shape), spec.dtype) for spec in tf.nest.flatten(record)]
    else:
        specs = [(shape, model.input_dtype) for shape in _flatten_shapes(record)]
    if len(specs) > 1:
        raise ValueError(
            f"model {model.name!r} is a subclassed model with {len(specs)} inputs, which cannot be told apart in a "
            "file: wrap it into a Functional model, whose inputs have names"
        )
    ((_, *extents), dtype) = specs[0]
    return Input("args_0", "args_0", (None, *extents), np.dtype(tf.as_dtype(dtype).as_numpy_dtype))


def _flatten_shapes(structure: Any) -> list[tuple[int | None, ...]]:
    """The shapes in a structure of shapes."""
    if isinstance(structure, Mapping):
        return [shape for entry in structure.values() for shape in _flatten_shapes(entry)]
    if any(isinstance(entry, (Mapping, list, tuple)) for entry in structure):
        return [shape for entry in structure for shape in _flatten_shapes(entry)]
    return [tuple(structure)]


def quantized_layers(model: Model) -> list[str]:
    """Names of the layers that `model.quantize` of Keras 3 changed."""
    quantized_policy = getattr(keras.dtype_policies, "QuantizedDTypePolicy", ())
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(getattr(layer, "dtype_policy", None), quantized_policy)
    ]


def outputs(model: Model, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What `tensors` gives, as arrays."""
    return {name: np.asarray(value) for name, value in tensors(model, arrays).items()}


def tensors(model: Model, arrays: Sequence[np.ndarray | tf.Tensor]) -> dict[str, tf.Tensor]:
    """Calls the model at inference, and gives its outputs by the names that they have in the exported file.

    Args:
        model: the model.
        arrays: its inputs, in their order, with a batch.
    """
    call_inputs: Any = arrays[0]
    if _takes(model, (Mapping, list, tuple)):
        pack = tf.nest.pack_sequence_as if is_tf_keras(model) else keras.tree.pack_sequence_as
        call_inputs = pack(model.input, list(arrays))
    structure = model(call_inputs, training=False)
    if is_tf_keras(model):
        flat = tf.nest.flatten(structure)
        names = getattr(model, "output_names", None) or [f"output_{i + 1}" for i in range(len(flat))]
    else:
        flat = keras.tree.flatten(structure)
        has_names = isinstance(structure, Mapping) and len(structure) == len(flat)
        names = sorted(structure) if has_names else [f"output_{i}" for i in range(len(flat))]
    return {name: tf.convert_to_tensor(value) for name, value in zip(names, flat, strict=True)}


@contextlib.contextmanager
def states_kept(model: Model) -> Iterator[None]:
    """Puts back at its end what calling the model changes: states of recurrent layers, counters of custom ones."""
    states = [state for layer in model._flatten_layers() for state in tf.nest.flatten(getattr(layer, "states", None))]
    variables = [v for v in (*model.non_trainable_variables, *states) if hasattr(v, "assign")]
    values = [np.array(tf.convert_to_tensor(variable)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def without_wrappers(model: Model) -> Model:
    """The model without tfmot's pruning wrappers, which no file can hold."""
    if not has_wrappers(model):
        return model
    from tf_lap.compat.tfmot import prune

    return prune.strip_pruning(model)


@contextlib.contextmanager
def in_float32(model: Model) -> Iterator[None]:
    """Lets a model of mixed precision compute in float32, for which alone TFLite has operations.

    Raises:
        ValueError: its weights themselves are of half precision.
    """
    mixed = [layer for layer in model._flatten_layers() if getattr(layer, "compute_dtype", None) in _HALVES]
    for layer in mixed:
        if layer.variable_dtype in _HALVES and own_weights(layer):
            raise ValueError(
                f"layer {layer.name!r} has weights in {layer.variable_dtype}, and the model is run in float32 here: "
                "build it anew under the policy 'float32' and give it these weights with set_weights"
            )
    with contextlib.ExitStack() as stack:
        for layer in mixed:
            stack.callback(_set_policy, layer, layer.dtype_policy)
            _set_policy(layer, "float32")
        for cast in _find_casts_to_half(model):
            stack.callback(setattr, cast, "dtype", cast.dtype)
            cast.dtype = "float32"
        yield


def _find_casts_to_half(model: Model) -> list[Layer]:
    """The casts to half precision among a model's operations.

    Keras 3.8 writes one into a network where a layer of a mixed policy casts its input.
    """
    networks = [layer for layer in model._flatten_layers() if isinstance(layer, keras.Model)]
    operations = [operation for network in networks for operation in getattr(network, "operations", ())]
    return [operation for operation in operations if type(operation).__name__ == "Cast" and operation.dtype in _HALVES]


_HALVES = ("float16", "bfloat16")


def _set_policy(layer: Layer, policy: Any) -> None:
    if is_tf_keras(layer):
        layer._set_dtype_policy(policy)
    else:
        layer.dtype_policy = policy


@contextlib.contextmanager
def expected_warnings() -> Iterator[None]:
    """Hides the warnings that TensorFlow gives whenever a file is converted or run, whatever the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        warnings.filterwarnings("ignore", "(?s).*use the LiteRT interpreter from the ai_edge_litert", UserWarning)
        yield
