"""What is particular to Keras 3."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional
from keras.src.ops.function import Function
from keras.src.ops.operation import Operation

from tf_lap.compat.nodes import Network, Node, private

FOLLOWED = "layers and keras.ops"
"""What a `call` may be made of that is run on symbolic tensors."""


def _graph_holder(model: Any) -> Any:
    if isinstance(model, keras.Sequential):
        return private(model, "_functional")
    # A Functional model with a call of its own does what that says, and not what its constructor was given.
    plain = isinstance(model, Functional) and type(model).call is Functional.call
    return model if plain else None


def network(model: Any) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    holder = _graph_holder(model)
    return None if holder is None else _read(holder)


def _read(holder: Any) -> Network:
    by_depth = private(holder, "_nodes_by_depth")
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


def called(layer: Any) -> Callable[..., Any]:
    """What a call of a layer or operation runs, whose signature names the call's arguments."""
    return layer.call


def entering(node: Node) -> tuple[Any, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs."""
    given = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(given, dict) or isinstance(node.layer, keras.Sequential):
        return tuple(keras.tree.flatten(given))
    expected = private(node.layer, "_inputs_struct")
    names = sorted(expected) if isinstance(expected, dict) else [tensor.name for tensor in node.layer.inputs]
    return tuple(given[name] for name in names)


def per_step(node: Node) -> Node | None:
    """The call of the layer inside a TimeDistributed layer on what lies at one time step; None for any other layer."""
    layer = node.layer
    if not isinstance(layer, keras.layers.TimeDistributed):
        return None
    inputs, outputs = (
        tuple(_symbolic((t.shape[0], *t.shape[2:]), t.dtype, i) for i, t in enumerate(tensors))
        for tensors in (keras.tree.flatten(node.args[0] if node.args else node.kwargs["inputs"]), node.outputs)
    )
    return Node(layer.layer, inputs, outputs, inputs)


def tensor_name(tensor: Any) -> str:
    """The name of the layer or operation that a symbolic tensor comes from."""
    return private(tensor, "_keras_history").operation.name


# Layers of keras.applications are not among them: they are followed through their `call`, as those of users.
_OWN = tuple(f"keras.src.{room}." for room in ("layers", "ops", "activations", "quantizers"))


def is_keras_own(layer: Any) -> bool:
    """Whether Keras ships this exact class as a layer or operation, so that its `call` is no user's code."""
    if isinstance(layer, keras.layers.Lambda):
        return False
    return type(layer).__module__.startswith(_OWN)


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
    if isinstance(model, Functional):
        fresh = {id(t): _symbolic(t.shape, t.dtype, i) for i, t in enumerate(model.inputs)}
        given = keras.tree.map_structure(lambda t: fresh[id(t)], private(model, "_inputs_struct"))
        return _trace_call(model, tuple(fresh.values()), (given,), {})
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
    return keras.Input(batch_shape=tuple(shape), dtype=dtype, name=f"input_{index}")


def _trace_call(layer: Any, inputs: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Network:
    # The scope keeps what `call` assigns to variables from being written into them.
    training = inspect.signature(layer.call).parameters.get("training")
    if training is not None and training.default is inspect.Parameter.empty and len(args) < 2:
        kwargs = {"training": False, **kwargs}
    with _graph_untouched(layer), keras.StatelessScope():
        outputs = layer.call(*args, **kwargs)
        # Keras before 3.13 refuses a graph with an input that no output depends on, such as a mask that is not used.
        return dataclasses.replace(_read(Function(_used(inputs, outputs), outputs)), inputs=inputs)


def _used(inputs: tuple[Any, ...], outputs: Any) -> list[Any]:
    """Those of a call's symbolic inputs that its outputs depend on; all where these depend on none."""
    reached: dict[int, Any] = {}
    pending = [tensor for tensor in keras.tree.flatten(outputs) if hasattr(tensor, "_keras_history")]
    while pending:
        tensor = pending.pop()
        if id(tensor) not in reached:
            reached[id(tensor)] = tensor
            operation, node_index, _ = tensor._keras_history
            pending += operation._inbound_nodes[node_index].input_tensors
    return [tensor for tensor in inputs if id(tensor) in reached] or list(inputs)


@contextlib.contextmanager
def _graph_untouched(layer: Any) -> Iterator[None]:
    """Takes back what symbolic calls leave behind: nodes on the layers, and moved name counters."""
    layers = [layer, *_descendants(layer)]
    nodes = [
        (recorded, len(recorded))
        for each in layers
        for recorded in (private(each, "_inbound_nodes"), private(each, "_outbound_nodes"))
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


def get_constraint(variable: Any) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return variable.constraint


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    variable.constraint = constraint


def bare(variable: Any) -> list[Any]:
    """The variable itself: Keras 3 has one object for it, whatever its precision and over replicas."""
    return [variable]


def without_constraint(model: Any) -> list[Any]:
    """The variables for which the optimizer takes no constraint: none."""
    return []


def is_compiled(model: Any) -> bool:
    """Whether the model has a training step."""
    return model.compiled


def last_batch(model: Any, begin: int, end: int) -> int:
    """The number of the last batch that an execution was asked to take."""
    # Before 3.11, Keras tells on_train_batch_end the number of the first batch again.
    return max(end, begin + model.steps_per_execution - 1)


def averages(optimizer: Any, variables: list[Any]) -> list[Any | None]:
    """For each variable a built optimizer's moving average of it, or None where it has none."""
    kept = zip(
        private(optimizer, "_trainable_variables"), private(optimizer, "_model_variables_moving_average"), strict=True
    )
    found = {id(variable): average for variable, average in kept}
    return [found.get(id(variable)) for variable in variables]
