"""A Keras model becomes a recipe: its kernels and channel rules in topological order, resolved once.

Nested models are inlined, and shared layers appear once for each use. Where channels cannot be followed,
the recipe holds a boundary with its reason. The sweep in `energy` then knows nothing of Keras.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from tf_lap import compat
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.channels import Boundary, Call, Flow, Shape, Signal, format_axis
from tf_lap.graph.energy_maps import Identity
from tf_lap.graph.flows import average_over_others, reduce_to_axis
from tf_lap.graph.kernels import KernelRule
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.recipe_builder import RecipeBuilder
from tf_lap.graph.registry import find_rule
from tf_lap.graph.rule_tables import install_tf_keras
from tf_lap.graph.unreached import add_unreached

TensorNumbers: TypeAlias = dict[int, int | None]
"""The number of each symbolic tensor, by its id; None for one that carries no channels."""


def resolve(model: Model) -> Recipe:
    """Resolves a built Keras model into a recipe.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    compat.check_model(model)
    if compat.is_tf_keras(model):
        install_tf_keras()
    return _Resolver().resolve_model(model)


class _Resolver:
    """Walks the graph of a model, and of what is inside its layers, and adds to a recipe what it finds.

    Layers are named in reasons and paths by a prefix, the path of what they are in, and their name. Tensors that are
    passed about are numbers in the recipe, None for one that carries no channels: a mask, a shape, a comparison, or
    what is computed from these alone.
    """

    def __init__(self) -> None:
        self.builder = RecipeBuilder()

    def resolve_model(self, model: Model) -> Recipe:
        """The recipe of a model. One whose call cannot be followed has kernels, but no steps."""
        network = compat.network(model)
        inputs: dict[int, str] = {}
        outputs: list[tuple[int, str]] = []
        if network is None:
            try:
                network = compat.trace_model(model)
            except Exception as error:  # a user's `call` may raise anything; the reason is kept
                remedy = (
                    "build it with the functional API, or say with neighbors={path: (before, after)} what follows what"
                )
                self.builder.unreached_reasons[id(model)] = _explain_untraced(model, error, remedy)
                self.builder.untraced.append(_describe(model, ""))
        if network is not None:
            for tensor in network.inputs:
                number = self.builder.add_tensor(Signal(compat.shape(tensor)))
                inputs[number] = f"network input {compat.tensor_name(tensor)!r}"
            leaving = self._follow_network(network, list(inputs), "")
            names = [f"network output {compat.tensor_name(tensor)!r}" for tensor in network.outputs]
            outputs = [(number, name) for number, name in zip(leaving, names, strict=True) if number is not None]
        others = add_unreached(self.builder, model)
        return self.builder.build(inputs, outputs, others)

    def _follow_network(self, network: compat.Network, entering: Sequence[int | None], prefix: str) -> list[int | None]:
        """Adds the steps of a network that the tensors `entering` enter, and returns the tensors that leave it."""
        numbers = {id(tensor): number for tensor, number in zip(network.inputs, entering, strict=True)}
        read_tensors = (*network.outputs, *(tensor for node in network.nodes for tensor in node.inputs))
        read_ids = {id(tensor) for tensor in read_tensors}
        for node in network.nodes:
            if all(id(tensor) in numbers for tensor in node.outputs):
                continue  # an inner tensor that serves as the network's input
            if not all(id(tensor) in numbers for tensor in node.inputs):
                continue  # a call in another model that shares the layer: tf_keras lists those that add a loss
            targets = self._follow_node(node, numbers, prefix)
            numbers.update(zip((id(tensor) for tensor in node.outputs), targets, strict=True))
            if not any(id(tensor) in read_ids for tensor in node.outputs):  # such as a loss that is added
                ends = [target for target in targets if target is not None]
                self.builder.add_boundary_step(ends, [], f"{_describe(node.layer, prefix)} is read by nothing")
        return [numbers[id(tensor)] for tensor in network.outputs]

    def _follow_node(self, node: compat.Node, numbers: TensorNumbers, prefix: str) -> list[int | None]:
        """Adds the steps of one call, and returns its output tensors.

        Args:
            node: the call.
            numbers: the numbers of all tensors that it may read.
            prefix: of the layer.
        """
        layer, rule = node.layer, find_rule(node.layer)
        if all(map(compat.is_boolean, node.outputs)):
            return [None] * len(node.outputs)
        if rule is None:
            return self._follow_inside(node, numbers, prefix)
        arguments = compat.arguments(node)
        carrying = list(arguments)[slice(*rule.signal_range)]
        sources = _find_carrying(node, numbers, [arguments[name] for name in carrying if not _is_mask(name)])
        if not sources:
            return self._follow_without_channels(node, numbers, prefix)
        outputs = tuple(compat.shape(tensor) for tensor in node.outputs)
        call = Call(layer, tuple(self.builder.signals[source] for source in sources), outputs, arguments)
        try:
            if any(signal.axes for signal in call.inputs) and () in outputs:
                raise Boundary("puts out a tensor whose axes are not known")
            if isinstance(rule, KernelRule):
                return [self._follow_kernel(rule, call, sources[0], prefix + layer.name)]
            flows = rule.flow(call)
            flows = [flows] if isinstance(flows, Flow) else flows
            if len(flows) != len(outputs):
                raise Boundary(f"it has {len(outputs)} outputs")
        except Boundary as boundary:
            return self._add_boundary(node, sources, f"{_describe(layer, prefix)}: {boundary}")
        reason = f"{_describe(layer, prefix)} has one rule for all that is inside it"
        self.builder.unreached_reasons[id(layer)] = reason
        return [
            self.builder.add_rule_step(sources, shape, flow, layer) for shape, flow in zip(outputs, flows, strict=True)
        ]

    def _follow_without_channels(self, node: compat.Node, numbers: TensorNumbers, prefix: str) -> list[int | None]:
        """Adds the steps of a call whose rule finds no channels in the arguments that could carry some."""
        layer, rule, arguments = node.layer, find_rule(node.layer), compat.arguments(node)
        if isinstance(rule, KernelRule):
            path = prefix + layer.name
            reason = (
                f"{type(layer).__name__} {path!r}: what it reads carries no channels: a mask, a shape or a comparison"
            )
            (source,) = self.builder.add_boundary_step([], [compat.shape(node.inputs[0])], reason)
            call = Call(layer, (self.builder.signals[source],), (compat.shape(node.outputs[0]),), arguments)
            return [self._follow_kernel(rule, call, source, path)]
        first, *others = arguments.values()
        sources = _find_carrying(node, numbers, others)
        if sources and not compat.symbolic(node, first):
            return self._add_boundary(node, sources, f"{_describe(layer, prefix)} is called with a constant first")
        return [None] * len(node.outputs)

    def _follow_kernel(self, rule: KernelRule, call: Call, source: int, path: str) -> int:
        """Adds a use of a kernel, and what comes before it, and returns the tensor that it puts out.

        Args:
            rule: the rule of the layer's class.
            call: the call of the layer.
            source: the tensor that the layer reads.
            path: the layer's path.

        Raises:
            Boundary: the kernel cannot be pruned.
        """
        layer = call.layer
        obstacle = rule.find_obstacle(layer)
        if obstacle:
            raise Boundary(obstacle)
        if rule.input_rule is not None:
            shape = _widen(call.inputs[0].shape, rule, layer)
            source = self.builder.add_rule_step([source], shape, rule.input_rule(call), layer)
        signal = self.builder.signals[source]
        try:
            flow = reduce_to_axis(signal, format_axis(layer, len(signal.shape)), "reads channels along")
        except Boundary as boundary:
            reason = f"{type(layer).__name__} {path!r}: {boundary}"
            (source,) = self.builder.add_boundary_step([source], [signal.shape], reason)
        else:
            if flow.axes != signal.axes:
                source = self.builder.add_rule_step([source], signal.shape, flow, layer)
        number = self.builder.find_kernel(layer)
        if number is None:
            number = self.builder.add_kernel(rule, layer, path)
        return self.builder.add_kernel_step(
            number, source, Signal(call.output, (format_axis(layer, len(call.output)),))
        )

    def _follow_inside(self, node: compat.Node, numbers: TensorNumbers, prefix: str) -> list[int | None]:
        """Adds the steps inside a layer without a rule: a nested model, or a custom layer whose call can be traced."""
        layer, arguments = node.layer, compat.arguments(node)
        signals = [value for name, value in arguments.items() if not _is_mask(name)]
        sources = _find_carrying(node, numbers, signals)
        if not sources and (compat.is_operation(layer) or compat.function_name(layer) is not None):
            return [None] * len(node.outputs)
        time_step = compat.per_step(node)
        if time_step is not None:
            return self._follow_time_step(time_step, node, sources, prefix)
        try:
            network, entering = self._open_layer(node, numbers, prefix)
        except Boundary as boundary:
            return self._add_boundary(node, sources, str(boundary))
        return self._follow_network(network, entering, f"{prefix}{layer.name}/")

    def _open_layer(
        self, node: compat.Node, numbers: TensorNumbers, prefix: str
    ) -> tuple[compat.Network, list[int | None]]:
        """The network inside a layer, and the tensors that enter it.

        Raises:
            Boundary: the layer cannot be followed; its text is the whole reason.
        """
        layer, description = node.layer, _describe(node.layer, prefix)
        network, function = compat.network(layer), compat.function_name(layer)
        entering: list[int | None]
        if network is not None:
            try:
                entering = [numbers[id(tensor)] for tensor in compat.entering(node)]
            except KeyError as error:
                raise Boundary(f"{description} is called with other names than its inputs") from error
        elif function is not None:
            raise Boundary(f"{description}: tf.{function} has no channel rule")
        elif compat.is_keras_own(layer):
            remedy = "" if compat.is_operation(layer) else "; tf_lap.register_rule can add one"
            raise Boundary(f"{description} has no channel rule{remedy}")
        else:
            try:
                network = compat.trace(node)
            except Exception as error:  # a user's `call` may raise anything; the reason is kept
                self.builder.untraced.append(description)
                remedy = f"give {type(layer).__name__} a rule with tf_lap.register_rule"
                raise Boundary(f"{description}: {_explain_untraced(layer, error, remedy)}") from error
            masks = [value for name, value in compat.arguments(node).items() if _is_mask(name)]
            mask_ids = {id(tensor) for mask in masks for tensor in compat.symbolic(node, mask)}
            entering = [None if id(tensor) in mask_ids else numbers[id(tensor)] for tensor in node.inputs]
        if len(network.inputs) != len(entering) or len(network.outputs) != len(node.outputs):
            raise Boundary(f"{description} is called otherwise than it was built")
        return network, entering

    def _follow_time_step(
        self, time_step: compat.Node, node: compat.Node, sources: Sequence[int], prefix: str
    ) -> list[int | None]:
        """Adds the steps of the layer inside a TimeDistributed layer, which sees tensors without axis 1.

        Args:
            time_step: the call of the inner layer on one time step.
            node: the call of the TimeDistributed layer.
            sources: the tensors that it reads.
            prefix: of the TimeDistributed layer.
        """
        layer, description = node.layer, _describe(node.layer, prefix)
        numbers: TensorNumbers = dict.fromkeys(map(id, time_step.inputs))
        for tensor, source in zip(time_step.inputs, sources, strict=False):  # no source where nothing carries channels
            signal = self.builder.signals[source]
            flow = average_over_others(signal, [axis for axis in signal.axes if axis != 1])
            if signal.axes == (1,):
                return self._add_boundary(node, sources, f"{description}: its time steps are channels (axis 1)")
            flow = Flow(tuple(axis - 1 for axis in flow.axes), flow.energy_map)
            shape = (signal.shape[0], *signal.shape[2:])
            numbers[id(tensor)] = self.builder.add_rule_step([source], shape, flow, layer)
        inner_targets = self._follow_node(time_step, numbers, f"{prefix}{layer.name}/")
        targets: list[int | None] = []
        for inner_target, tensor in zip(inner_targets, node.outputs, strict=True):
            if inner_target is None:
                targets.append(None)
            else:
                axes = tuple(axis + 1 for axis in self.builder.signals[inner_target].axes)
                flow = Flow(axes, Identity())
                targets.append(self.builder.add_rule_step([inner_target], compat.shape(tensor), flow, layer))
        return targets

    def _add_boundary(self, node: compat.Node, sources: Sequence[int], reason: str) -> list[int | None]:
        """Makes a call a boundary, and returns its output tensors."""
        self.builder.unreached_reasons[id(node.layer)] = reason
        return [*self.builder.add_boundary_step(sources, list(map(compat.shape, node.outputs)), reason)]


