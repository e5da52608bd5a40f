"""Which classes of channels compute nothing, so that they can be removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tf_lap.graph.coupling import Coupling
from tf_lap.graph.model_graph import Recipe
from tf_lap.shrinking.constants import Constant
from tf_lap.shrinking.weights import find_connections

Constants = Mapping[int, Mapping[int, Constant]]
"""What kernels read in channels that are constant, by kernel and input channel."""


class Removal(NamedTuple):
    """What is to be removed.

    Attributes:
        is_kept: for each class whether it stays: bool, `(classes,)`.
        held: classes that would go if the share of a constant could be put into a bias, and why it cannot.
    """

    is_kept: np.ndarray
    held: dict[int, str]


def find_removal(recipe: Recipe, coupling: Coupling, constants: Constants) -> Removal:
    """Finds the classes that can be removed without a change of what the network puts out.

    A class is alive that has a wall, or of which a weight that is not zero makes a channel that is alive. A share that
    is constant does not count: it goes into the bias. Every tensor keeps a channel.

    Args:
        recipe: the model's.
        coupling: its classes of channels.
        constants: what kernels read in channels that are constant.
    """
    readers = _Readers(recipe, coupling)
    foldable = {
        number: [channel for channel, constant in by_channel.items() if constant.obstacle is None]
        for number, by_channel in constants.items()
    }
    is_alive = readers.find_alive(foldable)
    at_best = readers.find_alive({number: list(by_channel) for number, by_channel in constants.items()})
    held = {}
    for number, by_channel in constants.items():
        for channel, constant in by_channel.items():
            label = int(coupling.kernel_inputs[number][channel])
            if constant.obstacle is not None and is_alive[label] and not at_best[label]:
                held[label] = constant.obstacle
    return Removal(is_alive, held)


class _Readers:
    """Which kernels read which classes of channels, and make which of them."""

    def __init__(self, recipe: Recipe, coupling: Coupling) -> None:
        self._coupling = coupling
        self._roots = set(coupling.walls)
        self._roots.update(int(classes[0]) for classes in coupling.tensor_classes if len(classes) == 1)
        # A group reads and makes one class alone.
        self._reading = {
            number: find_connections(kernel)
            for number, kernel in enumerate(recipe.kernels)
            if not kernel.layout.is_grouped
        }
        self._transposed = {kernel for kernel, _ in recipe.transposed_uses}

    def find_alive(self, foldable: Mapping[int, list[int]]) -> np.ndarray:
        """Which classes are alive: bool, `(classes,)`.

        Args:
            foldable: by kernel the input channels whose share in what it puts out does not count.
        """
        reading = dict(self._reading)
        for number, channels in foldable.items():
            if number in reading:
                reading[number] = reading[number].copy()
                reading[number][channels] = False
        is_alive = np.zeros(self._coupling.count, bool)
        is_alive[list(self._roots)] = True
        self._spread(is_alive, reading)
        idle = np.zeros(self._coupling.count, bool)
        while (empty := self._find_empty(is_alive | idle)) is not None:
            if self._is_read(empty, is_alive):  # its constant is read, and then must stay what it is
                is_alive[empty] = True
                self._spread(is_alive, reading)
                idle[:] = False  # what came alive may read one of them
            else:
                idle[empty] = True
        return is_alive | idle

    def _spread(self, is_alive: np.ndarray, reading: Mapping[int, np.ndarray]) -> None:
        """Makes alive what living classes are made of, until nothing changes."""
        before = -1
        while before != (before := int(is_alive.sum())):
            for number in sorted(reading, reverse=True):
                connections = reading[number]
                inputs, outputs = self._coupling.kernel_inputs[number], self._coupling.kernel_outputs[number]
                is_alive[inputs[connections[:, is_alive[outputs]].any(axis=1)]] = True
                if number in self._transposed:
                    is_alive[outputs[connections[is_alive[inputs]].any(axis=0)]] = True

    def _is_read(self, label: int, is_alive: np.ndarray) -> bool:
        """Whether a kernel makes living channels of one of this class."""
        for number, connections in self._reading.items():
            inputs, outputs = self._coupling.kernel_inputs[number], self._coupling.kernel_outputs[number]
            if connections[inputs == label][:, is_alive[outputs]].any():
                return True
        return False

    def _find_empty(self, is_alive: np.ndarray) -> int | None:
        """The class of the first channel of a tensor in which none is alive; None where there is no such tensor."""
        for classes in self._coupling.tensor_classes:
            if classes.size and not is_alive[classes].any():
                return int(classes[0])
        return None
