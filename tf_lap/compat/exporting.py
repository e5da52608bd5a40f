"""What running and exporting a model asks of either Keras: inputs and outputs by name, and its call in float32."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lap.compat import is_tf_keras, own_weights, wears_wrappers

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


def inputs(model: Any) -> list[Input] | None:
    """The inputs of a Sequential or Functional model, in their order; None for a subclassed model."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return None
    names = model.input_names if is_tf_keras(model) else [tensor.name for tensor in tensors]
    # Both Keras flatten a mapping in the order of its sorted keys; one that is nested has no key for each input.
    keys = sorted(model.input) if _structure(model, Mapping) and len(model.input) == len(names) else names
    return [
        Input(name, key, tuple(tensor.shape), np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype))
        for name, key, tensor in zip(names, keys, tensors, strict=True)
    ]


def _structure(model: Any, kinds: Any) -> bool:
    # A Sequential takes one tensor, and in Keras 3.4 it has no `input` of its own.
    plain = isinstance(model, keras.Sequential) or not getattr(model, "inputs", None)
    return not plain and isinstance(model.input, kinds)


def has_fixed_batch(model: Any) -> bool:
    """Whether the model takes batches of one size alone."""
    known = inputs(model)
    return bool(known) and known[0].shape[0] is not None


def signature(model: Any, batch_size: int | None = None) -> list[Input]:
    """What a file of the model takes.

    Args:
        model: the model.
        batch_size: the batch of each input whose own is open; None leaves it open.

    Raises:
        ValueError: an input has a batch of another size, or the inputs of a subclassed model cannot be told apart.
    """
    taken = inputs(model) or [_subclassed_input(model)]
    for entry in taken:
        if batch_size is not None and entry.shape[0] not in (None, batch_size):
            raise ValueError(
                f"batch_size={batch_size}: input {entry.name!r} of model {model.name!r} has a batch of "
                f"{entry.shape[0]} of its own: pass that or None, or build the model with an open batch"
            )
    return [entry._replace(shape=(entry.shape[0] or batch_size, *entry.shape[1:])) for entry in taken]


def _subclassed_input(model: Any) -> Input:
    """The one input that a subclassed model was built with; its batch is open."""
    if is_tf_keras(model):
        recorded = model.save_spec()
        if recorded is None:
            raise ValueError(f"model {model.name!r} keeps no record of its inputs: call it once on a batch")
        specs = [(tuple(spec.shape), spec.dtype) for spec in tf.nest.flatten(recorded)]
    else:
        config = model.get_build_config() or {}
        recorded = config.get("input_shape") or config.get("shapes_dict")
        if recorded is None:
            raise ValueError(f"model {model.name!r} keeps no record of its inputs: call it once on a batch")
        specs = [(shape, model.input_dtype) for shape in _shapes(recorded)]
    if len(specs) > 1:
        raise ValueError(
            f"model {model.name!r} is a subclassed model with {len(specs)} inputs, which cannot be told apart in a "
            "file: wrap it into a Functional model, whose inputs have names"
        )
    ((_, *extents), dtype) = specs[0]
    return Input("args_0", "args_0", (None, *extents), np.dtype(tf.as_dtype(dtype).as_numpy_dtype))


def _shapes(structure: Any) -> list[tuple[int | None, ...]]:
    """The shapes in a structure of shapes."""
    if isinstance(structure, Mapping):
        return [shape for entry in structure.values() for shape in _shapes(entry)]
    if any(isinstance(entry, (Mapping, list, tuple)) for entry in structure):
        return [shape for entry in structure for shape in _shapes(entry)]
    return [tuple(structure)]


def quantized_layers(model: Any) -> list[str]:
    """Names of the layers that `model.quantize` of Keras 3 changed."""
    quantized = getattr(keras.dtype_policies, "QuantizedDTypePolicy", ())
    return [
        layer.name for layer in model._flatten_layers() if isinstance(getattr(layer, "dtype_policy", None), quantized)
    ]


def outputs(model: Any, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What `tensors` gives, as arrays."""
    return {name: np.asarray(value) for name, value in tensors(model, arrays).items()}


def tensors(model: Any, arrays: Sequence[np.ndarray]) -> dict[str, tf.Tensor]:
    """What the model answers at inference, by the names that its outputs have in the exported file.

    Args:
        model: the model.
        arrays: its inputs, in their order, with a batch.
    """
    packed: Any = arrays[0]
    if _structure(model, (Mapping, list, tuple)):
        pack = tf.nest.pack_sequence_as if is_tf_keras(model) else keras.tree.pack_sequence_as
        packed = pack(model.input, list(arrays))
    answer = model(packed, training=False)
    if is_tf_keras(model):
        flat = tf.nest.flatten(answer)
        names = getattr(model, "output_names", None) or [f"output_{i + 1}" for i in range(len(flat))]
    else:
        flat = keras.tree.flatten(answer)
        named = isinstance(answer, Mapping) and len(answer) == len(flat)
        names = sorted(answer) if named else [f"output_{i}" for i in range(len(flat))]
    return {name: tf.convert_to_tensor(value) for name, value in zip(names, flat, strict=True)}


@contextlib.contextmanager
def states_kept(model: Any) -> Iterator[None]:
    """Puts back what calling the model changes: states of recurrent layers, counters of custom ones."""
    states = [state for layer in model._flatten_layers() for state in tf.nest.flatten(getattr(layer, "states", None))]
    variables = [v for v in (*model.non_trainable_variables, *states) if hasattr(v, "assign")]
    before = [np.array(tf.convert_to_tensor(variable)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def without_wrappers(model: Any) -> Any:
    """The model without tfmot's pruning wrappers, which no file can hold."""
    if not wears_wrappers(model):
        return model
    from tf_lap.compat.tfmot import prune

    return prune.strip_pruning(model)


@contextlib.contextmanager
def in_float32(model: Any) -> Iterator[None]:
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
    with contextlib.ExitStack() as restored:
        for layer in mixed:
            restored.callback(_set_policy, layer, layer.dtype_policy)
            _set_policy(layer, "float32")
        for cast in _casts_to_half(model):
            restored.callback(setattr, cast, "dtype", cast.dtype)
            cast.dtype = "float32"
        yield


def _casts_to_half(model: Any) -> list[Any]:
    """The casts to half precision among a model's operations.

    Keras 3.8 writes one into a network where a layer of a mixed policy casts its input.
    """
    networks = [layer for layer in model._flatten_layers() if isinstance(layer, keras.Model)]
    operations = [operation for network in networks for operation in getattr(network, "operations", ())]
    return [operation for operation in operations if type(operation).__name__ == "Cast" and operation.dtype in _HALVES]


_HALVES = ("float16", "bfloat16")


def _set_policy(layer: Any, policy: Any) -> None:
    if is_tf_keras(layer):
        layer._set_dtype_policy(policy)
    else:
        layer.dtype_policy = policy


@contextlib.contextmanager
def expected_warnings() -> Iterator[None]:
    """Without the warnings that TensorFlow gives whoever converts or runs a file, whatever the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        warnings.filterwarnings("ignore", "(?s).*use the LiteRT interpreter from the ai_edge_litert", UserWarning)
        yield
