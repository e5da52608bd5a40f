"""Running the `call` of a tf_keras layer or model on symbolic tensors, to learn the graph of what it does."""

from __future__ import annotations

import collections
import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src import backend

from tf_lap.compat.nodes import Network, Resize, keep_shape, private
from tf_lap.compat.tf_keras.graphs import new_input, read_graph
from tf_lap.compat.types import KerasTensor, Layer, Model

TRACEABLE_CODE = (
    "layers and functions of tf on tensors, without NumPy and without Python conditions on a tensor's value"
)
"""What a `call` may be made of that is run on symbolic tensors."""


def trace_model(model: Model, resize: Resize = keep_shape) -> Network:
    """Runs a model's `call` on symbolic tensors like those that it was first called with.

    Args:
        model: the model.
        resize: gives each of them the shape that it is to have.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    args, kwargs = model.save_spec(dynamic_batch=True) or (None, None)
    if args is None:
        shape = private(model, "_build_input_shape")
        if shape is None:
            raise ValueError("it keeps no record of the inputs that it was called with; call it once on a batch")
        args, kwargs = (_make_specs(shape),), {}
    inputs: list[KerasTensor] = []

    def make_input(spec: Any) -> Any:
        if not isinstance(spec, tf.TensorSpec):
            return spec
        inputs.append(new_input(resize(len(inputs), tuple(spec.shape)), spec.dtype, len(inputs)))
        return inputs[-1]

    args, kwargs = tf.nest.map_structure(make_input, (args, kwargs))
    return trace_call(model, tuple(inputs), args, kwargs)


def _make_specs(shape: Any) -> Any:
    """The tensors of a model that was built with `model.build(shape)`: of float32, as Keras makes them."""
    if isinstance(shape, dict):
        return {name: _make_specs(part) for name, part in shape.items()}
    if isinstance(shape, (list, tuple)) and any(isinstance(part, (list, tuple, tf.TensorShape)) for part in shape):
        return [_make_specs(part) for part in shape]
    return tf.TensorSpec((None, *tuple(shape)[1:]), backend.floatx())


def trace_call(layer: Layer, inputs: tuple[KerasTensor, ...], args: Any, kwargs: Any) -> Network:
    """The graph of one `call` of a layer or model at inference; nothing that the call does to the layer is kept.

    Args:
        layer: the layer or model.
        inputs: the symbolic tensors among the arguments.
        args: the positional arguments.
        kwargs: the keyword arguments.
    """
    training = inspect.signature(layer.call).parameters.get("training")
    if training is not None and training.default is inspect.Parameter.empty and len(args) < 2:
        kwargs = {"training": False, **kwargs}
    with _restore_graph(layer):
        returned = tf.nest.flatten(layer.call(*args, **kwargs))
        outputs = [tensor for tensor in returned if tensor is not None]
        return read_graph(tf_keras.Model(list(inputs), outputs))


_RECORDS = ("_inbound_nodes", "_outbound_nodes", "_losses", "_eager_losses", "_callable_losses")
"""Lists on a layer that a symbolic call appends to."""


@contextlib.contextmanager
def _restore_graph(layer: Layer) -> Iterator[None]:
    """Removes at its end what symbolic calls leave behind: nodes and losses on the layers, and moved name counters."""
    layers = [layer, *layer._flatten_layers(include_self=False)]
    records = [private(member, name) for member in layers for name in _RECORDS]
    lengths = [len(record) for record in records]
    by_graph = private(backend, "PER_GRAPH_OBJECT_NAME_UIDS")
    counters = {graph: collections.defaultdict(int, counts) for graph, counts in by_graph.items()}
    try:
        yield
    finally:
        for record, length in zip(records, lengths, strict=True):
            del record[length:]
        by_graph.clear()
        by_graph.update(counters)
