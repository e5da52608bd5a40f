"""Reads a model of either Keras into a plain description."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_lap.compat.description import (
    Graph,
    Inside,
    LayerCall,
    LayerEntry,
    ModelDescription,
    Tensor,
    TimeStep,
    Unreadable,
)
from tf_lap.compat.flavours import flavour_of
from tf_lap.compat.models import function_name, is_operation
from tf_lap.compat.nodes import Network, Node, Resize, keep_shape
from tf_lap.compat.types import KerasTensor, Layer, Model


def read_model(
    model: Model,
    has_rule: Callable[[Layer], bool],
    is_transparent: Callable[[Layer], bool],
    resize: Resize | None = None,
) -> ModelDescription:
    """Reads a built model.

    A nested model is read, and a custom layer's own `call` is run on symbolic tensors; what that leaves on layers is
    taken back. A subclassed model's `call` is run on tensors of the shapes that it was built with.

    Args:
        model: the model.
        has_rule: whether it is known what a layer does, so that it need not be looked into.
        is_transparent: whether to run the `call` of a layer of Keras's own, as that of a user's layer.
        resize: gives the shapes that the model's inputs are to have. Its own `call`, and that of each model in it, is
            run on tensors of these shapes, so that those between have sizes too. None: the graph is that which the
            model was built with.
    """
    reader = _Reader(model, has_rule, is_transparent, resize)
    return ModelDescription(reader.read_graph(model), tuple(reader.read_layers(model)))


class _Reader:
    """Reads one model. Each symbolic tensor becomes one `Tensor`, and each nested model one `Graph`."""

    def __init__(
        self,
        model: Model,
        has_rule: Callable[[Layer], bool],
        is_transparent: Callable[[Layer], bool],
        resize: Resize | None,
    ) -> None:
        self._flavour = flavour_of(model)
        self._has_rule, self._is_transparent, self._resize = has_rule, is_transparent, resize
        # By id. The Keras tensor is kept beside, so that no other one can get its id.
        self._tensors: dict[int, tuple[KerasTensor, Tensor]] = {}
        self._nested: dict[int, Graph] = {}

    def read_graph(self, model: Model) -> Graph | Unreadable:
        """The calls of the whole model."""
        network = self._flavour.network(model) if self._resize is None else None
        if network is None:
            try:
                network = self._flavour.trace_model(model, self._resize or keep_shape)
            except Exception as error:  # a user's `call` may raise anything; the error is kept
                return self._explain_untraced(error)
        return self._read_network(network)

    def read_layers(self, model: Model) -> list[LayerEntry]:
        """All layers in the model, each layer before those in it."""
        entries: list[LayerEntry] = []
        visited: set[int] = set()

        def visit(layer: Layer, prefix: str, parent: LayerEntry | None) -> None:
            for sublayer in self._flavour.sublayers(layer):
                if id(sublayer) not in visited:
                    visited.add(id(sublayer))
                    weights = tuple(self._flavour.own_weights(sublayer))
                    entries.append(LayerEntry(sublayer, prefix + sublayer.name, parent, weights))
                    visit(sublayer, f"{prefix}{sublayer.name}/", entries[-1])

        visit(model, "", None)
        return entries

    def _read_network(self, network: Network) -> Graph:
        calls = tuple(self._read_call(node) for node in network.nodes)
        return Graph(calls, self._read_tensors(network.inputs), self._read_tensors(network.outputs))

    def _read_tensors(self, tensors: tuple[KerasTensor, ...]) -> tuple[Tensor, ...]:
        return tuple(map(self._read_tensor, tensors))

    def _read_tensor(self, tensor: KerasTensor) -> Tensor:
        if id(tensor) not in self._tensors:
            dtype = tf.as_dtype(tensor.dtype).name
            description = Tensor(_read_shape(tensor), dtype, self._flavour.tensor_name(tensor))
            self._tensors[id(tensor)] = tensor, description
        return self._tensors[id(tensor)][1]

    def _read_call(self, node: Node) -> LayerCall:
        symbolic_ids = {id(tensor) for tensor in node.inputs}

        def describe(argument: Any) -> Any:
            if isinstance(argument, slice):
                return slice(*map(describe, (argument.start, argument.stop, argument.step)))
            return self._read_tensor(argument) if id(argument) in symbolic_ids else argument

        args, kwargs = self._flavour.map_structure(describe, (node.args, node.kwargs))
        arguments = _name_arguments(self._flavour.called_function(node.layer), args, kwargs)
        return LayerCall(
            layer=node.layer,
            function=function_name(node.layer),
            is_operation=is_operation(node.layer),
            is_keras_own=self._flavour.is_keras_own(node.layer),
            arguments=arguments,
            tensors={
                name: tuple(item for item in self._flavour.flatten(argument) if isinstance(item, Tensor))
                for name, argument in arguments.items()
            },
            inputs=self._read_tensors(node.inputs),
            outputs=self._read_tensors(node.outputs),
            inside=self._read_inside(node),
        )

    def _read_inside(self, node: Node) -> Inside | TimeStep | Unreadable | None:
        layer = node.layer
        if self._has_rule(layer) or all(tensor.is_boolean for tensor in self._read_tensors(node.outputs)):
            return None
        step_layer = self._flavour.time_step_layer(layer)
        if step_layer is not None:
            return TimeStep(self._read_call(self._make_time_step(node, step_layer)))
        network = self._flavour.network(layer) if self._resize is None else None
        if network is not None:
            try:
                entering = self._read_tensors(self._flavour.entering(node))
            except KeyError:
                return Unreadable("is called with other names than its inputs")
            if id(layer) not in self._nested:
                self._nested[id(layer)] = self._read_network(network)
            return Inside(self._nested[id(layer)], entering)
        is_own = function_name(layer) is not None or self._flavour.is_keras_own(layer)
        if is_own and not self._is_transparent(layer):
            return None
        entering = self._read_tensors(_drop_repeated(node.inputs))
        try:
            return Inside(self._read_network(self._trace(node)), entering, is_traced=True)
        except Exception as error:  # a user's `call` may raise anything
            if not any(None in tensor.shape for tensor in entering):
                return self._explain_untraced(error)
        # A `call` may reckon with the sizes of its tensors, which Keras knows only when the model runs.
        try:
            return Inside(self._read_network(self._trace(node, _SIZE)), entering, is_sized=True, is_traced=True)
        except Exception as error:  # likewise; the error is kept
            return self._explain_untraced(error)

    def _trace(self, node: Node, size: int | None = None) -> Network:
        """Runs a custom layer's `call` on fresh symbolic tensors, and returns the graph of what it does.

        Args:
            node: a call of the layer.
            size: the size of the axes that are open, the batch axis among them; None where they stay open.

        Raises:
            Exception: whatever `call` raises on symbolic tensors, for example where it uses raw TensorFlow ops in
                Keras 3.
        """
        inputs = _drop_repeated(node.inputs)
        by_id = {
            id(tensor): self._flavour.new_input(
                [size if extent is None else extent for extent in _read_shape(tensor)] if size else tensor.shape,
                tensor.dtype,
                place,
            )
            for place, tensor in enumerate(inputs)
        }
        args, kwargs = self._flavour.map_structure(lambda x: by_id.get(id(x), x), (node.args, node.kwargs))
        return self._flavour.trace_call(node.layer, tuple(by_id.values()), args, kwargs)

    def _make_time_step(self, node: Node, layer: Layer) -> Node:
        """The call of the layer inside a TimeDistributed layer, on new tensors without the time axis (axis 1)."""
        read = self._flavour.flatten(node.args[0] if node.args else node.kwargs["inputs"])
        inputs, outputs = (
            tuple(
                self._flavour.new_input((t.shape[0], *t.shape[2:]), t.dtype, place) for place, t in enumerate(tensors)
            )
            for tensors in (read, node.outputs)
        )
        return Node(layer, inputs, outputs, inputs)

    def _explain_untraced(self, error: Exception) -> Unreadable:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        excerpt = text if len(text) <= 160 else text[:160] + "..."
        reason = f"its call cannot be followed on symbolic tensors ({excerpt})"
        return Unreadable(reason, error, self._flavour.TRACEABLE_CODE)


_SIZE = 4
"""The size of open axes where a `call` needs one. Channels lie on other axes; a constant that the `call` makes for the
positions on these, and multiplies with, counts with its mean square over so many."""


def _drop_repeated(tensors: tuple[KerasTensor, ...]) -> tuple[KerasTensor, ...]:
    """The tensors, each once: attention is often called with one tensor as query, key and value."""
    return tuple({id(tensor): tensor for tensor in tensors}.values())


def _read_shape(tensor: KerasTensor) -> tuple[int | None, ...]:
    """The shape of a symbolic tensor; empty where its number of axes is not known."""
    extents = tensor.shape
    return () if getattr(extents, "rank", 0) is None else tuple(extents)


def _name_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, in the order of the function's signature, defaults among them."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # a subclass may be called with more than the `call` that it shows
        return {str(i): value for i, value in enumerate((*args, *kwargs.values()))}
    bound.apply_defaults()
    by_name: dict[str, Any] = {}
    for name, argument in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            by_name.update((f"{name}[{i}]", item) for i, item in enumerate(argument))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            by_name.update(argument)
        else:
            by_name[name] = argument
    return by_name
