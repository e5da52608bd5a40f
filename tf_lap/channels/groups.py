"""Groups of channels: those that the same kernels put out, and that go one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from tf_lap.compat.types import Model
from tf_lap.graph.coupling import Coupling, find_coupling
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.resolver import resolve

SINGLE = "it has one channel, and one always stays"


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that the same kernels put out. Each goes in all of its members at once.

    A channel of a residual stream is one of every kernel that adds to the stream. A head of an attention layer, a group
    of a grouped convolution and a pair of gated channels count as one channel each.

    Attributes:
        name: the path of the first kernel that puts the channels out.
        width: how many channels there are.
        producers: the paths of all kernels that put them out, in the order of the graph.
        readers: the paths of the kernels that read them.
        blocked: why none of them can be removed; empty where they can.
        classes: the numbers of their classes in the coupling of the model: int64 `(width,)`.
        multiple: how many outputs of the first producer each channel is.
    """

    name: str
    width: int
    producers: tuple[str, ...]
    readers: tuple[str, ...]
    blocked: tuple[str, ...]
    classes: np.ndarray = dataclasses.field(repr=False)
    multiple: int = dataclasses.field(default=1, repr=False)


def channel_groups(model: Model) -> dict[str, ChannelGroup]:
    """Which channels of a model must go together, and what keeps channels from being removed.

    They are found by the rules that carry energy: what a rule makes of one channel goes with it.

    Example:

    >>> groups = tf_lap.channel_groups(model)
    >>> {name: group.width for name, group in groups.items() if not group.blocked}
    {'dense': 32, 'dense_1': 16}

    Args:
        model: a built Keras model.

    Returns:
        The groups by name, in the order of the graph.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    recipe = resolve(model)
    return {group.name: group for group in find_groups(recipe, find_coupling(recipe))}


def find_groups(
    recipe: Recipe,
    coupling: Coupling,
    blocked_producers: Mapping[int, str] = MappingProxyType({}),
    blocked_readers: Mapping[int, str] = MappingProxyType({}),
) -> list[ChannelGroup]:
    """The groups of a resolved model.

    Args:
        recipe: the resolved model.
        coupling: its classes of channels.
        blocked_producers: why channels that a kernel puts out are not to be removed, by the kernel's number.
        blocked_readers: why channels that a kernel reads are not to be removed, likewise.
    """
    producers = _list_kernels(coupling.kernel_outputs)
    readers = _list_kernels(coupling.kernel_inputs)
    alike: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = {}
    for number, kernels in producers.items():
        reasons = [*coupling.walls.get(number, ())]
        reasons += [blocked_readers[kernel] for kernel in readers.get(number, ()) if kernel in blocked_readers]
        reasons += [blocked_producers[kernel] for kernel in kernels if kernel in blocked_producers]
        alike.setdefault((kernels, tuple(dict.fromkeys(reasons))), []).append(number)
    groups: list[ChannelGroup] = []
    names: dict[str, int] = {}
    for (kernels, walls), classes in alike.items():
        first = _find_first(recipe, kernels)
        path = recipe.kernels[first].path
        names[path] = names.get(path, 0) + 1
        groups.append(
            ChannelGroup(
                name=path if names[path] == 1 else f"{path}:{names[path]}",
                width=len(classes),
                producers=tuple(recipe.kernels[kernel].path for kernel in kernels),
                readers=tuple(
                    recipe.kernels[kernel].path
                    for kernel in sorted({kernel for number in classes for kernel in readers.get(number, ())})
                    if kernel not in kernels or not recipe.kernels[kernel].layout.is_grouped
                ),
                blocked=walls or ((SINGLE,) if len(classes) == 1 else ()),
                classes=np.array(classes),
                multiple=int(np.count_nonzero(coupling.kernel_outputs[first] == classes[0])),
            )
        )
    return groups


def _list_kernels(kernel_classes: tuple[np.ndarray, ...]) -> dict[int, tuple[int, ...]]:
    """For each class the kernels on one side of it, in order."""
    kernels: dict[int, list[int]] = {}
    for kernel, classes in enumerate(kernel_classes):
        for number in dict.fromkeys(classes.tolist()):
            kernels.setdefault(number, []).append(kernel)
    return {number: tuple(numbers) for number, numbers in kernels.items()}


def _find_first(recipe: Recipe, kernels: tuple[int, ...]) -> int:
    """The first of some kernels that does not only act within groups of channels which another one has put out."""
    return next((number for number in kernels if not recipe.kernels[number].layout.is_grouped), kernels[0])
