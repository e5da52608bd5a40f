"""The only room that knows Keras 3 from tf_keras, and the only one that touches private attributes of either.

Everything else of the package sees a model as a `Network` of `Node`s, and a variable through the functions below. What
is particular to one of the two is in its own module here. When a release moves a private attribute, the error says
which one.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.activations import activations as activation_ops  # noqa: F401
from keras.src.ops import core as core_ops  # noqa: F401  (the classes behind keras.ops are not public; rules need them)
from keras.src.ops import linalg as linalg_ops  # noqa: F401
from keras.src.ops import math as math_ops  # noqa: F401
from keras.src.ops import nn as nn_ops  # noqa: F401
from keras.src.ops import numpy as numpy_ops  # noqa: F401

from tf_lap.compat import keras3
from tf_lap.compat.flavours import flavour_of
from tf_lap.compat.flavours import is_tf_keras as is_tf_keras
from tf_lap.compat.flavours import tf_keras_module as tf_keras_module
from tf_lap.compat.nodes import Network as Network
from tf_lap.compat.nodes import Node as Node
from tf_lap.compat.passing import PassOver
from tf_lap.compat.passing import passes_over as passes_over
from tf_lap.compat.passing import trains_again as trains_again
from tf_lap.compat.variables import HostVariables as HostVariables
from tf_lap.compat.variables import assign as assign
from tf_lap.compat.variables import computes_on_host as computes_on_host
from tf_lap.compat.variables import get_constraint as get_constraint
from tf_lap.compat.variables import host_array as host_array
from tf_lap.compat.variables import host_memory as host_memory
from tf_lap.compat.variables import host_value as host_value
from tf_lap.compat.variables import is_kernel_variable as is_kernel_variable
from tf_lap.compat.variables import is_on_host as is_on_host
from tf_lap.compat.variables import overlaid_matrices as overlaid_matrices
from tf_lap.compat.variables import own_weights as own_weights
from tf_lap.compat.variables import refuses_constraint as refuses_constraint
from tf_lap.compat.variables import set_constraint as set_constraint
from tf_lap.compat.variables import trains as trains
from tf_lap.compat.variables import under_xla as under_xla
from tf_lap.compat.variables import value as value
from tf_lap.compat.variables import variable_name as variable_name
from tf_lap.compat.variables import variable_path as variable_path


def check_model(model: Any) -> None:
    """Raises TypeError or ValueError unless `model` is a built Keras model that TensorFlow runs."""
    tf_keras = sys.modules.get("tf_keras")
    if not isinstance(model, keras.Model) and not (tf_keras and isinstance(model, tf_keras.Model)):
        raise TypeError(
            f"expected a keras.Model or a tf_keras.Model, got {type(model).__name__}: pass the model itself, "
            "not a layer, a list of layers or a path."
        )
    if isinstance(model, keras.Model) and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on the {keras.backend.backend()!r} backend; tf_lap computes with TensorFlow. "
            "Set the environment variable KERAS_BACKEND=tensorflow before importing keras."
        )
    if not is_built(model):
        raise ValueError(
            f"model {model.name!r} is not built, so it has no kernels yet. Build it first: "
            "give it a keras.Input, call model.build(input_shape), or call it once on a batch."
        )


def is_built(model: Any) -> bool:
    """Whether a model has its weights. A Sequential without an Input and a subclassed model get them when called."""
    return model.built


def network(model: Any) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    return flavour_of(model).network(model)


def entering(node: Node) -> tuple[Any, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs.

    Raises:
        KeyError: it is called with a dictionary that has other names than its inputs.
    """
    return flavour_of(node.layer).entering(node)


def function_name(layer: Any) -> str | None:
    """The name below `tf.` of the TensorFlow function that tf_keras made this layer of; None for any other layer."""
    return tf_keras_module().function_name(layer) if is_tf_keras(layer) else None


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call by name, in the order of its signature, defaults among them; those in `*args` and
    `**kwargs` one by one.
    """
    signature = inspect.signature(flavour_of(node.layer).called(node.layer))
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError:  # a subclass may be called with more than the `call` that it shows
        return {str(i): value for i, value in enumerate((*node.args, *node.kwargs.values()))}
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, argument in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found.update((f"{name}[{i}]", item) for i, item in enumerate(argument))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found.update(argument)
        else:
            found[name] = argument
    return found


def symbolic(node: Node, argument: Any) -> list[Any]:
    """The symbolic tensors in an argument of a call, flattened."""
    tensors = {id(tensor) for tensor in node.inputs}
    flat = tf.nest.flatten(argument) if is_tf_keras(node.layer) else keras.tree.flatten(argument)
    return [item for item in flat if id(item) in tensors]


def shape(tensor: Any) -> tuple[int | None, ...]:
    """The shape of a symbolic tensor, None where it is open; empty where not even the number of axes is known."""
    known = tensor.shape
    return () if getattr(known, "rank", 0) is None else tuple(known)


def is_boolean(tensor: Any) -> bool:
    """Whether a symbolic tensor holds truth values."""
    return tf.as_dtype(tensor.dtype) == tf.bool


def static(argument: Any) -> np.ndarray | None:
    """The value of a call's argument: a number, an array, a tensor, or a list of them; None where it is not known."""
    if isinstance(argument, (list, tuple)):
        values = [static(item) for item in argument]
        return None if any(value is None for value in values) else np.array(values)
    if argument is None or isinstance(argument, (str, bytes)) or hasattr(argument, "_keras_history"):
        return None
    return tf.get_static_value(tf.convert_to_tensor(argument))


