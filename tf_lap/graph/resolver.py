"""A Keras model becomes a recipe: its kernels and channel rules in topological order, resolved once.

Nested models are inlined, shared layers appear once for each use, and where channels cannot be followed
the recipe holds a wall with its reason. The sweep in `energy` then knows nothing of Keras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from tf_lap import compat
from tf_lap.graph.channels import (
    Boundary,
    Call,
    Flow,
    Shape,
    Signal,
    averaged,
    format_axis,
    on_axis,
)
from tf_lap.graph.energy_maps import Identity
from tf_lap.graph.kernels import KernelRule, weight_matrices
from tf_lap.graph.model_graph import Kernel as Kernel
from tf_lap.graph.model_graph import Other as Other
from tf_lap.graph.model_graph import Read as Read
from tf_lap.graph.model_graph import Recipe as Recipe
from tf_lap.graph.model_graph import Rule as Rule
from tf_lap.graph.model_graph import Step as Step
from tf_lap.graph.model_graph import Wall as Wall
from tf_lap.graph.registry import find_rule
from tf_lap.graph.rule_tables import install_tf_keras

Known = dict[int, int | None]
"""The number of each symbolic tensor, by its id; None for one that carries no channels."""


def resolve(model: Any) -> Recipe:
    """Resolves a built Keras model into a recipe.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    compat.check_model(model)
    if compat.is_tf_keras(model):
        install_tf_keras()
    return _Resolver().model(model)


_NO_CHANNELS = "what it reads carries no channels: a mask, a shape or a comparison"
_NOT_READ = "what it puts out serves as a mask, a bound or a shape only"


