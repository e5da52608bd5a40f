"""What a model or layer of either Keras is, and what is in it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tf_lap.compat.flavours import flavour_of, is_tf_keras, tf_keras_module
from tf_lap.compat.types import Layer, Model


def check_kind(model: Model) -> None:
    """Raises TypeError or ValueError unless `model` is a Keras model that TensorFlow runs."""
    if not is_model(model):
        raise TypeError(
            f"expected a keras.Model or a tf_keras.Model, got {type(model).__name__}: pass the model itself, "
            "not a layer, a list of layers or a path."
        )
    if isinstance(model, keras.Model) and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on the {keras.backend.backend()!r} backend; tf_lap computes with TensorFlow. "
            "Set the environment variable KERAS_BACKEND=tensorflow before importing keras."
        )


def check_model(model: Model) -> None:
    """Raises TypeError or ValueError unless `model` is a built Keras model that TensorFlow runs."""
    check_kind(model)
    if not is_built(model):
        raise ValueError(
            f"model {model.name!r} is not built, so it has no kernels yet. Build it first: "
            "give it a keras.Input, call model.build(input_shape), or call it once on a batch."
        )


def is_model(thing: Any) -> bool:
    """Whether it is a model of either Keras."""
    tf_keras = sys.modules.get("tf_keras")
    return isinstance(thing, keras.Model) or bool(tf_keras and isinstance(thing, tf_keras.Model))


def find_called_model(model: Model) -> Model:
    """The model inside a built one that its call consists of, where others in it serve its training alone.

    So it is in distillation: `fit` is called on a model that holds a student and its teacher, and whose call is that of
    the student.

    Args:
        model: a model of either Keras.

    Returns:
        The model inside, or `model` itself where its call is anything else or cannot be followed, or where no other
        weights are in it.
    """
    flavour = flavour_of(model)
    weights = {id(weight) for weight in model.weights}
    inner = [
        layer
        for layer in flavour.sublayers(model)
        if is_model(layer) and 0 < len({id(weight) for weight in layer.weights}) < len(weights)
    ]
    if not inner or flavour.network(model) is not None:
        return model
    try:
        network = flavour.trace_model(model)
    except Exception:  # a user's `call` may raise anything; the model's report has the reason
        return model
    if len(network.nodes) != 1 or list(map(id, network.nodes[0].outputs)) != list(map(id, network.outputs)):
        return model
    return next((layer for layer in inner if layer is network.nodes[0].layer), model)


def is_built(model: Model) -> bool:
    """Whether a model has its weights. A Sequential without an Input and a subclassed model get them when called."""
    return model.built


def is_operation(layer: Layer) -> bool:
    """Whether it is an operation of `keras.ops` and no layer."""
    return isinstance(layer, keras.Operation) and not isinstance(layer, keras.Layer)


def function_name(layer: Layer) -> str | None:
    """The name below `tf.` of the TensorFlow function that tf_keras made this layer of; None for any other layer."""
    return tf_keras_module().function_name(layer) if is_tf_keras(layer) else None


def has_keras_call(layer: Layer) -> bool:
    """Whether the layer's `call` is one of Keras's own, so that its class or a base class says what it computes."""
    return type(layer).call.__module__.partition(".")[0] in ("keras", "tf_keras")


def sublayers(layer: Layer) -> list[Layer]:
    """The layers directly inside a layer or a model."""
    return flavour_of(layer).sublayers(layer)


def has_graph(model: Model) -> bool:
    """Whether Keras keeps a graph of a model: it does of a Sequential or Functional one."""
    return flavour_of(model).network(model) is not None


def called_layers(model: Model) -> Iterator[Layer]:
    """The layers in a model's graph and in those of the models in it, once for each call; models are not among them."""
    network = flavour_of(model).network(model)
    for node in [] if network is None else network.nodes:
        if is_model(node.layer) and has_graph(node.layer):
            yield from called_layers(node.layer)
        elif not is_operation(node.layer):
            yield node.layer


def parts(layer: Layer) -> list[Layer]:
    """A layer or model and all layers inside it, however deep; an operation alone."""
    return [layer] if is_operation(layer) else [layer, *layer._flatten_layers(include_self=False)]


def check_unwrapped(model: Model) -> None:
    """Raises ValueError where pruning wrappers of tfmot are around layers of a model."""
    if has_wrappers(model):
        raise ValueError(
            f"model {model.name!r} has pruning wrappers of tfmot: take them off with "
            "tfmot.sparsity.keras.strip_pruning(model) first"
        )


def has_wrappers(model: Model) -> bool:
    """Whether pruning wrappers of tfmot are around layers of the model."""
    return is_tf_keras(model) and any(map(tf_keras_module().is_wrapper, model._flatten_layers()))


@contextlib.contextmanager
def intercepted(layer: Layer, record: Callable[[Any, Any], None], linear: bool) -> Iterator[None]:
    """Calls a function after each call of a layer or operation.

    Args:
        layer: a layer or operation that is called eagerly.
        record: is called with the first input of the call and its output.
        linear: whether `record` gets the output before the layer's own activation.
    """
    original, activation = layer.call, getattr(layer, "activation", None) if linear else None
    # tf_keras's operators have a call of their own on the instance.
    has_own_call = "call" in vars(layer)

    def call(*args: Any, **kwargs: Any) -> Any:
        if activation is not None:
            object.__setattr__(layer, "activation", None)
        try:
            output = original(*args, **kwargs)
        finally:
            if activation is not None:
                object.__setattr__(layer, "activation", activation)
        record(args[0] if args else next(iter(kwargs.values())), output)
        return output if activation is None else activation(output)

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        if has_own_call:
            object.__setattr__(layer, "call", original)
        else:
            object.__delattr__(layer, "call")
