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

from tf_lap.compat.keras3 import local_of
from tf_lap.compat.nodes import Network, Node, private

layers = tf_keras.layers
Operator = tf_op_layer.TFOpLambda
"""The layer behind `x + y` and every other TensorFlow function of symbolic tensors."""


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


def entering(node: Node) -> tuple[Any, ...]:
    """The tensors that a nested model is called with, in the order of its own inputs."""
    given = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(given, dict):
        return node.inputs
    return tuple(given[tensor_name(tensor)] for tensor in tf.nest.flatten(node.layer.inputs))


def tensor_name(tensor: Any) -> str:
    """The name of the layer that a symbolic tensor comes from."""
    return unwrapped(private(tensor, "_keras_history").layer).name


def is_keras_own(layer: Any) -> bool:
    """Whether tf_keras ships this exact class as a layer, so that its `call` is no user's code."""
    if isinstance(layer, layers.Lambda):
        return False
    return type(layer).__module__.startswith("tf_keras.src.layers.")


def trace(node: Node) -> Network:
    """Runs a custom layer's own `call` on symbolic tensors; see `compat.trace`."""
    fresh = {
        id(t): tf_keras.Input(t.shape[1:], batch_size=t.shape[0], dtype=t.dtype, name=f"input_{i}")
        for i, t in enumerate(node.inputs)
    }
    args, kwargs = tf.nest.map_structure(lambda x: fresh.get(id(x), x), (node.args, node.kwargs))
    with _graph_untouched(node.layer):
        outputs = node.layer.call(*args, **kwargs)
        return network(tf_keras.Model([fresh[id(t)] for t in node.inputs], outputs))


def trace_model(model: Any) -> Network:
    """Subclassed models of tf_keras keep no record of their inputs that could be followed."""
    raise NotImplementedError("a subclassed tf_keras model keeps no graph; build it with the functional API")


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
    return private(_bare(variable)[0], "_constraint")


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    for bare in _bare(variable):
        bare._constraint = constraint


def _bare(variable: Any) -> list[Any]:
    """The variables that hold the constraint: behind one of mixed precision, and behind one mirrored over replicas."""
    inner = getattr(variable, "_variable", variable)
    return list(getattr(inner, "values", [inner]))


def is_compiled(model: Any) -> bool:
    """Whether the model has a training step."""
    return private(model, "_is_compiled")


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
    """

    model: Any | None
    trainer: Any | None
    token: Any | None


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
            f"tf_keras {tf_keras.__version__} does not have it. Install the release that tf_lap was tested with "
            "(tf_keras 2.21), and report this."
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
    with_optimizer = [each for each, _ in [*calls, *trainers] if getattr(each, "optimizer", None) is not None]
    return Pass(model, with_optimizer[-1] if with_optimizer else None, token)


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


def moved_variables(model: Any) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit moves, by what they belong to; see `compat.fits.variables`."""
    flattened = list(model._flatten_layers())
    states = [state for layer in flattened for state in tf.nest.flatten(getattr(layer, "states", None))]
    generators = [getattr(getattr(layer, "_random_generator", None), "_generator", None) for layer in flattened]
    held = [*model.variables, *(state for state in states if isinstance(state, tf.Variable))]
    held += [generator.state for generator in generators if generator is not None]
    sections = {"the model": [*held, private(model, "_train_counter")]}
    kinds = (tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer)
    optimizers = {name: value for name, value in vars(model).items() if isinstance(value, kinds)}
    for name, optimizer in optimizers.items():
        if optimizer is model.optimizer:
            _build(optimizer, model.trainable_variables)
        sections[f"{name} ({type(optimizer).__name__})"] = _optimizer_variables(optimizer, held)
    return {section: [(v.name, _bare(v)) for v in variables] for section, variables in sections.items()}


def _build(optimizer: Any, variables: list[Any]) -> None:
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def _optimizer_variables(optimizer: Any, of_model: list[Any]) -> list[Any]:
    # An optimizer's own list lacks its learning rate and its loss scale, and slots of legacy ones are no children.
    tracked = [v for v in tf.train.TrackableView(optimizer).descendants() if isinstance(v, tf.Variable)]
    listed = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    others = {id(variable) for variable in of_model}
    return list({id(v): v for v in [*listed, *tracked] if id(v) not in others}.values())


def steps_per_execution(model: Any) -> int:
    """How many batches one call of the training function takes."""
    return int(private(model, "_steps_per_execution").numpy())


class _Start(NamedTuple):
    """What `fit` asks with which epoch and step it begins."""

    epoch: int

    def maybe_load_initial_counters_from_ckpt(self, *_: Any, **__: Any) -> tuple[int, int]:
        """The epoch and the step in it."""
        return self.epoch, 0


def fit_data(model: Any) -> Any:
    """What iterates over the data of the fit that the model is in."""
    return local_of(tf_keras.Model.fit, model, "data_handler")


def begin_with(model: Any, data: Any, first_epoch: int, epoch: int) -> int:
    """Lets the fit that is beginning start with an epoch; see the function of this name in `keras3`."""
    model._training_state = _Start(epoch)
    if private(data, "_adapter").should_recreate_iterator():
        for _ in range(epoch - first_epoch):
            iter(private(data, "_dataset"))
        return 0
    return (epoch - first_epoch) * (data.inferred_steps or 0)


def began(model: Any) -> None:
    """Lets the next fit begin where it is told to."""
    model._training_state = None
