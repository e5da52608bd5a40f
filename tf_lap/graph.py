"""A Keras model becomes a recipe: its kernels and channel rules in topological order, resolved once.

Nested models are inlined, shared layers appear once for each use, and where channels cannot be followed
the recipe holds a wall with its reason. The sweep in `energy` then knows nothing of Keras.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_lap import compat
from tf_lap.channels import Boundary, Call, Signal, Transform, format_axis, require_axis
from tf_lap.kernels import KernelRule, Layout
from tf_lap.registry import find_rule
from tf_lap.tables import install_tf_keras


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel of the model.

    Attributes:
        path: the layer's path.
        layer: the layer.
        variable: its kernel.
        layout: how the kernel lies in memory.
        uses: how often the model's graph calls the layer; 0 inside a layer whose graph is not known.
        apart: why no use is known, where none is.
    """

    path: str
    layer: Any
    variable: Any = dataclasses.field(repr=False)
    layout: Layout
    uses: int
    apart: str | None = None


@dataclasses.dataclass(frozen=True)
class Read:
    """A kernel's use number `use` reads tensor `source` and puts out tensor `target`."""

    kernel: int
    use: int
    source: int
    target: int


@dataclasses.dataclass(frozen=True)
class Rule:
    """A channel rule of `layer` turns the energies of tensors `sources` into those of tensor `target`."""

    sources: tuple[int, ...]
    target: int
    transform: Transform
    layer: Any


@dataclasses.dataclass(frozen=True)
class Wall:
    """A boundary: ones are read from `sources`, and ones put into `targets`."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    reason: str


Step = Read | Rule | Wall


@dataclasses.dataclass(frozen=True)
class Other:
    """A layer with weight matrices that are no kernels to prune, and why not."""

    layer_class: str
    matrices: tuple[Any, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a model is to pruning. Tensors are numbered from 0 to `tensors` - 1.

    Attributes:
        kernels: the kernels, in topological order of their first use.
        steps: the steps, in topological order.
        inputs: the tensors that enter the network, and the names they have there.
        outputs: the tensors that leave it, and their names.
        tensors: how many tensors there are.
        others: layers with weight matrices that are no kernels, by path.
        untraced: custom layers, or the model itself, whose call could not be followed.
    """

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    inputs: dict[int, str]
    outputs: tuple[tuple[int, str], ...]
    tensors: int
    others: dict[str, Other]
    untraced: tuple[str, ...] = ()


