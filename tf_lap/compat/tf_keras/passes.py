"""The pass through a tf_keras model that a layer is called in, from the call stack."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from tf_keras.src import backend
from tf_keras.src.engine import base_layer, base_layer_utils

from tf_lap.compat.call_stack import running_frames
from tf_lap.compat.nodes import TESTED, private
from tf_lap.compat.types import Model


class Pass(NamedTuple):
    """A pass through a model, seen from a layer that is called in it.

    Attributes:
        model: the outermost model that is called, one with a graph before one without; None where none is.
        trainer: the model whose optimizer trains it, as far as that shows: the outermost model with an optimizer
            whose `train_step` is running, else the outermost one that is called; None where none has an optimizer.
        token: an object that is this pass's alone and ends with it; None where no model is called.
        around: all built models that are called or run a `train_step`, the outermost first.
    """

    model: Model | None
    trainer: Model | None
    token: Any | None
    around: tuple[Model, ...]


_LAYER_CALL = inspect.unwrap(base_layer.Layer.__call__).__code__
_TRAIN_STEPS = ("train_step", "tf__train_step")  # the second is what AutoGraph makes of the first


def current_pass() -> Pass:
    """The pass that is running.

    Keras tells a layer neither in which model it is nor who calls it, and a layer of a model that was loaded from a
    file has met nobody but Keras. So this looks at the call stack.

    Raises:
        RuntimeError: this release of tf_keras calls layers in another way.
    """
    if "namescope_stack" not in _LAYER_CALL.co_varnames:
        raise RuntimeError(
            "tf_lap knows a pass through a model by the local variable `namescope_stack` of Layer.__call__, and "
            f"tf_keras {tf_keras.__version__} does not have it. Install a release that tf_lap was tested with "
            f"({TESTED}), and report this."
        )
    called: list[tuple[Model, Any]] = []  # each model with the token of its call, the innermost first
    training: list[Model] = []
    for frame in running_frames():
        is_call = frame.f_code is _LAYER_CALL
        if is_call or frame.f_code.co_name in _TRAIN_STEPS:
            variables = frame.f_locals
            if not isinstance(variables.get("self"), tf_keras.Model):
                continue
            if is_call:
                called.append((variables["self"], variables.get("namescope_stack")))
            else:
                training.append(variables["self"])
    with_graph = [call for call in called if private(call[0], "_is_graph_network")]
    model, token = (with_graph or called or [(None, None)])[-1]
    models = [*(called_model for called_model, _ in called), *training]
    with_optimizer = [candidate for candidate in models if getattr(candidate, "optimizer", None) is not None]
    # tf_keras does not say what a model that is not built trains.
    around = dict.fromkeys(candidate for candidate in reversed(models) if candidate.built)
    return Pass(model, with_optimizer[-1] if with_optimizer else None, token, tuple(around))


def is_rehearsal() -> bool:
    """Whether layers are called only to learn the shapes of their outputs, or to be written to a SavedModel."""
    if base_layer_utils.call_context().saving:
        return True
    graph = None if tf.executing_eagerly() else backend.get_graph()
    while graph is not None and not getattr(graph, "name", "").endswith("_scratch_graph"):
        graph = getattr(graph, "outer_graph", None)
    return graph is not None
