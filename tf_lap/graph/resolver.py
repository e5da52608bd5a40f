"""A Keras model becomes a recipe: its kernels and channel rules in topological order, resolved once.

Nested models are inlined, and shared layers appear once for each use. Where channels cannot be followed,
the recipe holds a boundary with its reason. The sweep in `energy` then knows nothing of Keras.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from tf_lap import compat
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.channels import Boundary, Call, ChannelRule, Flow, Signal
from tf_lap.graph.composite import CompositeRule, LayerSteps
from tf_lap.graph.describing import describe
from tf_lap.graph.energy_maps import Identity
from tf_lap.graph.flows import average_over_others
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.recipe_builder import RecipeBuilder
from tf_lap.graph.registry import find_rule
from tf_lap.graph.rule_tables import is_transparent
from tf_lap.graph.statistics import find_statistics
from tf_lap.graph.unreached import add_unreached
from tf_lap.graph.user_kernels import check_user_kernels

TensorNumbers: TypeAlias = dict[compat.Tensor, int | None]
"""The number of each symbolic tensor; None for one that carries no channels."""


def resolve(model: Model) -> Recipe:
    """Resolves a built Keras model into a recipe.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    return resolve_description(model, describe(model))


def resolve_description(model: Model, description: compat.ModelDescription) -> Recipe:
    """The recipe of a model that `describe` has read."""
    return _Resolver().resolve_model(model, description)


