"""The only room that knows Keras 3 from tf_keras, and the only one that touches private attributes of either.

Everything else of the package sees a model as a `Network` of `Node`s, and a variable through the functions below. What
is particular to one of the two is in its own module here. When a release moves a private attribute, the error says
which one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf
from keras.src.ops import core as core_ops  # noqa: F401  (the classes behind keras.ops are not public; rules need them)
from keras.src.ops import math as math_ops  # noqa: F401
from keras.src.ops import nn as nn_ops  # noqa: F401
from keras.src.ops import numpy as numpy_ops  # noqa: F401
from tensorflow.python.ops import control_flow_util  # there is no public way to ask

from tf_lap.compat import keras3
from tf_lap.compat.nodes import Network as Network
from tf_lap.compat.nodes import Node as Node


def is_tf_keras(thing: Any) -> bool:
    """Whether a model or layer is one of tf_keras."""
    return any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(thing).__mro__)


def _of(layer: Any) -> ModuleType:
    """The module for the kind of Keras that a model or layer is of."""
    return tf_keras_module() if is_tf_keras(layer) else keras3


def tf_keras_module() -> ModuleType:
    """The module for tf_keras; importing tf_lap does not import it."""
    from tf_lap.compat import tf_keras

    return tf_keras


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
    if not model.built:
        raise ValueError(
            f"model {model.name!r} is not built, so it has no kernels yet. Build it first: "
            "give it a keras.Input, call model.build(input_shape), or call it once on a batch."
        )


def network(model: Any) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    return _of(model).network(model)


def entering(node: Node) -> tuple[Any, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs.

    Raises:
        KeyError: it is called with a dictionary that has other names than its inputs.
    """
    return _of(node.layer).entering(node)


def tensor_name(tensor: Any) -> str:
    """The name of the layer or operation that a symbolic tensor comes from."""
    return (tf_keras_module() if is_tf_keras(tensor) else keras3).tensor_name(tensor)


def is_keras_own(layer: Any) -> bool:
    """Whether Keras ships this exact class as a layer or operation, so that its `call` is no user's code."""
    return _of(layer).is_keras_own(layer)


def trace(node: Node) -> Network:
    """Runs a custom layer's own `call` on symbolic tensors and returns the graph of what it does.

    Args:
        node: the call of the layer in its model; the same arguments are used, with fresh symbolic tensors.

    Raises:
        Exception: whatever `call` raises on symbolic tensors, for example where it uses raw TensorFlow ops in Keras 3.
    """
    return _of(node.layer).trace(node)


def trace_model(model: Any) -> Network:
    """Runs a subclassed model's `call` on symbolic tensors of the shapes it was built with.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    return _of(model).trace_model(model)


def is_operation(layer: Any) -> bool:
    """Whether it is an operation of `keras.ops` and no layer."""
    return isinstance(layer, keras.Operation) and not isinstance(layer, keras.Layer)


def wears_wrappers(model: Any) -> bool:
    """Whether pruning wrappers of tfmot are around layers of the model."""
    return is_tf_keras(model) and any(map(tf_keras_module().is_wrapper, model._flatten_layers()))


def sublayers(layer: Any) -> list[Any]:
    """The layers directly inside a layer or a model."""
    return _of(layer).sublayers(layer)


def own_weights(layer: Any) -> list[Any]:
    """The variables that a layer owns itself, without those of the layers inside it."""
    return _of(layer).own_weights(layer)


def variable_name(variable: Any) -> str:
    """A variable's own name, without those of the layers around it: `depthwise_kernel`."""
    return variable.name.rpartition("/")[2].partition(":")[0]


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable (not a tensor of LoRA, nor a quantized table)."""
    return _of_variable(kernel).is_kernel_variable(kernel)


def value(variable: Any) -> tf.Tensor:
    """A variable, tensor or number as a float32 tensor, read where it lives."""
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def under_xla() -> bool:
    """Whether what is traced now will be compiled by XLA as a whole."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def constant(argument: Any) -> tuple[int, ...] | None:
    """The shape of a call's argument that is a number, an array, a tensor or a variable; None for anything else."""
    if argument is None or isinstance(argument, (bool, str, bytes)) or hasattr(argument, "_keras_history"):
        return None  # symbolic tensors have a history, in both kinds of Keras
    if isinstance(argument, (int, float)):
        return ()
    shape = getattr(argument, "shape", None)
    return None if shape is None else tuple(shape)


def assign(variable: Any, new: tf.Tensor) -> None:
    """Writes `new` into a variable, in the variable's own dtype, past its constraint."""
    variable.assign(tf.cast(new, variable.dtype))


def get_constraint(variable: Any) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return _of_variable(variable).get_constraint(variable)


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    _of_variable(variable).set_constraint(variable, constraint)


def _of_variable(variable: Any) -> ModuleType:
    return tf_keras_module() if isinstance(variable, tf.Variable) else keras3


def refresh_train_function(model: Any) -> None:
    """Makes the next training step be traced anew.

    A step traced by an earlier `fit` knows nothing of constraints set since, nor that they were removed.
    """
    if _of(model).is_compiled(model):
        model.train_function = None
        model.make_train_function()


def moving_averages(model: Any, variables: list[Any]) -> list[Any | None]:
    """For each variable the optimizer's exponential moving average of it, or None where there is none."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "use_ema", False) or not getattr(optimizer, "built", getattr(optimizer, "_built", False)):
        return [None] * len(variables)
    return _of(model).averages(optimizer, variables)


def iterations(model: Any) -> int:
    """How many training steps the model's optimizer has counted; 0 where it has none."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    return int(tf.convert_to_tensor(optimizer.iterations)) * (
        getattr(optimizer, "gradient_accumulation_steps", None) or 1
    )


def last_batch(model: Any, begin: int, end: int) -> int:
    """The number of the last batch that an execution was asked to take; a short last one takes fewer.

    Args:
        model: the model in training.
        begin: what Keras told `on_train_batch_begin`.
        end: what Keras told `on_train_batch_end`.
    """
    return _of(model).last_batch(model, begin, end)


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