def per_step(node: Node) -> Node | None:
    """The call of the layer inside a TimeDistributed layer on what lies at one time step; None for any other layer."""
    return flavour_of(node.layer).per_step(node)


def tensor_name(tensor: Any) -> str:
    """The name of the layer or operation that a symbolic tensor comes from."""
    return (tf_keras_module() if is_tf_keras(tensor) else keras3).tensor_name(tensor)


def is_keras_own(layer: Any) -> bool:
    """Whether Keras ships this exact class as a layer or operation, so that its `call` is no user's code."""
    return flavour_of(layer).is_keras_own(layer)


def trace(node: Node) -> Network:
    """Runs a custom layer's own `call` on symbolic tensors and returns the graph of what it does.

    Args:
        node: the call of the layer in its model; the same arguments are used, with fresh symbolic tensors.

    Raises:
        Exception: whatever `call` raises on symbolic tensors, for example where it uses raw TensorFlow ops in Keras 3.
    """
    return flavour_of(node.layer).trace(node)


def trace_model(model: Any) -> Network:
    """Runs a subclassed model's `call` on symbolic tensors of the shapes it was built with.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    return flavour_of(model).trace_model(model)


def followed(layer: Any) -> str:
    """What a layer's or model's own `call` may be made of so that `trace` can follow it."""
    return flavour_of(layer).FOLLOWED


def is_operation(layer: Any) -> bool:
    """Whether it is an operation of `keras.ops` and no layer."""
    return isinstance(layer, keras.Operation) and not isinstance(layer, keras.Layer)


def wears_wrappers(model: Any) -> bool:
    """Whether pruning wrappers of tfmot are around layers of the model."""
    return is_tf_keras(model) and any(map(tf_keras_module().is_wrapper, model._flatten_layers()))


def sublayers(layer: Any) -> list[Any]:
    """The layers directly inside a layer or a model."""
    return flavour_of(layer).sublayers(layer)


def constant(argument: Any) -> tuple[int, ...] | None:
    """The shape of a call's argument that is a number, an array, a tensor or a variable; None for anything else."""
    if argument is None or isinstance(argument, (bool, str, bytes)) or hasattr(argument, "_keras_history"):
        return None  # symbolic tensors have a history, in both kinds of Keras
    if isinstance(argument, (int, float)):
        return ()
    shape = getattr(argument, "shape", None)
    return None if shape is None else tuple(shape)


def refresh_train_function(model: Any) -> None:
    """Makes the next training step be traced anew.

    A step traced by an earlier `fit` knows nothing of constraints set since, nor that they were removed.
    """
    if flavour_of(model).is_compiled(model):
        before, model.train_function = model.train_function, None
        model.make_train_function()
        if isinstance(before, PassOver):
            before.inner, model.train_function = model.train_function, before


def uses_averages(model: Any) -> bool:
    """Whether the model's optimizer puts moving averages in place of the weights when training ends."""
    optimizer = getattr(model, "optimizer", None)
    return bool(getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False))


def moving_averages(model: Any, variables: list[Any]) -> list[Any | None]:
    """For each variable the optimizer's exponential moving average of it, or None where there is none."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "use_ema", False) or not getattr(optimizer, "built", getattr(optimizer, "_built", False)):
        return [None] * len(variables)
    return flavour_of(model).averages(optimizer, variables)


def iterations(model: Any) -> int:
    """How many training steps the model's optimizer has counted; 0 where it has none."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    return int(tf.convert_to_tensor(optimizer.iterations)) * gradient_accumulation_steps(model)


def gradient_accumulation_steps(model: Any) -> int:
    """How many training steps the model's optimizer counts as one; 1 where it has no optimizer."""
    return getattr(getattr(model, "optimizer", None), "gradient_accumulation_steps", None) or 1


def last_batch(model: Any, begin: int, end: int) -> int:
    """The number of the last batch that an execution was asked to take; a short last one takes fewer.

    Args:
        model: the model in training.
        begin: what Keras told `on_train_batch_begin`.
        end: what Keras told `on_train_batch_end`.
    """
    return flavour_of(model).last_batch(model, begin, end)


@contextlib.contextmanager
def intercepted(layer: Any, record: Callable[[Any, Any], None], linear: bool) -> Iterator[None]:
    """Tells of each call of a layer or operation its first input and its output.

    Args:
        layer: what is called eagerly.
        record: is told.
        linear: the output before the layer's own activation.
    """
    original, activation = layer.call, getattr(layer, "activation", None) if linear else None
    # tf_keras's operators have a call of their own on the instance.
    before = {name: vars(layer)[name] for name in ("call",) if name in vars(layer)}

    def call(*args: Any, **kwargs: Any) -> Any:
        if activation is not None:
            object.__setattr__(layer, "activation", None)
        try:
            out = original(*args, **kwargs)
        finally:
            if activation is not None:
                object.__setattr__(layer, "activation", activation)
        record(args[0] if args else next(iter(kwargs.values())), out)
        return out if activation is None else activation(out)

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")
        for name, value in before.items():
            object.__setattr__(layer, name, value)


class Callback(keras.callbacks.Callback):
    """A callback that `fit` of both kinds of Keras takes."""

    # tf_keras asks these of each callback.
    _supports_tf_logs = False

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False
