"""What a model costs once channels are removed, reckoned from its couplings without building the smaller model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Model
from tf_lap.costs.multiplications import count_positions, count_product
from tf_lap.costs.sizes import describe_sized
from tf_lap.costs.weights import count_bytes, count_weights, find_itemsize, weight_variables
from tf_lap.graph.coupling import Coupling
from tf_lap.graph.model_graph import KernelStep, Product, Recipe, RuleStep
from tf_lap.graph.resolver import resolve_description


class Cost(NamedTuple):
    """Numbers, or arrays of a number for each class: weights, their bytes, and multiply-accumulates."""

    weights: Any
    bytes: Any
    macs: Any


@dataclasses.dataclass(frozen=True)
class _KernelChannels:
    """A kernel, as far as its size depends on which channels are kept.

    Attributes:
        inputs: the class of each input, a row for each group: int64 `(groups, inputs of a group)`.
        outputs: likewise that of each output.
        taps: how many weights lie between an input and an output.
        itemsize: the bytes of a weight.
        positions: how often each weight is multiplied.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    taps: int
    itemsize: int
    positions: int


@dataclasses.dataclass(frozen=True)
class _Vector:
    """A variable with one weight, or a fixed number of them, for each channel of a tensor.

    Attributes:
        classes: the class of each channel: int64 `(channels,)`.
        repeats: how many weights there are for each.
        itemsize: the bytes of a weight.
    """

    classes: np.ndarray
    repeats: int
    itemsize: int


