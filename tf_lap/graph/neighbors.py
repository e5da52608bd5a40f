"""A kernel's neighbours: the kernels before and after it in the graph, and where the graph ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tf_lap.compat.types import Model
from tf_lap.graph.model_graph import BoundaryStep, KernelStep, ProductStep, Recipe, RuleStep
from tf_lap.graph.resolver import resolve


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """What lies around a kernel.

    Attributes:
        previous: paths of the kernels that feed it.
        following: paths of the kernels that read what it puts out.
        boundaries: where the search for a kernel ends, before it or after it: inputs and outputs of the
            network, and layers that channels cannot be followed through, each with the reason.
    """

    previous: tuple[str, ...]
    following: tuple[str, ...]
    boundaries: tuple[str, ...]


def neighbors(model: Model) -> dict[str, Neighbors]:
    """The neighbours of each kernel in a model's graph, by layer path.

    Example:

    >>> tf_lap.neighbors(model)["dense_1"].previous
    ('dense',)

    Args:
        model: a built Keras model.

    Returns:
        A dictionary from layer path to `Neighbors`, in topological order.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    return find_neighbors(resolve(model))


def name_neighbors(recipe: Recipe, override: Mapping[int, Sequence[Sequence[int]]]) -> dict[str, Neighbors]:
    """The neighbours that a user gives, by layer path.

    Args:
        recipe: the recipe.
        override: by the numbers of kernels the numbers of the kernels before and after.
    """
    paths = [kernel.path for kernel in recipe.kernels]
    neighbors_by_path = {}
    for number, sides in override.items():
        previous, following = (tuple(paths[k] for k in side) for side in sides)
        neighbors_by_path[paths[number]] = Neighbors(previous, following, ("given by the user",))
    return neighbors_by_path


def find_neighbors(recipe: Recipe) -> dict[str, Neighbors]:
    """The neighbours of each kernel of a recipe, by layer path."""
    codes = _SetCodes(len(recipe.kernels))
    feeding = _find_feeding(recipe, codes)
    reading = _find_reading(recipe, codes, feeding)
    previous, following = [0] * len(recipe.kernels), [0] * len(recipe.kernels)
    for step in recipe.steps:
        match step:
            case KernelStep():
                previous[step.kernel] |= feeding[step.source]
                following[step.kernel] |= reading[step.target]
            case RuleStep(kernel=int() as number):
                previous[number] |= feeding[step.sources[0]]
                following[number] |= reading[step.target]
    neighbors_by_path = {}
    for kernel, before, behind in zip(recipe.kernels, previous, following, strict=True):
        (producers, beginnings), (consumers, ends) = codes.decode(before), codes.decode(behind)
        unreached = (kernel.unreached_reason,) if kernel.unreached_reason else ()
        neighbors_by_path[kernel.path] = Neighbors(
            tuple(recipe.kernels[number].path for number in producers),
            tuple(recipe.kernels[number].path for number in consumers),
            tuple(dict.fromkeys((*beginnings, *ends, *unreached))),
        )
    return neighbors_by_path


class _SetCodes:
    """Sets of kernels and boundaries as bits of integers: a tensor of a densely connected network has hundreds.

    The first bits are the kernels, by their numbers. Behind them each reason for a boundary has a bit.
    """

    def __init__(self, kernel_count: int) -> None:
        self._kernel_count = kernel_count
        self._reasons: dict[str, int] = {}

    def encode(self, reason: str) -> int:
        """The set of one boundary."""
        return 1 << self._reasons.setdefault(reason, self._kernel_count + len(self._reasons))

    def decode(self, code: int) -> tuple[list[int], list[str]]:
        """The numbers of the kernels in a set, and the reasons of its boundaries."""
        members = [bit for bit in range(code.bit_length()) if code >> bit & 1]
        reasons = list(self._reasons)
        kernels = [bit for bit in members if bit < self._kernel_count]
        return kernels, [reasons[bit - self._kernel_count] for bit in members if bit >= self._kernel_count]


def _find_feeding(recipe: Recipe, codes: _SetCodes) -> list[int]:
    """For each tensor the set of what feeds it, as a code: one sweep along the steps."""
    feeding = [0] * recipe.tensor_count
    for tensor, reason in recipe.inputs.items():
        feeding[tensor] = codes.encode(reason)
    for step in recipe.steps:  # first, because a loop reads what a later step puts out
        if isinstance(step, KernelStep):
            feeding[step.target] = 1 << step.kernel
    for step in recipe.steps:
        match step:
            case RuleStep():
                for source in step.sources:
                    feeding[step.target] |= feeding[source]
            case BoundaryStep():
                for target in step.targets:
                    feeding[target] = codes.encode(step.reason)
    return feeding


def _find_reading(recipe: Recipe, codes: _SetCodes, feeding: Sequence[int]) -> list[int]:
    """For each tensor the set of what reads it, as a code: one sweep back along the steps."""
    reading = [0] * recipe.tensor_count
    for tensor, reason in recipe.outputs:
        reading[tensor] |= codes.encode(reason)
    for step in reversed(recipe.steps):
        match step:
            case KernelStep():
                reading[step.source] |= 1 << step.kernel
            case RuleStep():
                for source in step.sources:
                    reading[source] |= reading[step.target]
            case ProductStep():
                reading[step.left] |= feeding[step.right]
                reading[step.right] |= feeding[step.left]
            case BoundaryStep():
                for source in step.sources:
                    reading[source] |= codes.encode(step.reason)
    return reading
