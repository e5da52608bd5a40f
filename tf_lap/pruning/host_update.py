"""One mask update on the host, with NumPy: no graph is traced, and every update costs what the first one does.

Where variables live in the host's memory, NumPy reads that memory without a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tf_lap import compat
from tf_lap.graph.energy import Energies, KernelEnergies
from tf_lap.graph.measurer import Gains
from tf_lap.pruning.mask_selection import HostSelection, KernelWeights, ScratchMemory, ignore_overflow
from tf_lap.pruning.mask_update import Updater, UpdateResult

_PIECE = 1 << 17  # weights that are zeroed at once
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}  # by the bytes of a number


class HostUpdater:
    """What one pruner computes, on the host.

    Args:
        updater: the model, the masks of its kernels, and the choices.
    """

    def __init__(self, updater: Updater) -> None:
        self._updater, self._measurer = updater, updater.measurer
        self._variables = compat.HostVariables()

    def measure(self, gains: Gains) -> tuple[KernelEnergies, np.ndarray]:
        """As `Measurer.measure`, in arrays."""
        with ignore_overflow():
            return self._measurer.measure(gains, self._variables.value)

    def energies_around(self, kernel_energies: KernelEnergies, gains: Gains) -> tuple[Energies, np.ndarray]:
        """As `Measurer.energies_around`, in arrays."""
        with ignore_overflow():
            return self._measurer.energies_around(kernel_energies, gains, self._variables.value)

    def is_finite_between(self) -> bool:
        """As `Measurer.is_finite_between`."""
        return bool(self._measurer.is_finite_between(self._variables.value))

    def update(self, keep: Sequence[int], gains: Gains) -> UpdateResult:
        """As `Updater.update`."""
        # Nothing is written before masks are chosen, so each variable is read once.
        kernels = [kernel.variable for kernel in self._measurer.recipe.kernels]
        between = itertools.chain.from_iterable(self._measurer.variables_between.values())
        with self._variables.reading_once([*kernels, *between, *self._updater.masks]):
            kernel_energies, totals = self.measure(gains)
            energies, finite_around = self.energies_around(kernel_energies, gains)
            finite_between = self.is_finite_between()
            is_finite = bool(np.isfinite(totals).all() and finite_around.all() and finite_between)
            kept = self._choose_all(energies, keep, gains) if is_finite else [0] * len(self._updater.targets)
        return UpdateResult(totals, finite_around, np.asarray(finite_between), np.asarray(kept))

    def choose_one(
        self, target: int, energies: Energies, keep: Sequence[int], gains: Gains
    ) -> tuple[tuple[np.ndarray, np.ndarray], int]:
        """As `Updater.choose_one`."""
        selection = HostSelection(self._updater.selection, ScratchMemory())
        (kept,) = self._choose([target], energies, keep[target], gains, selection)
        self._variables.flush()
        with ignore_overflow():
            return self._measurer.measure_kernel(self._updater.targets[target], gains, self._variables.value), kept

    def _choose_all(self, energies: Energies, keep: Sequence[int], gains: Gains) -> list[int]:
        targets = range(len(self._updater.targets))
        selection = HostSelection(self._updater.selection, ScratchMemory())
        if self._updater.selection.allocation.pooled:
            return self._choose(targets, energies, keep[0], gains, selection)
        return [kept for target in targets for kept in self._choose([target], energies, keep[target], gains, selection)]

    def _choose(
        self, targets: Sequence[int], energies: Energies, keep: int, gains: Gains, selection: HostSelection
    ) -> list[int]:
        """Chooses and applies masks of kernels that are ranked together; how many weights each keeps."""
        kernels = [self._take_weights(target) for target in targets]
        with ignore_overflow():
            masks = selection.select(kernels, energies, keep, gains).masks
        for target, kernel, mask in zip(targets, kernels, masks, strict=True):
            variable = self._measurer.recipe.kernels[kernel.number].variable
            self._variables.give((variable, _zero_pruned(kernel.values, mask)), (self._updater.masks[target], mask))
        return [int(np.count_nonzero(mask)) for mask in masks]

    def _take_weights(self, target: int) -> KernelWeights:
        number = self._updater.targets[target]
        variable = self._measurer.recipe.kernels[number].variable
        return KernelWeights(number, self._variables.take(variable), self._variables.take(self._updater.masks[target]))


def _zero_pruned(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Weights, in their own dtype, with zeros where a mask is False, in memory of their own."""
    integers = _INTEGERS[weights.itemsize]
    result = compat.host_memory(weights.shape, weights.dtype)
    written = result.reshape(-1).view(integers)
    bits, flags = weights.reshape(-1).view(integers), mask.reshape(-1).view(np.int8)
    for first in range(0, bits.size, _PIECE):
        piece = slice(first, first + _PIECE)
        np.bitwise_and(bits[piece], -flags[piece], out=written[piece])
    return result
