"""The smaller copy of a model: its layers with their settings, and what is cut out of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer, Model, Variable
from tf_lap.graph.channels import Shape
from tf_lap.graph.model_graph import KernelStep, RuleStep
from tf_lap.graph.resizing import Resized, find_settings
from tf_lap.shrinking.constants import Constant
from tf_lap.shrinking.dead import Constants
from tf_lap.shrinking.kept import Axes, Kept
from tf_lap.shrinking.weights import cut


class Shrunk(NamedTuple):
    """A smaller copy of a model.

    Attributes:
        rebuilt: the copy, and its layers beside those of the model.
        cuts: for each variable of the model, by its id, which places on its axes the copy has.
        folded: how many constant channels went into biases.
    """

    rebuilt: compat.Rebuilt
    cuts: dict[int, Axes]
    folded: int


def remake(model: Model, kept: Kept, constants: Constants) -> Shrunk:
    """Makes a copy of a model of the channels that are kept, with the shares of constant ones in its biases.

    Raises:
        ValueError: a layer cannot be made narrower, or it is not known what a variable's axis is.
    """
    shares = _find_shares(kept, constants)
    settings = _Settings(kept, shares)
    rebuilt = compat.rebuild(model, settings)
    cuts = _Cutter(kept, [old for old, _ in rebuilt.layers]).cut_all(rebuilt.variables())
    rebuilt.finish()
    for number, share in shares.items():
        _add_share(rebuilt, kept, number, share)
    return Shrunk(rebuilt, cuts, sum(len(_select_folded(kept, number, constants[number])) for number in constants))


def _find_shares(kept: Kept, constants: Constants) -> dict[int, np.ndarray]:
    """For each kernel what removed constant channels add to each output: float64, `(outputs,)`."""
    shares = {}
    for number, by_channel in constants.items():
        values = {channel: value for channel, value in _select_folded(kept, number, by_channel).items() if value}
        if values:
            weights = compat.host_value(kept.recipe.kernels[number].variable).astype(np.float64)
            by_input = weights.reshape(-1, *weights.shape[-2:]).sum(axis=0)
            share = sum(value * by_input[channel] for channel, value in values.items())
            if np.any(share):
                shares[number] = np.asarray(share)
    return shares


def _select_folded(kept: Kept, number: int, by_channel: Mapping[int, Constant]) -> dict[int, float]:
    """What a kernel reads in removed channels whose share goes into its bias, by input channel.

    A removed channel with an obstacle has no share in what stays: had it one, it would have stayed.
    """
    stays = kept.kernel_inputs(number)
    return {
        channel: constant.value
        for channel, constant in by_channel.items()
        if not stays[channel] and constant.obstacle is None
    }


def _add_share(rebuilt: compat.Rebuilt, kept: Kept, number: int, share: np.ndarray) -> None:
    """Adds what constant channels put out to the bias of the layer that reads them."""
    old = kept.recipe.kernels[number].layer
    new = next(new for layer, new in rebuilt.layers if layer is old)
    bias = compat.host_array(new.bias)
    compat.assign(new.bias, (bias + share[kept.kernel_outputs(number)]).astype(bias.dtype))


class _Settings:
    """Finds the settings of layers whose channels become fewer, or which get a bias."""

    def __init__(self, kept: Kept, shares: Mapping[int, np.ndarray]) -> None:
        self._kept = kept
        self._shapes = {
            id(kernel.variable): tuple(int(places.sum()) for places in kept.kernel_axes[number])
            for number, kernel in enumerate(kept.recipe.kernels)
        }
        self._biased = {id(kept.recipe.kernels[number].layer) for number in shares}
        self._outputs: dict[int, Shape] = {}
        self._narrowed: set[int] = set()
        for step in (*kept.recipe.coupling_steps, *kept.recipe.steps):
            match step:
                case RuleStep():
                    self._note(step.layer, step.target)
                case KernelStep():
                    self._note(kept.recipe.kernels[step.kernel].layer, step.target)

    def _note(self, layer: Layer, target: int) -> None:
        self._outputs[id(layer)] = self._kept.shape(target)
        if not self._kept.channels(target).all():
            self._narrowed.add(id(layer))

    def __call__(self, layer: Layer) -> Mapping[str, Any]:
        """The settings of a layer that are to be others."""
        if compat.is_operation(layer):
            return {}
        variables = [variable for part in compat.parts(layer) for variable in compat.own_weights(part)]
        is_cut = any(self._shape(variable) != tuple(variable.shape) for variable in variables)
        settings: dict[str, Any] = {}
        if is_cut or any(id(part) in self._narrowed for part in compat.parts(layer)):
            settings.update(find_settings(layer, Resized(self._shape, self._outputs.get(id(layer), ()))))
        if id(layer) in self._biased:
            settings["use_bias"] = True
        return settings

    def _shape(self, variable: Variable) -> tuple[int, ...]:
        return self._shapes.get(id(variable), tuple(variable.shape))


class _Cutter:
    """Writes into each variable of the copy what is left of the model's.

    The axes of kernels are known. Of other variables an axis that became shorter is matched by its size before and
    after: with what the layer puts out, with what its kernels put out, with what it reads.
    """

    def __init__(self, kept: Kept, layers: Iterable[Layer]) -> None:
        self._kept = kept
        recipe = kept.recipe
        self._kernels = {id(kernel.variable): number for number, kernel in enumerate(recipe.kernels)}
        self._owners: dict[int, Layer] = {}
        self._outer: dict[int, Layer] = {}
        for layer in layers:
            for part in compat.parts(layer):
                self._outer[id(part)] = layer
                self._owners.update((id(variable), part) for variable in compat.own_weights(part))
        self._put: dict[int, list[int]] = {}
        self._read: dict[int, list[int]] = {}
        for step in (*recipe.coupling_steps, *recipe.steps):
            match step:
                case RuleStep():
                    self._put.setdefault(id(step.layer), []).append(step.target)
                    self._read.setdefault(id(step.layer), []).extend(step.sources)
                case KernelStep():
                    self._put.setdefault(id(recipe.kernels[step.kernel].layer), []).append(step.target)

    def cut_all(self, variables: Sequence[tuple[Variable, Variable]]) -> dict[int, Axes]:
        """Cuts all variables, given with what each became, and returns what is left of their axes, by their ids."""
        cuts = {}
        for old, new in variables:
            values = compat.host_array(old)
            if None in tuple(old.shape):  # as long as the data that a Discretization layer saw
                compat.assign(new, values)
                continue
            cuts[id(old)] = axes = self._find_axes(old, tuple(new.shape))
            compat.assign(new, cut(values, axes))
        return cuts

    def _find_axes(self, old: Variable, shape: tuple[int, ...]) -> Axes:
        """For each axis of a variable which of its places are left.

        Args:
            old: the variable.
            shape: the shape of what it became.

        Raises:
            ValueError: it is not known which they are.
        """
        number = self._kernels.get(id(old))
        if number is not None:
            axes = self._kept.kernel_axes[number]
            expected = tuple(int(places.sum()) for places in axes)
            if expected != shape:
                raise ValueError(self._explain(old, f"has shape {shape} in the smaller model, expected {expected}"))
            return axes
        if len(old.shape) != len(shape):
            raise ValueError(self._explain(old, f"has {len(old.shape)} axes, and {len(shape)} in the smaller model"))
        return tuple(
            np.ones(before, bool) if before == after else self._find_places(old, axis, before, after)
            for axis, (before, after) in enumerate(zip(old.shape, shape, strict=True))
        )

    def _find_places(self, old: Variable, axis: int, before: int, after: int) -> np.ndarray:
        """Which places of an axis are left that became shorter."""
        owner = self._owners.get(id(old))
        for candidates in () if owner is None else self._list_candidates(owner):
            fitting = [places for places in candidates if len(places) == before and places.sum() == after]
            if fitting and all(np.array_equal(places, fitting[0]) for places in fitting):
                return fitting[0]
            if fitting:
                break
        reason = f"axis {axis} is {after} long in place of {before}, and it is not known which places are left"
        raise ValueError(self._explain(old, reason))

    def _list_candidates(self, owner: Layer) -> Iterable[list[np.ndarray]]:
        """Places that are left on axes of what a layer is about, those that count first before the others."""
        kept, outer = self._kept, self._outer[id(owner)]
        numbers = [number for variable, number in self._kernels.items() if self._owners.get(variable) is owner]
        yield self._list_places(self._put.get(id(owner), [])[-1:])
        yield [kept.kernel_outputs(number) for number in numbers]
        yield [places for number in numbers for places in kept.kernel_axes[number]]
        yield self._list_places(self._put.get(id(owner), []) + self._put.get(id(outer), []))
        yield self._list_places(self._read.get(id(owner), []) + self._read.get(id(outer), []))

    def _list_places(self, tensors: Iterable[int]) -> list[np.ndarray]:
        """The places that are left on each channel axis of tensors, and on all of them together."""
        by_axis = [places for tensor in tensors for places in self._kept.places(tensor).values()]
        return [*by_axis, *map(self._kept.channels, tensors)]

    def _explain(self, variable: Variable, reason: str) -> str:
        owner = self._owners.get(id(variable))
        layer = "" if owner is None else f"{type(owner).__name__} {owner.name!r}, "
        return f"{layer}variable {compat.variable_name(variable)!r}: {reason}"
