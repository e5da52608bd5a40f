"""Running the `call` of a Keras 3 layer or model on symbolic tensors, to learn the graph of what it does."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional
from keras.src.ops.function import Function

from tf_lap.compat.keras3.arguments import TypedShape, find_arguments, is_structure
from tf_lap.compat.keras3.graphs import descendants, new_input, read_graph
from tf_lap.compat.keras3.symbolic_calls import admit_more_calls
from tf_lap.compat.nodes import Network, Resize, keep_shape, private
from tf_lap.compat.types import KerasTensor, Layer, Model

TRACEABLE_CODE = "layers and keras.ops"
"""What a `call` may be made of that is run on symbolic tensors."""


def trace_model(model: Model, resize: Resize = keep_shape) -> Network:
    """Runs a model's `call` on symbolic tensors of the shapes it was built with.

    Args:
        model: the model.
        resize: gives each of them the shape that it is to have.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    functional = private(model, "_functional") if isinstance(model, keras.Sequential) else model
    if isinstance(functional, Functional):
        fresh = {
            id(tensor): new_input(resize(number, tuple(tensor.shape)), tensor.dtype, number)
            for number, tensor in enumerate(functional.inputs)
        }
        structure = keras.tree.map_structure(lambda tensor: fresh[id(tensor)], private(functional, "_inputs_struct"))
        return trace_call(model, tuple(fresh.values()), (structure,), {})
    config = model.get_build_config() or {}
    shapes = config.get("input_shape") or config.get("shapes_dict")
    if shapes is None:
        raise ValueError("it keeps no record of the input shapes it was built with")
    if "shapes_dict" in config:
        return _trace_on(model, resize, {}, {name.removesuffix("_shape"): shape for name, shape in shapes.items()})
    return find_arguments(model, shapes, functools.partial(_trace_on, model, resize))


def _trace_on(model: Model, resize: Resize, first: Any, others: Mapping[str, Any]) -> Network:
    """The graph of a model's `call` on new tensors.

    Args:
        model: the model.
        resize: gives each tensor the shape that it is to have.
        first: the shapes of the first argument's tensors, in its structure; an empty mapping where `others` has it.
        others: shapes of more arguments, by name.
    """
    inputs: list[KerasTensor] = []

    def make_inputs(shape: Any, dtype: str) -> Any:
        if isinstance(shape, TypedShape):
            return make_inputs(*shape)
        if isinstance(shape, dict):
            return {name: make_inputs(part, dtype) for name, part in shape.items()}
        if is_structure(shape):
            return [make_inputs(part, dtype) for part in shape]
        inputs.append(new_input(resize(len(inputs), (None, *shape[1:])), dtype, len(inputs)))
        return inputs[-1]

    dtype = keras.config.floatx()
    args = (make_inputs(first, dtype),) if first else ()
    kwargs = {name: make_inputs(shape, dtype) for name, shape in others.items()}
    (parameter, *_) = inspect.signature(model.call).parameters.values()
    if args and parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        args = tuple(args[0])
    return trace_call(model, tuple(inputs), args, kwargs)


def trace_call(layer: Layer, inputs: tuple[KerasTensor, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Network:
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
    # The scope keeps what `call` assigns to variables from being written into them.
    with _restore_graph(layer), admit_more_calls(), keras.StatelessScope():
        outputs = [output for output in keras.tree.flatten(layer.call(*args, **kwargs)) if output is not None]
        symbolic = [output for output in outputs if isinstance(output, keras.KerasTensor)]
        # Keras before 3.13 refuses a graph with an input that no output depends on, such as a mask that is not used.
        graph = read_graph(Function(_select_used(inputs, symbolic), symbolic)) if symbolic else Network((), (), ())
        leaving = (_make_symbolic(output, place) for place, output in enumerate(outputs))
        return dataclasses.replace(graph, inputs=inputs, outputs=tuple(leaving))


def _make_symbolic(output: Any, place: int) -> KerasTensor:
    """An output of a call. A constant becomes a symbolic tensor that nothing in the graph puts out."""
    if isinstance(output, keras.KerasTensor):
        return output
    constant = keras.ops.convert_to_tensor(output)
    return new_input(constant.shape, keras.backend.standardize_dtype(constant.dtype), place)


def _select_used(inputs: tuple[KerasTensor, ...], outputs: list[KerasTensor]) -> list[KerasTensor]:
    """Those of a call's symbolic inputs that its outputs depend on; all inputs where these depend on none."""
    reached: dict[int, KerasTensor] = {}
    pending = [tensor for tensor in outputs if hasattr(tensor, "_keras_history")]
    while pending:
        tensor = pending.pop()
        if id(tensor) not in reached:
            reached[id(tensor)] = tensor
            operation, node_index, _ = tensor._keras_history
            pending += operation._inbound_nodes[node_index].input_tensors
    return [tensor for tensor in inputs if id(tensor) in reached] or list(inputs)


@contextlib.contextmanager
def _restore_graph(layer: Layer) -> Iterator[None]:
    """Removes at its end what symbolic calls leave behind: nodes on the layers, and moved name counters."""
    layers = [layer, *descendants(layer)]
    recorded = [private(member, name) for member in layers for name in ("_inbound_nodes", "_outbound_nodes")]
    lengths = [len(nodes) for nodes in recorded]
    counters = collections.defaultdict(int, global_state.get_global_attribute("object_name_uids", default={}))
    try:
        yield
    finally:
        for nodes, length in zip(recorded, lengths, strict=True):
            del nodes[length:]
        global_state.set_global_attribute("object_name_uids", counters)