class _Resolver:
    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self.steps: list[Step] = []
        self.kernels: list[Kernel] = []
        self.index: dict[int, int] = {}  # id of a kernel layer -> its kernel
        self.walls: dict[int, str] = {}  # id of a layer that is a wall -> why
        self.paths: set[str] = set()
        self.untraced: list[str] = []

    def model(self, model: Any) -> Recipe:
        network = compat.network(model)
        inputs: dict[int, str] = {}
        outputs: list[tuple[int, str]] = []
        if network is None:
            try:
                network = compat.trace_model(model)
            except Exception as error:  # its call is a user's code and may raise anything; the reason is kept
                remedy = (
                    "build it with the functional API, or say with neighbors={path: (before, after)} what follows what"
                )
                self.walls[id(model)] = _untraced(model, error, remedy)
                self.untraced.append(_describe(model, ""))
        if network is not None:
            for tensor in network.inputs:
                inputs[self._tensor(Signal(compat.shape(tensor)))] = f"network input {compat.tensor_name(tensor)!r}"
            leaving = self._network(network, list(inputs), "")
            names = [f"network output {compat.tensor_name(t)!r}" for t in network.outputs]
            outputs = [(tensor, name) for tensor, name in zip(leaving, names, strict=True) if tensor is not None]
        others: dict[str, Other] = {}
        self._collect(model, "", self.walls.get(id(model), "no output depends on it"), others, set())
        return Recipe(
            tuple(self.kernels),
            tuple(self._needed(tensor for tensor, _ in outputs)),
            inputs,
            tuple(outputs),
            len(self.signals),
            others,
            tuple(self.untraced),
        )

    def _needed(self, outputs: Iterable[int]) -> list[Step]:
        """The steps that lead to an end of the network or to a kernel; what leads to masks and shapes alone is none.

        A kernel's output that leads nowhere else ends there, with a reason.
        """
        needed, steps = set(outputs), []
        for step in reversed(self.steps):
            match step:
                case Read():
                    if step.target not in needed:
                        steps.append(Wall((step.target,), (), f"{_kernel_path(self.kernels, step)}: {_NOT_READ}"))
                    needed.add(step.source)
                    steps.append(step)
                case Rule():
                    if step.target in needed:
                        needed.update(step.sources)
                        steps.append(step)
                case Wall():
                    if not step.targets or needed.intersection(step.targets):
                        needed.update(step.sources)
                        steps.append(step)
        return steps[::-1]

    def _tensor(self, signal: Signal) -> int:
        self.signals.append(signal)
        return len(self.signals) - 1

    def _network(self, network: compat.Network, inputs: list[int | None], prefix: str) -> list[int | None]:
        """Appends the steps of a network that is fed the tensors `inputs`; returns the tensors it puts out.

        None stands for a tensor that carries no channels: a mask, a shape, a comparison, what is made of these alone.
        """
        known = {id(t): number for t, number in zip(network.inputs, inputs, strict=True)}
        read = {id(t) for t in (*network.outputs, *(t for node in network.nodes for t in node.inputs))}
        for node in network.nodes:
            if all(id(t) in known for t in node.outputs):
                continue  # an inner tensor that serves as the network's input
            if not all(id(t) in known for t in node.inputs):
                continue  # a call in another model that shares the layer: tf_keras lists those that add a loss
            targets = self._node(node, known, prefix)
            known.update(zip((id(t) for t in node.outputs), targets, strict=True))
            if not any(id(t) in read for t in node.outputs):  # an end of its own, as a loss that is added
                ends = tuple(target for target in targets if target is not None)
                self.steps.append(Wall(ends, (), f"{_describe(node.layer, prefix)} is read by nothing"))
        return [known[id(t)] for t in network.outputs]

    def _node(self, node: compat.Node, known: Known, prefix: str) -> list[int | None]:
        layer, rule = node.layer, find_rule(node.layer)
        if all(map(compat.is_boolean, node.outputs)):
            return [None] * len(node.outputs)
        if rule is None:
            return self._composite(node, known, prefix)
        arguments = compat.arguments(node)
        carrying = list(arguments)[slice(*rule.arguments)]
        sources = _carried(node, known, [arguments[name] for name in carrying if not _is_mask(name)])
        if not sources:
            return self._source(node, known, prefix)
        outputs = tuple(compat.shape(t) for t in node.outputs)
        call = Call(layer, tuple(self.signals[s] for s in sources), outputs, arguments)
        try:
            if any(signal.axes for signal in call.inputs) and () in outputs:
                raise Boundary("puts out a tensor whose axes are not known")
            if isinstance(rule, KernelRule):
                return [self._kernel(rule, call, sources[0], prefix + layer.name)]
            flows = rule.flow(call)
            flows = [flows] if isinstance(flows, Flow) else list(flows)
            if len(flows) != len(outputs):
                raise Boundary(f"it has {len(outputs)} outputs")
        except Boundary as boundary:
            return self._wall(node, sources, _describe(layer, prefix) + f": {boundary}")
        self.walls[id(layer)] = f"{_describe(layer, prefix)} has one rule for all that is inside it"
        targets = [self._tensor(Signal(shape, flow.axes)) for shape, flow in zip(outputs, flows, strict=True)]
        self.steps += [
            Rule(tuple(sources), target, flow.energy_map, layer) for target, flow in zip(targets, flows, strict=True)
        ]
        return list(targets)

    def _source(self, node: compat.Node, known: Known, prefix: str) -> list[int | None]:
        """A call none of whose arguments that could carry channels does."""
        rule, arguments = find_rule(node.layer), compat.arguments(node)
        if isinstance(rule, KernelRule):
            shape = compat.shape(node.inputs[0])
            source = self._tensor(Signal(shape))
            path = prefix + node.layer.name
            self.steps.append(Wall((), (source,), f"{type(node.layer).__name__} {path!r}: {_NO_CHANNELS}"))
            call = Call(node.layer, (self.signals[source],), (compat.shape(node.outputs[0]),), arguments)
            return [self._kernel(rule, call, source, path)]
        first, *others = arguments.values()
        sources = _carried(node, known, others)
        if sources and not compat.symbolic(node, first):
            return self._wall(node, sources, f"{_describe(node.layer, prefix)} is called with a constant first")
        return [None] * len(node.outputs)

    def _kernel(self, rule: KernelRule, call: Call, source: int, path: str) -> int:
        layer = call.layer
        unusable = rule.unusable(layer)
        if unusable:
            raise Boundary(unusable)
        if rule.before is not None:
            source = self._applied(rule.before(call), source, _widened(call, rule), layer)
        try:
            axis = format_axis(layer, len(self.signals[source].shape))
            flow = on_axis(self.signals[source], axis, "reads channels along")
        except Boundary as boundary:
            wall = self._tensor(Signal(self.signals[source].shape))
            self.steps.append(Wall((source,), (wall,), f"{type(layer).__name__} {path!r}: {boundary}"))
            source = wall
        else:
            if flow.axes != self.signals[source].axes:
                source = self._applied(flow, source, self.signals[source].shape, layer)
        number = self.index.get(id(layer))
        if number is None:
            number = self.index[id(layer)] = len(self.kernels)
            self.kernels.append(Kernel(self._path(path), layer, rule.kernel(layer), rule.layout(layer), 0))
        kernel = self.kernels[number]
        target = self._tensor(Signal(call.output, (format_axis(layer, len(call.output)),)))
        self.steps.append(Read(number, kernel.uses, source, target))
        self.kernels[number] = dataclasses.replace(kernel, uses=kernel.uses + 1)
        return target

    def _applied(self, flow: Flow, source: int, shape: Shape, layer: Any) -> int:
        target = self._tensor(Signal(shape, flow.axes))
        self.steps.append(Rule((source,), target, flow.energy_map, layer))
        return target

    def _composite(self, node: compat.Node, known: Known, prefix: str) -> list[int | None]:
        """A layer without a rule: a nested model is inlined; a custom layer too, where its call can be traced."""
        layer, arguments = node.layer, compat.arguments(node)
        sources = _carried(node, known, [value for name, value in arguments.items() if not _is_mask(name)])
        function = compat.function_name(layer)
        if not sources and (compat.is_operation(layer) or function is not None):
            return [None] * len(node.outputs)
        step = compat.per_step(node)
        if step is not None:
            return self._per_step(step, node, sources, prefix)
        inner = compat.network(layer)
        if inner is not None:
            try:
                entering: list[int | None] = [known[id(tensor)] for tensor in compat.entering(node)]
            except KeyError:
                return self._wall(
                    node, sources, f"{_describe(layer, prefix)} is called with other names than its inputs"
                )
        elif function is not None:
            return self._wall(node, sources, f"{_describe(layer, prefix)}: tf.{function} has no channel rule")
        elif compat.is_keras_own(layer):
            remedy = "" if compat.is_operation(layer) else "; register one with tf_lap.register_rule"
            return self._wall(node, sources, f"{_describe(layer, prefix)} has no channel rule{remedy}")
        else:
            try:
                inner = compat.trace(node)
            except Exception as error:  # its call is a user's code and may raise anything; the reason is kept
                self.untraced.append(_describe(layer, prefix))
                remedy = f"give {type(layer).__name__} a rule with tf_lap.register_rule"
                return self._wall(node, sources, f"{_describe(layer, prefix)}: {_untraced(layer, error, remedy)}")
            masks = {id(t) for name, value in arguments.items() if _is_mask(name) for t in compat.symbolic(node, value)}
            entering = [None if id(tensor) in masks else known[id(tensor)] for tensor in node.inputs]
        if len(inner.inputs) != len(entering) or len(inner.outputs) != len(node.outputs):
            return self._wall(node, sources, f"{_describe(layer, prefix)} is called otherwise than it was built")
        return self._network(inner, entering, f"{prefix}{layer.name}/")

    def _per_step(self, step: compat.Node, node: compat.Node, sources: list[int], prefix: str) -> list[int | None]:
        """The layer inside a TimeDistributed layer, which sees one time step after another: axis 1 is not there."""
        entering: Known = dict.fromkeys(map(id, step.inputs))
        for tensor, source in zip(step.inputs, sources, strict=False):  # no source where nothing carries channels
            signal = self.signals[source]
            flow = averaged(signal, [a for a in signal.axes if a != 1])
            if signal.axes == (1,):
                return self._wall(
                    node, sources, f"{_describe(node.layer, prefix)}: its time steps are channels (axis 1)"
                )
            flow = Flow(tuple(a - 1 for a in flow.axes), flow.energy_map)
            entering[id(tensor)] = self._applied(flow, source, (signal.shape[0], *signal.shape[2:]), node.layer)
        leaving = []
        for inner, tensor in zip(self._node(step, entering, f"{prefix}{node.layer.name}/"), node.outputs, strict=True):
            if inner is not None:
                axes = tuple(a + 1 for a in self.signals[inner].axes)
                inner = self._applied(Flow(axes, Identity()), inner, compat.shape(tensor), node.layer)
            leaving.append(inner)
        return leaving

    def _wall(self, node: compat.Node, sources: list[int], reason: str) -> list[int | None]:
        self.walls[id(node.layer)] = reason
        targets = [self._tensor(Signal(compat.shape(t))) for t in node.outputs]
        self.steps.append(Wall(tuple(sources), tuple(targets), reason))
        return list(targets)

    def _path(self, path: str) -> str:
        """Layers held in a list of a custom layer may share a name: later ones are numbered."""
        number, unique = 2, path
        while unique in self.paths:
            unique, number = f"{path}:{number}", number + 1
        self.paths.add(unique)
        return unique

    def _collect(self, layer: Any, prefix: str, apart: str, others: dict[str, Other], seen: set[int]) -> None:
        """Finds what no step reaches: kernels inside walls, and weight matrices that are no kernels."""
        for sub in compat.sublayers(layer):
            if id(sub) in seen:
                continue
            seen.add(id(sub))
            path, reason = prefix + sub.name, self.walls.get(id(sub), apart)
            rule = find_rule(sub)
            if isinstance(rule, KernelRule) and id(sub) not in self.index:
                unusable = rule.unusable(sub)
                if unusable is None:
                    self.index[id(sub)] = len(self.kernels)
                    self.kernels.append(Kernel(self._path(path), sub, rule.kernel(sub), rule.layout(sub), 0, reason))
                else:
                    matrices = weight_matrices(compat.own_weights(sub))
                    others[self._path(path)] = Other(type(sub).__name__, matrices, unusable)
            else:
                self._other(sub, path, rule, others)
            self._collect(sub, path + "/", reason, others, seen)

    def _other(self, layer: Any, path: str, rule: Any, others: dict[str, Other]) -> None:
        name = type(layer).__name__
        own = compat.own_weights(layer)
        if isinstance(rule, KernelRule):
            own = [v for v in own if v is not rule.kernel(layer)]
        matrices = weight_matrices(own)
        if not matrices:
            return
        reason = f"the weights of a {name} act on one channel each" if rule else f"{name} has no kernel rule"
        if isinstance(rule, KernelRule):
            path = f"{path}/{compat.variable_name(matrices[0])}"
            reason = reason if rule.before else f"a {name} has one kernel to prune, and this is another weight of it"
        others[self._path(path)] = Other(name, matrices, reason)


