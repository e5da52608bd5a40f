"""Who a kernel's neighbours are: the kernels before and after it in the graph, and where the graph ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from tf_lap.graph import Read, Recipe, Rule, Wall, resolve


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
    count = len(recipe.kernels)
    ends: dict[str, int] = {}  # reason -> its bit

    # Sets of kernels and ends are bits of integers: a tensor of a densely connected network has hundreds.
    def end(reason: str) -> int:
        return 1 << ends.setdefault(reason, count + len(ends))

    def union(sets: list[int], members: Iterable[int]) -> int:
        result = 0
        for member in members:
            result |= sets[member]
        return result

    before, after = [0] * recipe.tensors, [0] * recipe.tensors
    previous, following = [0] * count, [0] * count
    for tensor, reason in recipe.inputs.items():
        before[tensor] = end(reason)
    for step in recipe.steps:
        match step:
            case Read():
                previous[step.kernel] |= before[step.source]
                before[step.target] = 1 << step.kernel
            case Rule():
                before[step.target] = union(before, step.sources)
            case Wall():
                for target in step.targets:
                    before[target] = end(step.reason)
    for tensor, reason in recipe.outputs:
        after[tensor] |= end(reason)
    for step in reversed(recipe.steps):
        match step:
            case Read():
                following[step.kernel] |= after[step.target]
                after[step.source] |= 1 << step.kernel
            case Rule():
                for source in step.sources:
                    after[source] |= after[step.target]
            case Wall():
                for source in step.sources:
                    after[source] |= end(step.reason)
    reasons = list(ends)

    def names(bits: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        members = [i for i in range(bits.bit_length()) if bits >> i & 1]
        kernels = tuple(recipe.kernels[i].path for i in members if i < count)
        return kernels, tuple(reasons[i - count] for i in members if i >= count)

    found = {}
    for kernel, back, ahead in zip(recipe.kernels, previous, following, strict=True):
        (sources, starts), (readers, stops) = names(back), names(ahead)
        apart = (kernel.apart,) if kernel.apart else ()
        found[kernel.path] = Neighbors(sources, readers, tuple(dict.fromkeys(starts + stops + apart)))
    return found
