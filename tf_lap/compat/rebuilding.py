"""A model of either Keras, made anew layer by layer: with new weights, and where wanted with other settings."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lap.compat.flavours import flavour_of
from tf_lap.compat.models import is_model, is_operation, parts
from tf_lap.compat.nodes import Network, Node
from tf_lap.compat.types import KerasTensor, Layer, Model, Variable
from tf_lap.compat.variables import variable_name

FindSettings = Callable[[Layer], Mapping[str, Any]]
"""Given a layer or operation, the settings of its config that are to be others."""


NewLayer = tuple[str, Mapping[str, Any]]
"""A layer to be made: the name of its class among the layers of Keras, and its config."""

FindLayer = Callable[[Layer], NewLayer | None]
"""Given a layer or operation, another one to be made; None for none."""


def find_none(layer: Layer) -> None:
    """No layer is to be made."""


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """A model that was made anew.

    Attributes:
        model: the new model.
        layers: pairs of a layer of the old model and what it became, without models and those inside layers.
    """

    model: Model
    layers: tuple[tuple[Layer, Layer], ...]

    def variables(self) -> list[tuple[Variable, Variable]]:
        """Pairs of a variable of the old model and the one that it became. A new variable may be without an old one.

        Raises:
            ValueError: a layer has other variables than the one that it was made after.
        """
        return [pair for old, new in self.layers for pair in _pair_variables(old, new)]

    def find_untied(self) -> list[Variable]:
        """The variables of the old model that are one in several layers, and several in the new one."""
        new_ids: dict[int, set[int]] = {}
        pairs = self.variables()
        for old, new in pairs:
            new_ids.setdefault(id(old), set()).add(id(new))
        return list({id(old): old for old, _ in pairs if len(new_ids[id(old)]) > 1}.values())

    def finish(self) -> None:
        """Lets layers compute again what they keep beside their variables, once these are written."""
        for old, new in self.layers:
            for part, new_part in zip(parts(old), parts(new), strict=True):
                # Without variables it has computed that from its config.
                if hasattr(part, "finalize_state") and part.built and flavour_of(part).all_variables(part):
                    new_part.finalize_state()


def rebuild(
    model: Model,
    find_settings: FindSettings,
    find_before: FindLayer = find_none,
    find_replacement: FindLayer = find_none,
) -> Rebuilt:
    """Makes a model anew. Nothing of it changes, and nothing is shared with it but functions.

    Names, the structures of inputs and outputs, dtype policies, and what is frozen stay; a Sequential model stays one.
    A layer that is called several times is made once, and so is a model in the model. A subclassed model becomes the
    Functional model of its call at inference.

    Args:
        model: a built model.
        find_settings: which settings of a layer are to be others.
        find_before: which layer is to be put before another, at each call of it.
        find_replacement: which layer is to stand in place of another, or of an operation with one tensor.

    Raises:
        ValueError: a layer cannot be made anew from its config, or does not take what it reads then.
        Exception: whatever the call of a subclassed model raises on symbolic tensors.
    """
    rebuilder = _Rebuilder(model, find_settings, find_before, find_replacement)
    remade = rebuilder.rebuild_model(model, None)
    pairs = [pair for pair in rebuilder.made.values() if not any(map(is_operation, pair))]
    layers = tuple(pair for pair in pairs if not is_model(pair[0]))
    for old, new in pairs:
        rebuilder.flavour.keep_flag(old, new)
    rebuilt = Rebuilt(remade, layers)
    for old, new in rebuilt.variables():
        rebuilder.flavour.keep_trainable(old, new)
    return rebuilt


class _Rebuilder:
    """Makes one model anew.

    Attributes:
        flavour: the module for its Keras.
        made: layers, models and operations, and what they became, by the id of the old one.
    """

    def __init__(
        self, model: Model, find_settings: FindSettings, find_before: FindLayer, find_replacement: FindLayer
    ) -> None:
        self.flavour = flavour_of(model)
        self.made: dict[int, tuple[Layer, Layer]] = {}
        self._find_settings, self._find_before, self._find_replacement = find_settings, find_before, find_replacement
        self._before: dict[int, Layer] = {}

    def rebuild_model(self, model: Model, shapes: Sequence[Any] | None) -> Model:
        """A model, or a model in it, on inputs of these shapes; of the shapes that they have where None."""
        network = self.flavour.network(model)
        if network is not None and self.flavour.is_sequential(model):
            remade = self._rebuild_sequential(model, shapes)
        elif network is not None:
            inputs, outputs = self.flavour.input_structure(model), self.flavour.output_structure(model)
            remade = self._rebuild_functional(model, network, inputs, outputs, shapes)
        else:
            traced = self.flavour.trace_model(model)
            inputs, outputs = (_unpack(tensors) for tensors in (traced.inputs, traced.outputs))
            remade = self._rebuild_functional(model, traced, inputs, outputs, shapes)
        self.made[id(model)] = model, remade
        return remade

    def _rebuild_sequential(self, model: Model, shapes: Sequence[Any] | None) -> Model:
        tensor, layers = self.flavour.sequence(model)
        start = self.flavour.remake_input(tensor, tensor.shape if shapes is None else shapes[0])
        if not any(self._has_graph(self.flavour.time_step_layer(layer) or layer) for layer in layers):
            remade = [new for layer in layers for new in (*self._make_before(layer), self._remake(layer, ()))]
            return self.flavour.make_sequential(model, start, remade)
        # The calls here are for the shapes of what the models read; those of the Sequential model come behind them.
        current, calls = start, []
        for layer in layers:
            for remade in (*self._make_before(layer), self._remake(layer, [current.shape])):
                calls.append((remade, self.flavour.count_calls(remade)))
                current = self._call(layer, remade, (current,), {})
        for remade, counts in calls:
            self.flavour.forget_calls(remade, counts)
        start = self.flavour.remake_input(start, start.shape)
        return self.flavour.make_sequential(model, start, [remade for remade, _ in calls])

    def _rebuild_functional(
        self, model: Model, network: Network, inputs: Any, outputs: Any, shapes: Sequence[Any] | None
    ) -> Model:
        entering = {
            id(tensor): self.flavour.remake_input(tensor, tensor.shape if shapes is None else shapes[place])
            for place, tensor in enumerate(network.inputs)
        }
        tensors: dict[int, KerasTensor] = dict(entering)
        ancillary: list[Layer] = []
        for node in network.nodes:
            if not all(id(tensor) in tensors for tensor in node.inputs):
                continue  # a call in another model that shares the layer: tf_keras lists those that add a loss
            targets = self.flavour.flatten(self._follow(node, tensors))
            for old, new in zip(node.outputs, targets, strict=True):
                tensors.setdefault(id(old), new)
            if self.flavour.is_ancillary(node.layer):
                ancillary.append(self.made[id(node.layer)][1])
        new_inputs, new_outputs = (
            self.flavour.map_structure(lambda tensor: tensors[id(tensor)], structure) for structure in (inputs, outputs)
        )
        remade = self.flavour.make_functional(model, new_inputs, new_outputs)
        if ancillary:
            self.flavour.add_ancillary(remade, ancillary)
        return remade

    def _follow(self, node: Node, tensors: Mapping[int, KerasTensor]) -> Any:
        """Makes a call anew, and returns what it puts out."""

        def replace(argument: Any) -> Any:
            if isinstance(argument, slice):
                return slice(*map(replace, (argument.start, argument.stop, argument.step)))
            return tensors.get(id(argument), argument)

        shapes = [tensors[id(tensor)].shape for tensor in self._entering(node)]
        args, kwargs = self.flavour.map_structure(replace, (node.args, node.kwargs))
        layer = self._remake(node.layer, shapes)
        if self._find_replacement(node.layer) is not None:  # the other arguments are in its config
            args, kwargs = (tensors[id(node.inputs[0])],), {}
        for before in self._make_before(node.layer):
            args = (self._call(node.layer, before, args[:1], {}), *args[1:])
        return self._call(node.layer, layer, args, kwargs)

    def _make_before(self, layer: Layer) -> list[Layer]:
        """The layer that is put before another one, if there is any."""
        description = self._find_before(layer)
        if description is None:
            return []
        if id(layer) not in self._before:
            self._before[id(layer)] = self.flavour.make_layer(*description)
        return [self._before[id(layer)]]

    def _entering(self, node: Node) -> Sequence[KerasTensor]:
        """The tensors that a node's layer is called with; those of a model in the order of its inputs."""
        return self.flavour.entering(node) if self._has_graph(node.layer) else node.inputs

    def _has_graph(self, layer: Layer) -> bool:
        return is_model(layer) and self.flavour.network(layer) is not None

    def _call(self, old: Layer, new: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return new(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(old).__name__} {old.name!r} does not take what it reads in the new model: {error}"
            ) from error

    def _remake(self, layer: Layer, shapes: Sequence[Any]) -> Layer:
        """What a layer became, or becomes here; a model in the model on inputs of these shapes."""
        if id(layer) in self.made:
            return self.made[id(layer)][1]
        if self._has_graph(layer):
            return self.rebuild_model(layer, shapes)
        replacement = self._find_replacement(layer)
        if replacement is not None:
            self.made[id(layer)] = layer, self.flavour.make_layer(*replacement)
            return self.made[id(layer)][1]
        repeated = self.flavour.time_step_layer(layer)
        try:
            if repeated is not None and self._has_graph(repeated):
                inner = self._remake(repeated, [(batch, *extents) for batch, _, *extents in shapes])
                remade = self.flavour.remake_wrapper(layer, inner)
            else:
                remade = self.flavour.remake_layer(layer, self._find_settings(layer))
        except Exception as error:  # a user's `get_config` may raise anything
            name = type(layer).__name__
            raise ValueError(
                f"{name} {layer.name!r} cannot be made anew from its config ({type(error).__name__}: {error}): give "
                f"{name} a get_config() with which {name}.from_config makes it"
            ) from error
        _copy_tables(layer, remade)
        self.made[id(layer)] = layer, remade
        return remade