def resolve(model: Any) -> Recipe:
    """Resolves a built Keras model into a recipe.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    compat.check_model(model)
    if compat.is_tf_keras(model):
        install_tf_keras()
    return _Resolver().model(model)


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
                self.walls[id(model)] = _untraced(model, error)
                self.untraced.append(_describe(model, ""))
        if network is not None:
            for tensor in network.inputs:
                inputs[self._tensor(Signal(tuple(tensor.shape), None))] = (
                    f"network input {compat.tensor_name(tensor)!r}"
                )
            leaving = self._network(network, list(inputs), "")
            names = [f"network output {compat.tensor_name(t)!r}" for t in network.outputs]
            outputs = list(zip(leaving, names, strict=True))
        others: dict[str, Other] = {}
        self._collect(model, "", self.walls.get(id(model), "no output depends on it"), others, set())
        return Recipe(
            tuple(self.kernels),
            tuple(self.steps),
            inputs,
            tuple(outputs),
            len(self.signals),
            others,
            tuple(self.untraced),
        )

    def _tensor(self, signal: Signal) -> int:
        self.signals.append(signal)
        return len(self.signals) - 1

    def _network(self, network: compat.Network, inputs: list[int], prefix: str) -> list[int]:
        """Appends the steps of a network that is fed the tensors `inputs`; returns the tensors it puts out."""
        known = {id(t): number for t, number in zip(network.inputs, inputs, strict=True)}
        for node in network.nodes:
            if all(id(t) in known for t in node.outputs):
                continue  # an inner tensor that serves as the network's input
            if not all(id(t) in known for t in node.inputs):
                continue  # a call in another model that shares the layer: tf_keras lists those that add a loss
            sources = [known[id(t)] for t in node.inputs]
            known.update(zip((id(t) for t in node.outputs), self._node(node, sources, prefix), strict=True))
        return [known[id(t)] for t in network.outputs]

    def _node(self, node: compat.Node, sources: list[int], prefix: str) -> list[int]:
        layer = node.layer
        rule = find_rule(layer)
        if rule is None:
            return self._composite(node, sources, prefix)
        call = Call(
            layer, tuple(self.signals[s] for s in sources), tuple(node.outputs[0].shape), node.args, node.kwargs
        )
        try:
            if len(node.outputs) > 1:
                raise Boundary("it has several outputs")
            if isinstance(rule, KernelRule):
                return [self._kernel(rule, call, sources, prefix + layer.name)]
            flow = rule(call)
        except Boundary as boundary:
            return self._wall(node, sources, _describe(layer, prefix) + f": {boundary}")
        target = self._tensor(Signal(call.output, flow.axis))
        self.steps.append(Rule(tuple(sources), target, flow.transform, layer))
        return [target]

    def _kernel(self, rule: KernelRule, call: Call, sources: list[int], path: str) -> int:
        layer = call.layer
        (source,) = sources
        unusable = rule.unusable(layer)
        if unusable:
            raise Boundary(unusable)
        axis = format_axis(layer, len(call.output))
        if rule.before is not None:
            flow = rule.before(call)
            signal = self.signals[source]
            before = self._tensor(Signal((*signal.shape[:axis], None, *signal.shape[axis + 1 :]), flow.axis))
            self.steps.append(Rule((source,), before, flow.transform, layer))
            source = before
        try:
            require_axis(self.signals[source], axis, "reads channels along")
        except Boundary as boundary:
            wall = self._tensor(Signal(self.signals[source].shape, None))
            self.steps.append(Wall((source,), (wall,), f"{type(layer).__name__} {path!r}: {boundary}"))
            source = wall
        number = self.index.get(id(layer))
        if number is None:
            number = self.index[id(layer)] = len(self.kernels)
            self.kernels.append(Kernel(self._path(path), layer, rule.kernel(layer), rule.layout(layer), 0))
        kernel = self.kernels[number]
        target = self._tensor(Signal(call.output, axis))
        self.steps.append(Read(number, kernel.uses, source, target))
        self.kernels[number] = dataclasses.replace(kernel, uses=kernel.uses + 1)
        return target

    def _composite(self, node: compat.Node, sources: list[int], prefix: str) -> list[int]:
        """A layer without a rule: a nested model is inlined; a custom layer too, where its call can be traced."""
        layer = node.layer
        inner = compat.network(layer)
        if inner is not None:
            try:
                fed = dict(zip(map(id, node.inputs), sources, strict=True))
                sources = [fed[id(tensor)] for tensor in compat.entering(node)]
            except KeyError:
                return self._wall(
                    node, sources, f"{_describe(layer, prefix)} is called with other names than its inputs"
                )
        elif compat.is_keras_own(layer):
            remedy = "" if compat.is_operation(layer) else "; register one with tf_lap.register_rule"
            return self._wall(node, sources, f"{_describe(layer, prefix)} has no channel rule{remedy}")
        else:
            try:
                inner = compat.trace(node)
            except Exception as error:  # its call is a user's code and may raise anything; the reason is kept
                self.untraced.append(_describe(layer, prefix))
                return self._wall(node, sources, f"{_describe(layer, prefix)}: {_untraced(layer, error)}")
        if len(inner.inputs) != len(sources) or len(inner.outputs) != len(node.outputs):
            return self._wall(node, sources, f"{_describe(layer, prefix)} is called otherwise than it was built")
        return self._network(inner, sources, f"{prefix}{layer.name}/")

    def _wall(self, node: compat.Node, sources: list[int], reason: str) -> list[int]:
        self.walls[id(node.layer)] = reason
        targets = [self._tensor(Signal(tuple(t.shape), None)) for t in node.outputs]
        self.steps.append(Wall(tuple(sources), tuple(targets), reason))
        return targets

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


def weight_matrices(variables: list[Any]) -> tuple[Any, ...]:
    """Those of some variables that are weight matrices: of two axes or more, and no biases."""
    return tuple(v for v in variables if len(v.shape) > 1 and "bias" not in compat.variable_name(v))


def _describe(layer: Any, prefix: str) -> str:
    return f"{type(layer).__name__} {prefix + layer.name!r}"


def _untraced(layer: Any, error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    shown = text if len(text) <= 160 else text[:160] + "..."
    remedy = f"write it with keras.ops, or give {type(layer).__name__} a rule with tf_lap.register_rule"
    return f"its call cannot be followed on symbolic tensors ({shown}); {remedy}"
