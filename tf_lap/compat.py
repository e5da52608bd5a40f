"""The only module that knows Keras 3 from tf_keras, and the only one that touches private attributes of Keras.

Everything else of the package sees a model as a `Network` of `Node`s, and a variable through the
functions below. When a Keras release moves one of the private attributes used here, the error says
which one, and this is the file to change.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.ops import core as core_ops  # noqa: F401  (the classes behind keras.ops are not public; `rules` needs them)
from keras.src.ops import math as math_ops  # noqa: F401
from keras.src.ops import nn as nn_ops  # noqa: F401
from keras.src.ops import numpy as numpy_ops  # noqa: F401
from keras.src.ops.function import Function
from keras.src.ops.operation import Operation


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of a layer or of a Keras operation: symbolic tensors in, symbolic tensors out."""

    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Network:
    """The graph of a model: its nodes in topological order, its input and output tensors."""

    nodes: tuple[Node, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def _private(obj: Any, name: str) -> Any:
    try:
        return getattr(obj, name)
    except AttributeError as error:
        raise RuntimeError(
            f"tf_lap reads the private attribute `{name}` of {type(obj).__name__}, and keras "
            f"{keras.__version__} does not have it. Install a keras release that has it (3.15 does), "
            "or report this version to tf_lap."
        ) from error


def check_model(model: Any) -> None:
    """Raises TypeError or ValueError unless `model` is a built Keras 3 model on the TensorFlow backend."""
    if any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(model).__mro__):
        raise TypeError(
            f"{type(model).__name__} is a tf_keras (Keras 2) model; only Keras 3 models are served so far. "
            "Build the model with `import keras`, and unset TF_USE_LEGACY_KERAS if you build it through `tf.keras`."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"expected a keras.Model (Keras 3), got {type(model).__name__}: pass the model itself, "
            "not a layer, a list of layers or a path."
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on the {keras.backend.backend()!r} backend; tf_lap computes with TensorFlow. "
            "Set the environment variable KERAS_BACKEND=tensorflow before importing keras."
        )
    if not model.built:
        raise ValueError(
            f"model {model.name!r} is not built, so it has no kernels yet. Build it first: "
            "give it a keras.Input, call model.build(input_shape), or call it once on a batch."
        )


def _graph_holder(model: Any) -> Any:
    if isinstance(model, keras.Sequential):
        return _private(model, "_functional")
    return model if isinstance(model, Function) else None


def network(model: Any) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    holder = _graph_holder(model)
    return None if holder is None else _read(holder)


def _read(holder: Any) -> Network:
    by_depth = _private(holder, "_nodes_by_depth")
    nodes = []
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.is_input:
                continue
            arguments = node.arguments
            nodes.append(
                Node(
                    layer=node.operation,
                    inputs=tuple(arguments.keras_tensors),
                    outputs=tuple(node.outputs),
                    args=tuple(arguments.args),
                    kwargs=dict(arguments.kwargs),
                )
            )
    return Network(tuple(nodes), tuple(holder.inputs), tuple(holder.outputs))


def tensor_name(tensor: Any) -> str:
    """The name of the layer or operation that a symbolic tensor comes from."""
    return _private(tensor, "_keras_history").operation.name


def is_keras_own(layer: Any) -> bool:
    """Whether Keras ships this exact class as a layer or operation, so that its `call` is no user's code."""
    return type(layer).__module__.startswith(("keras.src.layers.", "keras.src.ops."))


def trace(node: Node) -> Network:
    """Runs a custom layer's own `call` on symbolic tensors and returns the graph of what it does.

    Args:
        node: the call of the layer in its model; the same arguments are used, with fresh symbolic tensors.

    Raises:
        Exception: whatever `call` raises on symbolic tensors, for example where it uses raw TensorFlow ops.
    """
    fresh = {id(t): _symbolic(t.shape, t.dtype, i) for i, t in enumerate(node.inputs)}
    args, kwargs = keras.tree.map_structure(lambda x: fresh.get(id(x), x), (node.args, node.kwargs))
    return _trace_call(node.layer, tuple(fresh[id(t)] for t in node.inputs), args, kwargs)


