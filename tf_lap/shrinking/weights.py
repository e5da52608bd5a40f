"""The weights of a model and of its smaller copy: which channels they connect, and what is cut out of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tf_lap import compat
from tf_lap.graph.model_graph import Kernel


def find_connections(kernel: Kernel) -> np.ndarray:
    """Which input channels of a kernel reach which output channels through a weight that is not zero.

    Returns:
        Bool `(inputs, outputs)`.
    """
    layout = kernel.layout
    matrices = layout.to_matrices(compat.host_array(kernel.variable) != 0)
    groups, _, of_group = matrices.shape
    inputs_of_group = layout.inputs // groups
    by_input = np.asarray(matrices.reshape(groups, -1, inputs_of_group, of_group).any(axis=1))
    connections = np.zeros((layout.inputs, layout.outputs), bool)
    for group, block in enumerate(by_input):
        rows = slice(group * inputs_of_group, (group + 1) * inputs_of_group)
        connections[rows, group * of_group : (group + 1) * of_group] = block
    return connections


def cut(array: np.ndarray, axes: Sequence[np.ndarray]) -> np.ndarray:
    """The places of an array that are kept on each axis.

    Args:
        array: any array.
        axes: for each axis which places are kept, bool.
    """
    return array[np.ix_(*axes)]


def cut_slot(slot: np.ndarray, axes: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    """What is left of what an optimizer remembers for a variable: an array of the variable's axes, or of some of them.

    Args:
        slot: what it remembers.
        axes: for each axis of the variable which places are kept, bool.
        shape: the shape that is wanted.

    Returns:
        An array of that shape; None where it is not known which axes of the variable the array has.
    """
    choices = []
    for chosen in itertools.combinations(axes, slot.ndim):
        before, after = tuple(map(len, chosen)), tuple(int(places.sum()) for places in chosen)
        if (before, after) == (slot.shape, shape):
            choices.append(np.concatenate([*chosen, []]))
    if slot.shape == shape and not choices:
        return slot
    if not choices or not all(np.array_equal(choice, choices[0]) for choice in choices):
        return None
    places = np.split(choices[0].astype(bool), np.cumsum(slot.shape)[:-1]) if slot.ndim else []
    return cut(slot, places)