def _copy_tables(old: Layer, new: Layer) -> None:
    """Gives a layer the tables of the one that it was made after, such as an adapted vocabulary.

    Tables are neither in a config nor among the variables. They go through the files of Keras's own format. What a
    layer puts out may depend on their size, so it has them before it is called.
    """
    if not hasattr(old, "save_assets"):
        return
    numbers: dict[str, Any] = {}
    old.save_own_variables(numbers)
    new.load_own_variables(numbers)
    with tempfile.TemporaryDirectory() as folder:
        old.save_assets(folder)
        new.load_assets(folder)


def _unpack(tensors: Sequence[KerasTensor]) -> Any:
    """The only tensor of several, or a list of them."""
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _pair_variables(old: Layer, new: Layer) -> list[tuple[Variable, Variable]]:
    """The variables of a layer, each with what it became; see `Rebuilt.variables`."""
    flavour = flavour_of(old)
    before, after = flavour.all_variables(old), flavour.all_variables(new)
    if len(before) == len(after):
        return list(zip(before, after, strict=True))
    by_name = {variable_name(variable): variable for variable in after}
    missing = [variable_name(variable) for variable in before if variable_name(variable) not in by_name]
    if missing or len(by_name) < len(after):
        raise ValueError(
            f"{type(old).__name__} {old.name!r} has {len(before)} variables, and {len(after)} when it is made anew "
            f"from its config ({', '.join(missing or by_name)}): its get_config() must hold all that weights depend on"
        )
    return [(variable, by_name[variable_name(variable)]) for variable in before]