def _is_mask(name: str) -> bool:
    """Whether an argument of a layer's `call` is a mask, by the names that both Kerases give masks."""
    return name == "mask" or name.endswith("_mask")


def _find_carrying(node: compat.Node, numbers: TensorNumbers, values: Iterable[Any]) -> list[int]:
    """The tensors in these arguments of a call that carry channels."""
    tensors = (numbers[id(tensor)] for value in values for tensor in compat.symbolic(node, value))
    return [tensor for tensor in tensors if tensor is not None]


def _widen(shape: Shape, rule: KernelRule, layer: Layer) -> Shape:
    """The shape of what a separable convolution's kernel reads: its depth multiplier adds channels to the input."""
    sizes = list(shape)
    sizes[format_axis(layer, len(sizes))] = rule.layout(layer).inputs
    return tuple(sizes)


def _describe(layer: Layer, prefix: str) -> str:
    return f"{type(layer).__name__} {prefix + layer.name!r}"


def _explain_untraced(layer: Layer, error: Exception, remedy: str) -> str:
    """Why a call cannot be followed, and what to do.

    Args:
        layer: the layer or model.
        error: what its call raised.
        remedy: what to do if the call is to stay.
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    excerpt = text if len(text) <= 160 else text[:160] + "..."
    rewrite = f"write it with {compat.traceable_code(layer)}"
    return f"its call cannot be followed on symbolic tensors ({excerpt}); {rewrite}, or {remedy}"
