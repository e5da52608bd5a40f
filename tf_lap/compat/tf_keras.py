"""What is particular to tf_keras, the Keras 2 that goes on as a package; imported once a model of it is seen."""

from __future__ import annotations

import collections
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from tf_keras.src import backend
from tf_keras.src.engine import base_layer, base_layer_utils
from tf_keras.src.layers.core import tf_op_layer
from tf_keras.src.mixed_precision import autocast_variable

from tf_lap.compat.nodes import TESTED, Network, Node, private

layers = tf_keras.layers
_Function = tf_op_layer.TFOpLambda
"""The layer behind `x + y` and every other TensorFlow function of symbolic tensors."""


FOLLOWED = "layers and functions of tf on tensors, without NumPy and without Python conditions on a tensor's value"
"""What a `call` may be made of that is run on symbolic tensors."""


def network(model: Any) -> Network | None:
    """The graph of a Sequential or Functional model, or None for a model that Keras keeps no graph of."""
    if not isinstance(model, tf_keras.Model) or not private(model, "_is_graph_network"):
        return None
    by_depth = private(model, "_nodes_by_depth")
    nodes = [
        Node(
            layer=unwrapped(node.layer),
            inputs=tuple(node.keras_inputs),
            outputs=tuple(tf.nest.flatten(node.outputs)),
            args=tuple(node.call_args),
            kwargs=dict(node.call_kwargs),
        )
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]
    return Network(tuple(nodes), tuple(tf.nest.flatten(model.inputs)), tuple(tf.nest.flatten(model.outputs)))


def called(layer: Any) -> Callable[..., Any]:
    """What a call of a layer runs, whose signature names the call's arguments."""
    return layer.function if isinstance(layer, _Function) else layer.call


def function_name(layer: Any) -> str | None:
    """The name below `tf.` of the TensorFlow function that a layer was made of; None for any other layer.

    Many functions of `tf` call the one of the same name in `tf.compat.v1`, and that one is recorded.
    """
    return (layer.symbol or "").removeprefix("compat.v1.") if isinstance(layer, _Function) else None