@dataclasses.dataclass(frozen=True)
class ChannelCosts:
    """What a model costs with some of its channels.

    Attributes:
        count: how many classes of channels there are.
        kernels: its kernels.
        vectors: biases, and what normalizations hold for each channel.
        products: the multiply-accumulates of products of tensors, with the classes that they are in proportion to.
        fixed: the cost of everything else.
    """

    count: int
    kernels: tuple[_KernelChannels, ...]
    vectors: tuple[_Vector, ...]
    products: tuple[tuple[int, np.ndarray], ...]
    fixed: Cost

    def total(self, kept: np.ndarray) -> Cost:
        """The cost of the whole model where only some classes are kept.

        Args:
            kept: whether each class is kept: bool `(classes,)`.
        """
        weights, size, macs = self.fixed
        for kernel in self.kernels:
            pairs = kept[kernel.inputs].sum(axis=1) @ kept[kernel.outputs].sum(axis=1)
            count = int(pairs) * kernel.taps
            weights, size = weights + count, size + count * kernel.itemsize
            macs += count * kernel.positions
        for vector in self.vectors:
            count = int(kept[vector.classes].sum()) * vector.repeats
            weights, size = weights + count, size + count * vector.itemsize
        macs += round(sum(product * float(kept[classes].mean()) for product, classes in self.products))
        return Cost(weights, size, macs)

    def savings(self, kept: np.ndarray) -> Cost:
        """What the removal of each class alone saves.

        Args:
            kept: whether each class is kept yet: bool `(classes,)`.

        Returns:
            Three float64 arrays `(classes,)`; 0 for a class that is not kept.
        """
        weights, size, macs = (np.zeros(self.count) for _ in range(3))
        for kernel in self.kernels:
            pairs = self._count_pairs(kernel, kept) * kernel.taps
            weights += pairs
            size += pairs * kernel.itemsize
            macs += pairs * kernel.positions
        for vector in self.vectors:
            counts = np.bincount(vector.classes, minlength=self.count) * vector.repeats
            weights += counts
            size += counts * vector.itemsize
        for product, classes in self.products:
            macs += np.bincount(classes, minlength=self.count) * (product / classes.size)
        return Cost(weights * kept, size * kept, macs * kept)

    def _count_pairs(self, kernel: _KernelChannels, kept: np.ndarray) -> np.ndarray:
        """How many pairs of kept inputs and outputs of a kernel each class takes part in: float64 `(classes,)`."""
        inputs, outputs = kept[kernel.inputs], kept[kernel.outputs]
        in_group, out_group = inputs.sum(axis=1), outputs.sum(axis=1)
        pairs = self._add_up(kernel.inputs, inputs * out_group[:, None])
        pairs += self._add_up(kernel.outputs, outputs * in_group[:, None])
        if len(kernel.inputs) == 1:
            both = self._add_up(kernel.inputs, inputs) * self._add_up(kernel.outputs, outputs)
        else:  # all channels of a group are of one class
            both = self._add_up(kernel.inputs[:, 0], in_group * out_group)
        return pairs - both

    def _add_up(self, classes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return np.bincount(classes.reshape(-1), numbers.reshape(-1), minlength=self.count)


def find_channel_costs(
    model: Model, recipe: Recipe, coupling: Coupling, batch_size: int = 1, input_shape: Any = None
) -> ChannelCosts:
    """What a model's channels cost.

    Args:
        model: a built model.
        recipe: the recipe of the model.
        coupling: which of the recipe's channels go together.
        batch_size: as in `tf_lap.cost`.
        input_shape: likewise.

    Raises:
        TypeError, ValueError: as `tf_lap.cost` raises.
    """
    description, _, batch_size = describe_sized(model, batch_size, input_shape)
    sized = resolve_description(model, description)
    counts = count_positions(sized, batch_size)
    positions = {id(kernel.variable): count or 0 for kernel, count in zip(sized.kernels, counts, strict=True)}
    kernels = _list_kernels(recipe, coupling, positions)
    vectors = _find_vectors(model, recipe, coupling)
    products = _list_products(recipe.products, sized.products, coupling)
    by_id = {id(kernel.variable) for kernel in recipe.kernels} | set(vectors)
    rest = [variable for variable in weight_variables(model) if id(variable) not in by_id]
    fixed = Cost(
        sum(map(count_weights, rest)),
        sum(count_bytes(variable) for variable in rest),
        sum(macs for macs, among in products if among is None),
    )
    scaled = tuple((macs, among) for macs, among in products if among is not None)
    return ChannelCosts(coupling.count, tuple(kernels), tuple(vectors.values()), scaled, fixed)


def _list_kernels(recipe: Recipe, coupling: Coupling, positions: Mapping[int, int]) -> list[_KernelChannels]:
    """The kernels of a recipe; `positions` has those of each, by the id of its variable."""
    kernels = []
    for number, kernel in enumerate(recipe.kernels):
        plain = kernel.layout.plain
        kernels.append(
            _KernelChannels(
                coupling.kernel_inputs[number].reshape(plain.groups, -1),
                coupling.kernel_outputs[number].reshape(plain.groups, -1),
                math.prod(plain.shape[:-2]),
                find_itemsize(kernel.variable),
                positions.get(id(kernel.variable), 0),
            )
        )
    return kernels


def _find_vectors(model: Model, recipe: Recipe, coupling: Coupling) -> dict[int, _Vector]:
    """The variables that hold a fixed number of weights for each channel of a tensor, by their ids."""
    countable = {id(variable) for variable in weight_variables(model)}
    countable -= {id(kernel.variable) for kernel in recipe.kernels}
    vectors: dict[int, _Vector] = {}
    for step in reversed(recipe.steps):  # of a separable convolution the last kernel has the bias
        match step:
            case KernelStep(kernel=int() as number) | RuleStep(kernel=int() as number):
                variables, classes = recipe.kernels[number].layer.weights, coupling.kernel_outputs[number]
            case RuleStep():
                variables, classes = compat.own_weights(step.layer), coupling.tensor_classes[step.target]
            case _:
                continue
        for variable in variables:
            size = count_weights(variable)
            is_new = id(variable) in countable and id(variable) not in vectors
            if is_new and classes.size > 1 and size % classes.size == 0:
                vectors[id(variable)] = _Vector(classes, size // classes.size, find_itemsize(variable))
    return vectors


def _list_products(
    products: Sequence[Product], sized: Sequence[Product], coupling: Coupling
) -> list[tuple[int, np.ndarray | None]]:
    """The multiply-accumulates of products, and the classes that each is in proportion to; None where there are none.

    Args:
        products: those of the recipe that was coupled.
        sized: those of the same model, with sizes.
        coupling: the couplings.
    """
    are_same = len(products) == len(sized)
    tensors = [product.tensor if are_same else None for product in (products if are_same else sized)]
    return [
        (count_product(product) or 0, None if tensor is None else coupling.tensor_classes[tensor])
        for product, tensor in zip(sized, tensors, strict=True)
    ]
