"""`tf_lap.cost`: what a model costs, counted from its graph without running it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Layer, Model, Variable
from tf_lap.costs import Activation, CostReport, LayerCost
from tf_lap.costs.multiplications import count_positions, count_product
from tf_lap.costs.sizes import SizedModel, describe_sized
from tf_lap.costs.weights import count_bytes, count_nonzero, count_weights, weight_variables
from tf_lap.graph.composite import CompositeRule
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.registry import find_rule
from tf_lap.graph.resolver import resolve_description
from tf_lap.graph.unreached import UNUSED


def cost(model: Model, batch_size: int = 1, input_shape: Any = None) -> CostReport:
    """What a model costs: weights, bytes, multiply-accumulates and the largest activation, layer by layer.

    Nothing is run. The multiply-accumulates are those of kernels (also depthwise and recurrent ones) and of products of
    tensors, as in attention. A table that is looked up takes none, and biases, normalizations, activations and pooling
    are not counted. A layer that is used several times counts its multiply-accumulates each time, and its weights once.

    Example:

    >>> report = tf_lap.cost(model)
    >>> report.weights, report.macs
    (2778, 2720)

    Args:
        model: a built model of Keras 3 or tf_keras; pruned, or not.
        batch_size: how many samples run at once. A batch that the model was built for stays.
        input_shape: the shape of the model's input without the batch axis, where it was built with open axes; for
            several inputs a list of shapes in the model's order, or a mapping from their names.

    Raises:
        TypeError, ValueError: the model is not built, an axis of an input is open and `input_shape` does not say its
            size, or a shape or a batch size does not fit the model's.
    """
    sized = describe_sized(model, batch_size, input_shape)
    recipe = resolve_description(model, sized.description)
    ledger = _Ledger(model, sized)
    uncounted = ledger.add_kernels(recipe) | ledger.add_products(recipe) | ledger.find_unknown(recipe)
    sizes: Counter[str] = Counter()
    for variable in weight_variables(model):
        sizes[tf.as_dtype(variable.dtype).name] += count_bytes(variable)
    return CostReport(ledger.close(model), model.name, sized.batch_size, dict(sizes), ledger.largest, uncounted)


_UNKNOWN_SIZE = "the size of an axis is known only when the model runs"


@dataclasses.dataclass(eq=False)
class _Entry:
    """What is known of a layer so far; the attributes are those of `LayerCost`, and the variables it is counted for."""

    path: str
    layer: Layer
    output_shape: tuple[int | None, ...] | None = None
    uses: int = 0
    macs: int = 0
    nonzero_macs: int = 0
    activation_bytes: int = 0
    variables: list[Variable] = dataclasses.field(default_factory=list)


class _Ledger:
    """The entries of a model's layers.

    Attributes:
        largest: the largest activation.
    """

    def __init__(self, model: Model, sized: SizedModel) -> None:
        self.largest: Activation | None = None
        self._graph, self._batch_size = sized.description.graph, sized.batch_size
        self._entries: dict[int, _Entry] = {}  # by the id of the layer; one inside another may have the outer one's
        self._owners: dict[int, _Entry] = {}  # by the id of the variable
        self._weights = {id(variable) for variable in weight_variables(model)}
        self._nonzero: dict[int, int] = {}  # by the id of the variable
        own_weights = {id(entry.layer): entry.weights for entry in sized.description.layers}
        if isinstance(self._graph, compat.Graph):
            for name, tensor in zip(sized.input_names, self._graph.inputs, strict=True):
                self._note_activation(name, tensor)
            self._add_graph(self._graph, "", own_weights)
        for entry in sized.description.layers:
            self._assign(entry.path, entry.layer, entry.weights)
        self._assign(model.name, model, model.weights)

    def _add_graph(self, graph: compat.Graph, prefix: str, own_weights: Mapping[int, Sequence[Variable]]) -> None:
        """Adds entries for what a graph calls, and for what is inside of that."""
        for call in graph.calls:
            path = prefix + call.layer.name
            if isinstance(call.inside, compat.Inside):
                self._assign(path, call.layer, own_weights.get(id(call.layer), ()))
                self._add_graph(call.inside.graph, f"{path}/", own_weights)
                continue
            entry = self._open(path, call.layer)
            entry.uses += 1
            self._assign(path, call.layer, getattr(call.layer, "weights", ()))
            for tensor in call.outputs:
                entry.output_shape = entry.output_shape or tensor.shape
                entry.activation_bytes = max(entry.activation_bytes, self._note_activation(path, tensor))
            if isinstance(call.inside, compat.TimeStep):
                self._add_inside(call.inside.call, entry)

    def _add_inside(self, call: compat.LayerCall, entry: _Entry) -> None:
        """Gives what a call runs the entry of the layer around it."""
        self._entries.setdefault(id(call.layer), entry)
        if isinstance(call.inside, compat.TimeStep):
            self._add_inside(call.inside.call, entry)
        if isinstance(call.inside, compat.Inside):
            for inner in call.inside.graph.calls:
                self._add_inside(inner, entry)

    def _open(self, path: str, layer: Layer) -> _Entry:
        return self._entries.setdefault(id(layer), _Entry(path, layer))

    def _assign(self, path: str, layer: Layer, variables: Iterable[Variable]) -> None:
        """Counts weights for a layer, as far as they are not counted for another."""
        for variable in variables:
            if id(variable) in self._weights and id(variable) not in self._owners:
                entry = self._owners[id(variable)] = self._open(path, layer)
                entry.variables.append(variable)

    def _note_activation(self, path: str, tensor: compat.Tensor) -> int:
        """How many bytes a tensor takes; 0 where a size is not known."""
        sizes = [size for size in tensor.shape if size is not None]
        if len(sizes) < len(tensor.shape):
            return 0
        size = math.prod(sizes) * int(tf.as_dtype(tensor.dtype).size)
        if self.largest is None or size > self.largest.bytes:
            self.largest = Activation(path, tensor.shape, tensor.dtype, size)
        return size

    def add_kernels(self, recipe: Recipe) -> dict[str, str]:
        """Adds the multiply-accumulates of kernels; returns those that cannot be counted, by path, and why."""
        uncounted = {}
        for kernel, positions in zip(recipe.kernels, count_positions(recipe, self._batch_size), strict=True):
            entry = self._owners.get(id(kernel.variable)) or self._open(kernel.path, kernel.layer)
            if kernel.unreached_reason not in (None, UNUSED):
                uncounted[kernel.path] = str(kernel.unreached_reason)
            elif positions is None:
                uncounted[kernel.path] = _UNKNOWN_SIZE
            else:
                entry.macs += positions * count_weights(kernel.variable)
                entry.nonzero_macs += positions * self._count_nonzero(kernel.variable)
        return uncounted

    def add_products(self, recipe: Recipe) -> dict[str, str]:
        """The same of products of tensors."""
        uncounted = {}
        for product in recipe.products:
            entry, macs = self._open(product.layer.name, product.layer), count_product(product)
            if macs is None:
                uncounted[entry.path] = _UNKNOWN_SIZE
            else:
                entry.macs += macs
                entry.nonzero_macs += macs
        return uncounted

    def find_unknown(self, recipe: Recipe) -> dict[str, str]:
        """The layers that run and have weight matrices of which nobody knows what they are multiplied with; and why."""
        unknown = {}
        for path, other, matrix in recipe.other_matrices():
            entry = self._owners.get(id(matrix))
            if entry is not None and self._runs(entry) and not _acts_by_channel(entry.layer):
                unknown[path] = other.reason
        return unknown

    def _runs(self, entry: _Entry) -> bool:
        """Whether a layer is called when the model runs; what is called cannot be told where the model has no graph."""
        return entry.uses > 0 or isinstance(self._graph, compat.Unreadable)

    def _count_nonzero(self, variable: Variable) -> int:
        if id(variable) not in self._nonzero:
            self._nonzero[id(variable)] = count_nonzero(variable)
        return self._nonzero[id(variable)]

    def close(self, model: Model) -> tuple[LayerCost, ...]:
        """The costs of the layers."""
        trained = {id(variable) for variable in model.trainable_weights}
        return tuple(
            LayerCost(
                path=entry.path,
                layer_class=type(entry.layer).__name__,
                output_shape=entry.output_shape,
                uses=entry.uses,
                weights=sum(map(count_weights, entry.variables)),
                nonzero=sum(map(self._count_nonzero, entry.variables)),
                trainable=sum(count_weights(v) for v in entry.variables if id(v) in trained),
                bytes=sum(map(count_bytes, entry.variables)),
                macs=entry.macs,
                nonzero_macs=entry.nonzero_macs,
                activation_bytes=entry.activation_bytes,
            )
            for entry in {id(entry): entry for entry in self._entries.values()}.values()
        )


def _acts_by_channel(layer: Layer) -> bool:
    """Whether a layer has a rule, and so is known to multiply with nothing but its kernels."""
    rule = find_rule(layer)
    return rule is not None and not (isinstance(rule, CompositeRule) and rule.find_obstacle(layer))