def entering(node: Node) -> tuple[Any, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs."""
    given = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(given, dict):
        return tuple(tf.nest.flatten(given))
    return tuple(given[tensor_name(tensor)] for tensor in tf.nest.flatten(node.layer.inputs))


def per_step(node: Node) -> Node | None:
    """The call of the layer inside a TimeDistributed layer on what lies at one time step; None for any other layer."""
    layer = node.layer
    if not isinstance(layer, layers.TimeDistributed):
        return None
    inputs, outputs = (
        tuple(_symbolic((t.shape[0], *t.shape[2:]), t.dtype, i) for i, t in enumerate(tensors))
        for tensors in (tf.nest.flatten(node.args[0] if node.args else node.kwargs["inputs"]), node.outputs)
    )
    return Node(unwrapped(layer.layer), inputs, outputs, inputs)


def _symbolic(shape: Any, dtype: Any, index: int) -> Any:
    # Named, so that the counter behind "input_3" does not move.
    batch, *rest = shape
    return tf_keras.Input(rest, batch_size=batch, dtype=dtype, name=f"input_{index}")


def tensor_name(tensor: Any) -> str:
    """The name of the layer that a symbolic tensor comes from."""
    return unwrapped(private(tensor, "_keras_history").layer).name


def is_keras_own(layer: Any) -> bool:
    """Whether tf_keras ships this exact class as a layer, so that its `call` is no user's code."""
    if isinstance(layer, layers.Lambda):
        return False
    if isinstance(layer, (base_layer.AddLoss, base_layer.AddMetric)):
        return True
    return type(layer).__module__.startswith(("tf_keras.src.layers.", "tf_keras.src.feature_column."))


def trace(node: Node) -> Network:
    """Runs a custom layer's own `call` on symbolic tensors; see `compat.trace`."""
    fresh = {id(t): _symbolic(t.shape, t.dtype, i) for i, t in enumerate(node.inputs)}
    args, kwargs = tf.nest.map_structure(lambda x: fresh.get(id(x), x), (node.args, node.kwargs))
    return _trace_call(node.layer, tuple(fresh[id(t)] for t in node.inputs), args, kwargs)


def trace_model(model: Any) -> Network:
    """Runs a subclassed model's `call` on symbolic tensors like those that it was first called with.

    Raises:
        Exception: whatever `call` raises on symbolic tensors.
    """
    args, kwargs = model.save_spec(dynamic_batch=True) or (None, None)
    if args is None:
        shape = private(model, "_build_input_shape")
        if shape is None:
            raise ValueError("it keeps no record of the inputs that it was called with; call it once on a batch")
        args, kwargs = (_specs(shape),), {}
    inputs: list[Any] = []

    def symbolic(spec: Any) -> Any:
        if not isinstance(spec, tf.TensorSpec):
            return spec
        inputs.append(_symbolic(spec.shape, spec.dtype, len(inputs)))
        return inputs[-1]

    args, kwargs = tf.nest.map_structure(symbolic, (args, kwargs))
    return _trace_call(model, tuple(inputs), args, kwargs)


def _specs(shape: Any) -> Any:
    """The tensors of a model that was built with `model.build(shape)`: of float32, as Keras makes them."""
    if isinstance(shape, dict):
        return {name: _specs(part) for name, part in shape.items()}
    if isinstance(shape, (list, tuple)) and any(isinstance(part, (list, tuple, tf.TensorShape)) for part in shape):
        return [_specs(part) for part in shape]
    return tf.TensorSpec((None, *tuple(shape)[1:]), backend.floatx())


def _trace_call(layer: Any, inputs: tuple[Any, ...], args: Any, kwargs: Any) -> Network:
    training = inspect.signature(layer.call).parameters.get("training")
    if training is not None and training.default is inspect.Parameter.empty and len(args) < 2:
        kwargs = {"training": False, **kwargs}
    with _graph_untouched(layer):
        return network(tf_keras.Model(list(inputs), layer.call(*args, **kwargs)))


@contextlib.contextmanager
def _graph_untouched(layer: Any) -> Iterator[None]:
    """Takes back what symbolic calls leave behind: nodes and losses on the layers, and moved name counters."""
    layers = [layer, *layer._flatten_layers(include_self=False)]
    nodes = [
        (recorded, len(recorded))
        for each in layers
        for recorded in (private(each, "_inbound_nodes"), private(each, "_outbound_nodes"))
    ]
    nodes += [
        (losses, len(losses))
        for each in layers
        for losses in (private(each, name) for name in ("_losses", "_eager_losses", "_callable_losses"))
    ]
    by_graph = private(backend, "PER_GRAPH_OBJECT_NAME_UIDS")
    counters = {graph: collections.defaultdict(int, counts) for graph, counts in by_graph.items()}
    try:
        yield
    finally:
        for recorded, length in nodes:
            del recorded[length:]
        by_graph.clear()
        by_graph.update(counters)


def sublayers(layer: Any) -> list[Any]:
    """The layers directly inside a layer or a model."""
    return [unwrapped(sub) for sub in layer._flatten_layers(include_self=False, recursive=False)]


def own_weights(layer: Any) -> list[Any]:
    """The variables that a layer owns itself, without those of the layers inside it."""
    inner = {id(v) for sub in layer._flatten_layers(include_self=False) for v in sub.weights}
    return [v for v in layer.weights if id(v) not in inner]


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable."""
    return isinstance(kernel, tf.Variable) and kernel.dtype.is_floating


def get_constraint(variable: Any) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return private(bare(variable)[0], "_constraint")


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    for part in bare(variable):
        part._constraint = constraint


def bare(variable: Any) -> list[Any]:
    """The variables behind one of mixed precision, and behind one that is mirrored over replicas; else itself."""
    inner = getattr(variable, "_variable", variable)
    return list(getattr(inner, "values", [inner]))


def without_constraint(model: Any) -> list[Any]:
    """The variables for which the optimizer takes no constraint: embeddings, where it is a legacy one."""
    layers_of_model = model._flatten_layers(include_self=False)
    return [v for layer in layers_of_model if not takes_constraint(layer, model) for v in layer.weights]


def is_compiled(model: Any) -> bool:
    """Whether the model has a training step."""
    return private(model, "_is_compiled")


def last_batch(model: Any, begin: int, end: int) -> int:
    """The number of the last batch that an execution was asked to take."""
    return end


def averages(optimizer: Any, variables: list[Any]) -> list[Any | None]:
    """For each variable a built optimizer's moving average of it, or None where it has none."""
    index, key = private(optimizer, "_index_dict"), private(optimizer, "_var_key")
    kept = private(optimizer, "_model_variables_moving_average")
    places = [index.get(key(variable)) for variable in variables]
    return [None if place is None else kept[place] for place in places]


def unwrapped(layer: Any) -> Any:
    """The layer inside a pruning wrapper of tfmot; any other layer as it is."""
    return layer.layer if is_wrapper(layer) else layer


def is_wrapper(layer: Any) -> bool:
    """Whether it is a pruning wrapper of tfmot, or of a class made from one."""
    module = sys.modules.get("tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper")
    return module is not None and isinstance(layer, module.PruneLowMagnitude)


def wrappers(model: Any) -> list[Any]:
    """The pruning wrappers of a model in the order of their calls, without those only called with `training=False`."""
    if not isinstance(model, tf_keras.Model) or not private(model, "_is_graph_network"):
        return [layer for layer in model._flatten_layers(include_self=False) if is_wrapper(layer)]
    by_depth = private(model, "_nodes_by_depth")
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    called = [node.layer for node in nodes if node.call_kwargs.get("training") is not False]
    return list(dict.fromkeys(w for layer in called for w in ([layer] if is_wrapper(layer) else wrappers(layer))))


def layers_inside(model: Any) -> Iterator[Any]:
    """All layers and models in a model, however deep; wrappers and what is in them too."""
    return iter(model._flatten_layers(include_self=False))


def graph_of(model: Any) -> Any | None:
    """What is another object as soon as a Sequential or Functional model has another graph; None for other models."""
    return private(model, "_nodes_by_depth") if private(model, "_is_graph_network") else None


class Pass(NamedTuple):
    """A pass through a model, seen from a layer that is called in it.

    Attributes:
        model: the outermost model that is called, one with a graph before one without; None where none is.
        trainer: the model whose optimizer trains it, as far as that shows: the outermost with a `train_step` that runs
            now, else the outermost that is called; None where none has an optimizer.
        token: an object that is this pass's alone and ends with it; None where no model is called.
        around: all built models that are called or run a `train_step`, the outermost first.
    """

    model: Any | None
    trainer: Any | None
    token: Any | None
    around: tuple[Any, ...]


_LAYER_CALL = inspect.unwrap(base_layer.Layer.__call__).__code__
_TRAIN_STEPS = ("train_step", "tf__train_step")  # the second is what AutoGraph makes of the first


def current_pass() -> Pass:
    """The pass that is running now.

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
    calls, trainers = [], []
    frame = sys._getframe()
    while frame is not None:
        # Of no other frame: to read the variables of a user's function would keep them alive as long as it runs.
        if frame.f_code is _LAYER_CALL or frame.f_code.co_name in _TRAIN_STEPS:
            known = frame.f_locals
            if isinstance(known.get("self"), tf_keras.Model):
                here = calls if frame.f_code is _LAYER_CALL else trainers
                here.append((known["self"], known.get("namescope_stack")))
        frame = frame.f_back
    with_graph = [call for call in calls if private(call[0], "_is_graph_network")]
    model, token = (with_graph or calls or [(None, None)])[-1]
    models = [frame_model for frame_model, _ in [*calls, *trainers]]
    with_optimizer = [candidate for candidate in models if getattr(candidate, "optimizer", None) is not None]
    # tf_keras does not say what a model that is not built trains.
    around = dict.fromkeys(candidate for candidate in reversed(models) if candidate.built)
    return Pass(model, with_optimizer[-1] if with_optimizer else None, token, tuple(around))


def is_rehearsal() -> bool:
    """Whether layers are called only to learn the shapes that they give, or to be written to a SavedModel."""
    if base_layer_utils.call_context().saving:
        return True
    graph = None if tf.executing_eagerly() else backend.get_graph()
    while graph is not None and not getattr(graph, "name", "").endswith("_scratch_graph"):
        graph = getattr(graph, "outer_graph", None)
    return graph is not None


def uncast() -> AbstractContextManager[None]:
    """In here variables are read in their own dtype, whatever the mixed precision of the layer that is called."""
    return autocast_variable.enable_auto_cast_variables(None)


def rename(layer: Any, name: str) -> None:
    """Gives another name to a layer that is in no model yet."""
    private(layer, "_name")
    layer._name = name


def symbolic_calls(layer: Any) -> int:
    """How often a layer itself was called to build a model's graph."""
    return len(private(layer, "_inbound_nodes"))


def autocasts(layer: Any) -> bool:
    """Whether a layer casts what it is called with to its own precision."""
    return private(layer, "_autocast")


def takes_constraint(layer: Any, trainer: Any | None) -> bool:
    """Whether the optimizer applies constraints to this layer's weights: legacy ones refuse it for embeddings."""
    legacy = isinstance(getattr(trainer, "optimizer", None), tf_keras.optimizers.legacy.Optimizer)
    return not (legacy and isinstance(layer, layers.Embedding))