def _kernel_path(kernels: list[Kernel], read: Read) -> str:
    kernel = kernels[read.kernel]
    return f"{type(kernel.layer).__name__} {kernel.path!r}"


def _is_mask(name: str) -> bool:
    """Whether an argument of a layer's `call` is a mask, by the names that both kinds of Keras go by themselves."""
    return name == "mask" or name.endswith("_mask")


def _carried(node: compat.Node, known: Known, values: list[Any]) -> list[int]:
    """The tensors in these arguments of a call that carry channels."""
    numbers = (known[id(tensor)] for value in values for tensor in compat.symbolic(node, value))
    return [number for number in numbers if number is not None]


def _widened(call: Call, rule: KernelRule) -> Shape:
    """The shape of what a separable convolution's kernel reads: its input with a depth multiplier's channels."""
    shape = list(call.inputs[0].shape)
    shape[format_axis(call.layer, len(shape))] = rule.layout(call.layer).inputs
    return tuple(shape)


def _describe(layer: Any, prefix: str) -> str:
    return f"{type(layer).__name__} {prefix + layer.name!r}"


def _untraced(layer: Any, error: Exception, remedy: str) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    shown = text if len(text) <= 160 else text[:160] + "..."
    rewritten = f"write it with {compat.traceable_code(layer)}"
    return f"its call cannot be followed on symbolic tensors ({shown}); {rewritten}, or {remedy}"