class _Resolver:
    """Walks the graph of a model, and of what is inside its layers, and adds to a recipe what it finds.

    Layers are named in reasons and paths by a prefix, the path of what they are in, and their name. Tensors that are
    passed about are numbers in the recipe, None for one that carries no channels: a mask, a shape, a comparison, or
    what is computed from these alone.
    """

    def __init__(self) -> None:
        self.builder = RecipeBuilder()
        self._statistics: frozenset[compat.Tensor] = frozenset()

    def resolve_model(self, model: Model, description: compat.ModelDescription) -> Recipe:
        """The recipe of a model. One whose call cannot be read has kernels, but no steps.

        Raises:
            ValueError: a kernel that a user has registered does not fit its layer.
        """
        for entry in description.layers:
            check_user_kernels(entry.layer, entry.path)
        graph = description.graph
        inputs: dict[int, str] = {}
        outputs: list[tuple[int, str]] = []
        if isinstance(graph, compat.Unreadable):
            remedy = "build it with the functional API, or say with neighbors={path: (before, after)} what follows what"
            self.builder.unreached_reasons[id(model)] = _explain_unreadable(graph, remedy)
            self.builder.untraced.append(_describe(model, ""))
        else:
            for tensor in graph.inputs:
                number = self.builder.add_tensor(Signal(tensor.shape))
                inputs[number] = f"network input {tensor.producer!r}"
            leaving = self._follow_graph(graph, list(inputs), "")
            names = [f"network output {tensor.producer!r}" for tensor in graph.outputs]
            outputs = [(number, name) for number, name in zip(leaving, names, strict=True) if number is not None]
        others = add_unreached(self.builder, description.layers, self.builder.unreached_reasons.get(id(model)))
        return self.builder.build(inputs, outputs, others)

    def _follow_graph(self, graph: compat.Graph, entering: Sequence[int | None], prefix: str) -> list[int | None]:
        """Adds the steps of a graph that the tensors `entering` enter, and returns the tensors that leave it."""
        numbers = dict(zip(graph.inputs, entering, strict=True))
        self._statistics |= find_statistics(graph)
        read_tensors = {*graph.outputs, *(tensor for call in graph.calls for tensor in call.inputs)}
        for call in graph.calls:
            if all(tensor in numbers for tensor in call.outputs):
                continue  # an inner tensor that serves as the graph's input
            if not all(tensor in numbers for tensor in call.inputs):
                continue  # a call in another model that shares the layer: tf_keras lists those that add a loss
            targets = self._follow_call(call, numbers, prefix)
            numbers.update(zip(call.outputs, targets, strict=True))
            if read_tensors.isdisjoint(call.outputs):  # such as a loss that is added
                ends = [target for target in targets if target is not None]
                self.builder.add_boundary_step(ends, [], f"{_describe(call.layer, prefix)} is read by nothing")
        return [numbers.get(tensor) for tensor in graph.outputs]

    def _follow_call(self, layer_call: compat.LayerCall, numbers: TensorNumbers, prefix: str) -> list[int | None]:
        """Adds the steps of one call, and returns its output tensors.

        Args:
            layer_call: the call.
            numbers: the numbers of all tensors that it may read.
            prefix: of the layer.
        """
        layer, rule = layer_call.layer, find_rule(layer_call.layer)
        if all(tensor.is_boolean or tensor in self._statistics for tensor in layer_call.outputs):
            self._note_measured(layer_call, numbers, prefix)
            return [None] * len(layer_call.outputs)
        if rule is None:
            return self._follow_inside(layer_call, numbers, prefix)
        if isinstance(rule, CompositeRule):
            return self._follow_composite(rule, layer_call, numbers, prefix)
        carrying = list(layer_call.arguments)[slice(*rule.signal_range)]
        sources = _find_carrying(layer_call, numbers, [name for name in carrying if not compat.is_mask_name(name)])
        if not sources:
            return self._follow_without_channels(layer_call, numbers, prefix)
        outputs = tuple(tensor.shape for tensor in layer_call.outputs)
        signals = tuple(self.builder.signals[source] for source in sources)
        call = Call(layer, signals, outputs, layer_call.arguments)
        try:
            if any(signal.axes for signal in call.inputs) and () in outputs:
                raise Boundary("puts out a tensor whose axes are not known")
            flows = rule.flow(call)
            flows = [flows] if isinstance(flows, Flow) else flows
            if len(flows) != len(outputs):
                raise Boundary(f"it has {len(outputs)} outputs")
        except Boundary as boundary:
            return self._add_boundary(layer_call, sources, f"{_describe(layer, prefix)}: {boundary}")
        self.builder.inner_reasons[id(layer)] = _explain_single_rule(layer, prefix)
        return [
            self.builder.add_rule_step(sources, shape, flow, layer) for shape, flow in zip(outputs, flows, strict=True)
        ]

    def _note_measured(self, layer_call: compat.LayerCall, numbers: TensorNumbers, prefix: str) -> None:
        """Notes that channels cannot be removed which a comparison or a statistic takes together."""
        rule = find_rule(layer_call.layer)
        for source in _find_carrying(layer_call, numbers, layer_call.arguments):
            signal = self.builder.signals[source]
            if isinstance(rule, ChannelRule):
                outputs = tuple(tensor.shape for tensor in layer_call.outputs)
                try:
                    rule.flow(Call(layer_call.layer, (signal,), outputs, layer_call.arguments))
                except Boundary as boundary:
                    self.builder.add_wall([source], f"{_describe(layer_call.layer, prefix)}: {boundary}")
            else:
                self.builder.add_wall([source], f"{_describe(layer_call.layer, prefix)} makes a mask of it")

    def _follow_composite(
        self, rule: CompositeRule, layer_call: compat.LayerCall, numbers: TensorNumbers, prefix: str
    ) -> list[int | None]:
        """Adds the steps of a call of a layer whose rule adds its own steps, and returns its output tensors."""
        layer = layer_call.layer
        carrying = list(layer_call.arguments)[slice(*rule.signal_range)]
        sources = _find_carrying(layer_call, numbers, [name for name in carrying if not compat.is_mask_name(name)])
        if not sources and not rule.has_kernels:
            return [None] * len(layer_call.outputs)
        try:
            obstacle = rule.find_obstacle(layer)
            if obstacle:
                raise Boundary(obstacle)
            carries = any(self.builder.signals[source].axes for source in sources)
            if rule.has_kernels and carries and any(tensor.shape == () for tensor in layer_call.outputs):
                raise Boundary("puts out a tensor whose axes are not known")
            targets = rule.follow(LayerSteps(layer_call, prefix + layer.name, numbers, self.builder))
        except Boundary as boundary:
            return self._add_boundary(layer_call, sources, f"{_describe(layer, prefix)}: {boundary}")
        self.builder.inner_reasons[id(layer)] = _explain_single_rule(layer, prefix)
        return targets

    def _follow_without_channels(
        self, layer_call: compat.LayerCall, numbers: TensorNumbers, prefix: str
    ) -> list[int | None]:
        """Adds the steps of a call whose rule finds no channels in the arguments that could carry some."""
        layer = layer_call.layer
        first, *others = layer_call.arguments
        sources = _find_carrying(layer_call, numbers, others)
        if sources and not layer_call.tensors[first]:
            return self._add_boundary(
                layer_call, sources, f"{_describe(layer, prefix)} is called with a constant first"
            )
        return [None] * len(layer_call.outputs)

    def _follow_inside(self, layer_call: compat.LayerCall, numbers: TensorNumbers, prefix: str) -> list[int | None]:
        """Adds the steps inside a layer without a rule: a nested model, or a custom layer whose call can be traced."""
        sources = _find_carrying(
            layer_call, numbers, [name for name in layer_call.arguments if not compat.is_mask_name(name)]
        )
        if not sources and (layer_call.is_operation or layer_call.function is not None):
            return [None] * len(layer_call.outputs)
        if isinstance(layer_call.inside, compat.TimeStep):
            return self._follow_time_step(layer_call.inside.call, layer_call, sources, prefix)
        try:
            inside, entering = self._open_layer(layer_call, numbers, prefix)
        except Boundary as boundary:
            return self._add_boundary(layer_call, sources, str(boundary))
        reason = f"{_describe(layer_call.layer, prefix)} calls it on constants alone, or not at all"
        self.builder.inner_reasons[id(layer_call.layer)] = reason
        inner_prefix = f"{prefix}{layer_call.layer.name}/"
        if not inside.is_traced:
            self.builder.tie_calls(layer_call.layer, entering)
        with self._inside_own_code(layer_call.layer, inside, prefix):
            if not inside.is_sized:
                return self._follow_graph(inside.graph, entering, inner_prefix)
            entering = self._change_sizes(entering, inside.graph.inputs, layer_call.layer)
            leaving = self._follow_graph(inside.graph, entering, inner_prefix)
            return self._change_sizes(leaving, layer_call.outputs, layer_call.layer)

    @contextlib.contextmanager
    def _inside_own_code(self, layer: Layer, inside: compat.Inside, prefix: str) -> Iterator[None]:
        """While the steps inside a layer are added: who decides how many channels there are.

        A user's layer with weights has its own code for their shapes, so no channel can be removed there. Layers of
        Keras that attend have a setting for the number of their heads, so that whole heads can.
        """
        builder = self.builder
        own_code, is_resizable, first_step = builder.own_code, builder.is_resizable, builder.count_steps()
        if is_transparent(layer):
            builder.is_resizable = True
        elif inside.is_traced and compat.weights(layer) and not own_code:
            description = _describe(layer, prefix)
            builder.own_code = f"{description} has weights whose shapes its own code says; write it as a nested model"
        try:
            yield
        finally:
            builder.own_code, builder.is_resizable = own_code, is_resizable
            if is_transparent(layer):
                builder.tie_attention(first_step, is_as_wide="output_shape" not in layer.get_config())

    def _change_sizes(
        self, numbers: Sequence[int | None], tensors: Sequence[compat.Tensor], layer: Layer
    ) -> list[int | None]:
        """The same tensors with the shapes of others: axes that are open in one of the two have sizes in the other."""
        changed: list[int | None] = []
        for number, tensor in zip(numbers, tensors, strict=True):
            if number is None:
                changed.append(None)
            else:
                axes = self.builder.signals[number].axes
                changed.append(self.builder.add_rule_step([number], tensor.shape, Flow(axes, Identity()), layer))
        return changed

    def _open_layer(
        self, layer_call: compat.LayerCall, numbers: TensorNumbers, prefix: str
    ) -> tuple[compat.Inside, list[int | None]]:
        """What is inside a layer, and the tensors that enter it.

        Raises:
            Boundary: the layer cannot be followed; its text is the whole reason.
        """
        layer, inside, description = layer_call.layer, layer_call.inside, _describe(layer_call.layer, prefix)
        if isinstance(inside, compat.Unreadable):
            if inside.error is None:
                raise Boundary(f"{description} {inside.reason}")
            self.builder.untraced.append(description)
            remedy = f"give {type(layer).__name__} a rule with tf_lap.register_rule"
            raise Boundary(f"{description}: {_explain_unreadable(inside, remedy)}") from inside.error
        if not isinstance(inside, compat.Inside):
            if layer_call.function is not None:
                raise Boundary(f"{description}: tf.{layer_call.function} has no channel rule")
            remedy = "" if layer_call.is_operation else "; tf_lap.register_rule can add one"
            raise Boundary(f"{description} has no channel rule{remedy}")
        graph = inside.graph
        if len(graph.inputs) != len(inside.entering) or len(graph.outputs) != len(layer_call.outputs):
            raise Boundary(f"{description} is called otherwise than it was built")
        masks = {
            tensor for name, tensors in layer_call.tensors.items() if compat.is_mask_name(name) for tensor in tensors
        }
        return inside, [None if tensor in masks else numbers[tensor] for tensor in inside.entering]

    def _follow_time_step(
        self, time_step: compat.LayerCall, layer_call: compat.LayerCall, sources: Sequence[int], prefix: str
    ) -> list[int | None]:
        """Adds the steps of the layer inside a TimeDistributed layer, which sees tensors without axis 1.

        Args:
            time_step: the call of the inner layer on one time step.
            layer_call: the call of the TimeDistributed layer.
            sources: the tensors that it reads.
            prefix: of the TimeDistributed layer.
        """
        layer, description = layer_call.layer, _describe(layer_call.layer, prefix)
        numbers: TensorNumbers = dict.fromkeys(time_step.inputs)
        for tensor, source in zip(time_step.inputs, sources, strict=False):  # no source where nothing carries channels
            signal = self.builder.signals[source]
            flow = average_over_others(signal, [axis for axis in signal.axes if axis != 1])
            if signal.axes == (1,):
                return self._add_boundary(layer_call, sources, f"{description}: its time steps are channels (axis 1)")
            flow = Flow(tuple(axis - 1 for axis in flow.axes), flow.energy_map)
            shape = (signal.shape[0], *signal.shape[2:])
            numbers[tensor] = self.builder.add_rule_step([source], shape, flow, layer)
        with self.builder.repeating(layer_call.outputs[0].shape[1] if layer_call.outputs[0].shape else None):
            inner_targets = self._follow_call(time_step, numbers, f"{prefix}{layer.name}/")
        targets: list[int | None] = []
        for inner_target, tensor in zip(inner_targets, layer_call.outputs, strict=True):
            if inner_target is None:
                targets.append(None)
            else:
                axes = tuple(axis + 1 for axis in self.builder.signals[inner_target].axes)
                flow = Flow(axes, Identity())
                targets.append(self.builder.add_rule_step([inner_target], tensor.shape, flow, layer))
        return targets

    def _add_boundary(self, layer_call: compat.LayerCall, sources: Sequence[int], reason: str) -> list[int | None]:
        """Makes a call a boundary, and returns its output tensors."""
        self.builder.unreached_reasons[id(layer_call.layer)] = reason
        return [*self.builder.add_boundary_step(sources, [tensor.shape for tensor in layer_call.outputs], reason)]


def _explain_single_rule(layer: Layer, prefix: str) -> str:
    """Why kernels inside a layer that has a rule are not reached."""
    return f"{_describe(layer, prefix)} has one rule for all that is inside it"


def _find_carrying(layer_call: compat.LayerCall, numbers: TensorNumbers, names: Iterable[str]) -> list[int]:
    """The tensors that carry channels in these arguments of a call."""
    tensors = (numbers[tensor] for name in names for tensor in layer_call.tensors[name])
    return [tensor for tensor in tensors if tensor is not None]


def _describe(layer: Layer, prefix: str) -> str:
    return f"{type(layer).__name__} {prefix + layer.name!r}"


def _explain_unreadable(unreadable: compat.Unreadable, remedy: str) -> str:
    """Why a call cannot be followed, and what to do: to write it otherwise, or what helps if it is to stay."""
    return f"{unreadable.reason}; write it with {unreadable.traceable_code}, or {remedy}"
