"""Who a kernel's neighbours are: the kernels before and after it in the graph, and where the graph ends."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_lap.graph.resolver import Read, Recipe, Rule, Wall, resolve


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """What lies around a kernel.

    Attributes:
        previous: paths of the kernels that feed it.
        following: paths of the kernels that read what it puts out.
        boundaries: where the way to a kernel ends, before it or after it: real inputs and outputs of the
            network, and layers that channels cannot be followed through, each with the reason.
    """

    previous: tuple[str, ...]
    following: tuple[str, ...]
    boundaries: tuple[str, ...]


def neighbors(model: Any) -> dict[str, Neighbors]:
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


def find_neighbors(recipe: Recipe) -> dict[str, Neighbors]:
    """The neighbours of each kernel of a recipe, by layer path."""
    ends = _Ends(len(recipe.kernels))
    previous, following = _previous(recipe, ends), _following(recipe, ends)
    found = {}
    for kernel, back, ahead in zip(recipe.kernels, previous, following, strict=True):
        (sources, starts), (readers, stops) = ends.split(back), ends.split(ahead)
        apart = (kernel.apart,) if kernel.apart else ()
        found[kernel.path] = Neighbors(
            tuple(recipe.kernels[i].path for i in sources),
            tuple(recipe.kernels[i].path for i in readers),
            tuple(dict.fromkeys((*starts, *stops, *apart))),
        )
    return found


class _Ends:
    """Sets of kernels and of ends, as bits of integers: a tensor of a densely connected network has hundreds.

    The first bits are kernels; behind them each reason for an end has one.
    """

    def __init__(self, kernels: int) -> None:
        self._kernels = kernels
        self._reasons: dict[str, int] = {}

    def bit(self, reason: str) -> int:
        """The set of this one end."""
        return 1 << self._reasons.setdefault(reason, self._kernels + len(self._reasons))

    def split(self, bits: int) -> tuple[list[int], list[str]]:
        """The kernels in a set, and the ends."""
        members = [i for i in range(bits.bit_length()) if bits >> i & 1]
        reasons = list(self._reasons)
        kernels = [i for i in members if i < self._kernels]
        return kernels, [reasons[i - self._kernels] for i in members if i >= self._kernels]


def _previous(recipe: Recipe, ends: _Ends) -> list[int]:
    """For each kernel the set of what feeds it: one sweep along the steps."""
    fed, previous = [0] * recipe.tensors, [0] * len(recipe.kernels)
    for tensor, reason in recipe.inputs.items():
        fed[tensor] = ends.bit(reason)
    for step in recipe.steps:
        match step:
            case Read():
                previous[step.kernel] |= fed[step.source]
                fed[step.target] = 1 << step.kernel
            case Rule():
                for source in step.sources:
                    fed[step.target] |= fed[source]
            case Wall():
                for target in step.targets:
                    fed[target] = ends.bit(step.reason)
    return previous


def _following(recipe: Recipe, ends: _Ends) -> list[int]:
    """For each kernel the set of what reads it: one sweep back."""
    read, following = [0] * recipe.tensors, [0] * len(recipe.kernels)
    for tensor, reason in recipe.outputs:
        read[tensor] |= ends.bit(reason)
    for step in reversed(recipe.steps):
        match step:
            case Read():
                following[step.kernel] |= read[step.target]
                read[step.source] |= 1 << step.kernel
            case Rule():
                for source in step.sources:
                    read[source] |= read[step.target]
            case Wall():
                for source in step.sources:
                    read[source] |= ends.bit(step.reason)
    return following