def trace_model(model: Any) -> Network:
    """Runs a subclassed model's `call` on symbolic tensors of the shapes it was built with.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    config = model.get_build_config() or {}
    shapes = config.get("input_shape") or config.get("shapes_dict")
    if shapes is None:
        raise ValueError("it keeps no record of the input shapes it was built with")
    inputs: list[Any] = []

    def symbolic(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: symbolic(s) for name, s in shape.items()}
        if isinstance(shape, (list, tuple)) and shape and isinstance(shape[0], (list, tuple, dict)):
            return [symbolic(s) for s in shape]
        inputs.append(_symbolic((None, *shape[1:]), keras.config.floatx(), len(inputs)))
        return inputs[-1]

    tensors = symbolic(shapes)
    if "shapes_dict" in config:
        call = {name.removesuffix("_shape"): tensor for name, tensor in tensors.items()}
        return _trace_call(model, tuple(inputs), (), call)
    return _trace_call(model, tuple(inputs), (tensors,), {})


def _symbolic(shape: Any, dtype: Any, index: int) -> Any:
    # Named, so that Keras's counter behind "input_layer_3" does not move.
    return keras.Input(batch_shape=tuple(shape), dtype=dtype, name=f"tf_lap_input_{index}")


def _trace_call(layer: Any, inputs: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Network:
    with _graph_untouched(layer):
        outputs = layer.call(*args, **kwargs)
        return _read(Function(inputs, outputs))


@contextlib.contextmanager
def _graph_untouched(layer: Any) -> Iterator[None]:
    """Takes back what symbolic calls leave behind: nodes on the layers, and moved name counters."""
    layers = [layer, *_descendants(layer)]
    nodes = [
        (recorded, len(recorded))
        for each in layers
        for recorded in (_private(each, "_inbound_nodes"), _private(each, "_outbound_nodes"))
    ]
    counters = collections.defaultdict(int, global_state.get_global_attribute("object_name_uids", default={}))
    try:
        yield
    finally:
        for recorded, length in nodes:
            del recorded[length:]
        global_state.set_global_attribute("object_name_uids", counters)


def sublayers(layer: Any) -> list[Any]:
    """The layers directly inside a layer or a model."""
    if isinstance(layer, Operation) and not isinstance(layer, keras.Layer):
        return []
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _descendants(layer: Any) -> list[Any]:
    if not isinstance(layer, keras.Layer):
        return []
    return layer._flatten_layers(include_self=False)


def own_weights(layer: Any) -> list[Any]:
    """The variables that a layer owns itself, without those of the layers inside it."""
    if not isinstance(layer, keras.Layer):
        return []
    inner = {id(v) for sub in _descendants(layer) for v in sub.variables}
    return [v for v in layer.weights if id(v) not in inner]


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable (not a tensor of LoRA, nor a quantized table)."""
    return isinstance(kernel, keras.Variable) and tf.as_dtype(kernel.dtype).is_floating


def value(variable: Any) -> tf.Tensor:
    """A variable, tensor or number as a float32 tensor, read where it lives."""
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def constant(argument: Any) -> tuple[int, ...] | None:
    """The shape of a call's argument that is a number, an array, a tensor or a variable; None for anything else."""
    if argument is None or isinstance(argument, (bool, str, bytes)) or keras.backend.is_keras_tensor(argument):
        return None
    if isinstance(argument, (int, float)):
        return ()
    shape = getattr(argument, "shape", None)
    return None if shape is None else tuple(shape)


def assign(variable: Any, new: tf.Tensor) -> None:
    """Writes `new` into a variable, in the variable's own dtype, past its constraint."""
    variable.assign(tf.cast(new, variable.dtype))


def get_constraint(variable: Any) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return variable.constraint


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    variable.constraint = constraint


def refresh_train_function(model: Any) -> None:
    """Makes the next training step be traced anew.

    A step traced by an earlier `fit` knows nothing of constraints set since, nor that they were removed.
    """
    if getattr(model, "compiled", False):
        model.train_function = None
        model.make_train_function()


def moving_averages(model: Any, variables: list[Any]) -> list[Any | None]:
    """For each variable the optimizer's exponential moving average of it, or None where there is none."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer is None or not getattr(optimizer, "use_ema", False) or not optimizer.built:
        return [None] * len(variables)
    averages = zip(
        _private(optimizer, "_trainable_variables"),
        _private(optimizer, "_model_variables_moving_average"),
        strict=True,
    )
    found = {id(variable): average for variable, average in averages}
    return [found.get(id(variable)) for variable in variables]


def iterations(model: Any) -> int:
    """How many training steps the model's optimizer has counted; 0 where it has none."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    return int(optimizer.iterations) * (getattr(optimizer, "gradient_accumulation_steps", None) or 1)
