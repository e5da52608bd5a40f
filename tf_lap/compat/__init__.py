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
from types import ModuleType
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
from tensorflow.python.ops import control_flow_util  # there is no public way to ask

from tf_lap.compat import keras3
from tf_lap.compat.nodes import Network as Network
from tf_lap.compat.nodes import Node as Node
from tf_lap.compat.passing import PassOver
from tf_lap.compat.passing import passes_over as passes_over
from tf_lap.compat.passing import trains_again as trains_again


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
    return _of(model).network(model)


def entering(node: Node) -> tuple[Any, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs.

    Raises:
        KeyError: it is called with a dictionary that has other names than its inputs.
    """
    return _of(node.layer).entering(node)


def function_name(layer: Any) -> str | None:
    """The name below `tf.` of the TensorFlow function that tf_keras made this layer of; None for any other layer."""
    return tf_keras_module().function_name(layer) if is_tf_keras(layer) else None


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call by name, in the order of its signature, defaults among them; those in `*args` and
    `**kwargs` one by one.
    """
    signature = inspect.signature(_of(node.layer).called(node.layer))
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError:  # a subclass may be called with more than the `call` that it shows
        return {str(i): value for i, value in enumerate((*node.args, *node.kwargs.values()))}
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found.update((f"{name}[{i}]", item) for i, item in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


def symbolic(node: Node, value: Any) -> list[Any]:
    """The symbolic tensors in an argument of a call, flattened."""
    tensors = {id(tensor) for tensor in node.inputs}
    flat = tf.nest.flatten(value) if is_tf_keras(node.layer) else keras.tree.flatten(value)
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
    return _of(node.layer).per_step(node)


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


def followed(layer: Any) -> str:
    """What a layer's or model's own `call` may be made of so that `trace` can follow it."""
    return _of(layer).FOLLOWED


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


def variable_path(variable: Any) -> str:
    """A variable's name with those of the layers around it, as far as its Keras keeps them."""
    return getattr(variable, "path", variable.name).partition(":")[0]


def overlaid_matrices(model: Any) -> dict[str, Any]:
    """The weight matrices that a LoRA adapter adds to, by the names of their layers: they are frozen themselves."""
    layers = [] if is_tf_keras(model) else model._flatten_layers()
    return {
        layer.name: variable
        for layer in layers
        if getattr(layer, "lora_enabled", False)
        for variable in own_weights(layer)
        if not variable.trainable and len(variable.shape) > 1
    }


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable (not a tensor of LoRA, nor a quantized table)."""
    return _of_variable(kernel).is_kernel_variable(kernel)


def value(variable: Any) -> tf.Tensor:
    """A variable, tensor or number as a float32 tensor, read where it lives."""
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def computes_on_host() -> bool:
    """Whether what is traced or run now is computed by the host's processor, operation by operation."""
    return not under_xla() and all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def is_on_host(variable: Any) -> bool:
    """Whether a variable's values are in the host's memory, and not on an accelerator."""
    return tf.DeviceSpec.from_string(tf.convert_to_tensor(variable).device).device_type == "CPU"


def host_value(variable: Any) -> np.ndarray:
    """A variable, tensor or number as a float32 array, without a copy where it is one in the host's memory already."""
    return host_array(variable).astype(np.float32, copy=False)


def host_array(variable: Any) -> np.ndarray:
    """The same in its own dtype; not to be written to."""
    resource = _resource(variable)
    if resource is None:
        return np.asarray(tf.convert_to_tensor(variable))
    return np.asarray(tf.raw_ops.ReadVariableOp(resource=resource.handle, dtype=resource.dtype))


def host_assign(variable: Any, array: np.ndarray) -> None:
    """Copies an array of a variable's shape and dtype into it, past its constraint."""
    copied = tf.constant(array)  # an array itself may go on being the variable's memory
    resource = _resource(variable)
    if resource is None:
        variable.assign(copied)
    else:
        tf.raw_ops.AssignVariableOp(resource=resource.handle, value=copied)


def _resource(variable: Any) -> tf.Variable | None:
    """The one TensorFlow variable that holds a variable's values: its own operations take a fifth of the time.

    None where there are several, or none.
    """
    inner = variable.value if isinstance(variable, keras.Variable) else variable
    plain = isinstance(inner, tf.Variable) and not isinstance(inner, tf.distribute.DistributedValues)
    return inner if plain else None


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


def refuses_constraint(model: Any) -> Callable[[Any], bool]:
    """For which variables the model's optimizer raises where they have a constraint.

    Legacy optimizers of tf_keras do for embeddings, whose gradients are sparse.

    Args:
        model: the model that is trained.

    Returns:
        A predicate on variables.
    """
    refused = {id(variable) for variable in _of(model).without_constraint(model)}
    return lambda variable: id(variable) in refused


def _of_variable(variable: Any) -> ModuleType:
    return tf_keras_module() if isinstance(variable, tf.Variable) else keras3


def trains(model: Any) -> Callable[[Any], bool]:
    """Which variables a training step of a model moves, as its layers and the models in it are frozen now.

    This is what `trainable_variables` of the model says. A variable's own `trainable` does not say it: in tf_keras it
    stays True where a layer is frozen, and in Keras 3 where a layer was thawed in a model that is frozen itself.
    While it fits, tf_keras sets each layer back to what it was when the model was compiled. The answer there is what
    that step trains.

    Example:

    >>> model.layers[0].trainable = False
    >>> trained = trains(model)
    >>> [trained(layer.kernel) for layer in model.layers]
    [False, True, True]

    Args:
        model: the outermost model that is trained, or a layer.

    Returns:
        A predicate on variables. It compares them by identity, also behind mixed precision and mirrored over replicas.
        Variables that are not of the model are False.

    Raises:
        ValueError: a tf_keras model that is not built.
    """
    parts = [part for variable in model.trainable_variables for part in _of_variable(variable).bare(variable)]
    trained = {id(part): part for part in parts}  # the values keep them alive, so that no identity is used again
    return lambda variable: any(id(part) in trained for part in _of_variable(variable).bare(variable))


def refresh_train_function(model: Any) -> None:
    """Makes the next training step be traced anew.

    A step traced by an earlier `fit` knows nothing of constraints set since, nor that they were removed.
    """
    if _of(model).is_compiled(model):
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
    return _of(model).averages(optimizer, variables)


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
