"""One mask update on the host, with NumPy: no graph is traced, and every update costs what the first one does.

Where variables live in the host's memory, NumPy reads that memory without a copy. A kernel is scored piece by piece, so
that what one operation leaves for the next is still in the processor's cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import ERK, Uniform
from tf_lap.graph.energy import Energies, KernelEnergies
from tf_lap.graph.energy_maps import Reader
from tf_lap.graph.kernels import Layout
from tf_lap.patterns import Ranked, Unstructured
from tf_lap.pruning.mask_update import Gains, Updated, Updater
from tf_lap.pruning.traced_update import TracedUpdater
from tf_lap.scores import channel_factors
from tf_lap.topk.select import select, sort_keys

_PIECE = 1 << 17  # weights that are worked on at once: their scores stay in a processor's cache
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}  # by the bytes of a number
_MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float32 but its sign


def quiet() -> contextlib.AbstractContextManager[Any]:
    """NumPy does not warn in here of what is not finite: that is looked for afterwards, and named in an error."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


class Memory:
    """Arrays that are used again and again: new memory takes the system as long as the work that is done in it."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, type], np.ndarray] = {}

    def __call__(self, name: str, size: int, dtype: type) -> np.ndarray:
        """An array of a size, of which nothing is known but that whoever uses another name has another one."""
        array = self._arrays.get((name, dtype))
        if array is None or array.size < size:
            array = self._arrays[name, dtype] = np.empty(size, dtype)
        return array[:size]


def engine(updater: Updater) -> HostUpdater | TracedUpdater:
    """What computes an updater's updates: NumPy where the kernels are in the host's memory, else traced functions."""
    on_host = all(compat.is_on_host(kernel.variable) for kernel in updater.recipe.kernels)
    return HostUpdater(updater) if on_host else TracedUpdater(updater)


class HostUpdater:
    """What one pruner computes, on the host.

    Args:
        updater: the model, the masks of its kernels, and the choices.
        read: reads a variable into a float32 array.
    """

    def __init__(self, updater: Updater, read: Reader = compat.host_value) -> None:
        self._updater, self._read = updater, read
        self._recipe, self._targets, self._masks = updater.recipe, updater.targets, updater.masks

    def measure(self, gains: Gains) -> tuple[KernelEnergies, np.ndarray]:
        """As `Updater.measure`, in arrays."""
        scale = self._updater.scale
        with quiet():
            kernel_energies = list(self._kernel_energies(range(len(self._recipe.kernels)), gains))
            return kernel_energies, np.asarray(
                [read.sum() / scale.factor(number) for number, (read, _) in enumerate(kernel_energies)]
            )

    def all_energies(self, kernel_energies: KernelEnergies, gains: Gains) -> tuple[Energies, np.ndarray]:
        """As `Updater.all_energies`, in arrays."""
        with quiet():
            energies, finite = self._updater.all_energies(kernel_energies, gains, self._read)
        return energies, np.asarray(finite)

    def between_sound(self) -> bool:
        """As `Updater.between_sound`."""
        weights = (variable for variables in self._updater.between.values() for variable in variables)
        return all(bool(np.isfinite(self._read(variable)).all()) for variable in weights)

    def update(self, keep: Sequence[int], gains: Gains) -> Updated:
        """As `Updater.update`."""
        kernel_energies, totals = self.measure(gains)
        still = HostUpdater(self._updater, _once(self._read))  # nothing is written before masks are chosen
        energies, around = still.all_energies(kernel_energies, gains)
        between = still.between_sound()
        sound = bool(np.isfinite(totals).all() and around.all() and between)
        kept = self._choose_all(energies, keep, gains) if sound else [0] * len(self._targets)
        return Updated(totals, around, np.asarray(between), np.asarray(kept))

    def choose_one(
        self, target: int, energies: Energies, keep: Sequence[int], gains: Gains
    ) -> tuple[tuple[np.ndarray, np.ndarray], int]:
        """As `Updater.choose_one`."""
        (kept,) = self._choose_apart([target], energies, keep, gains)
        (kernel_energies,) = self._kernel_energies([self._targets[target]], gains)
        return kernel_energies, kept

    def _kernel_energies(self, numbers: Sequence[int], gains: Gains) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The energies that kernels read and put out, on the scale that all kernels share."""
        kernels, scale = self._recipe.kernels, self._updater.scale
        for number in numbers:
            seen = _Seen(self._read(kernels[number].variable), scale.unit(number), gains.get(number))
            read, put = _channel_energies(seen, kernels[number].layout)
            factor = np.float32(scale.factor(number))
            yield (read, put) if factor == 1 else (read * factor, put * factor)

    def _choose_all(self, energies: Energies, keep: Sequence[int], gains: Gains) -> list[int]:
        targets = list(range(len(self._targets)))
        if self._updater.allocation.pooled:
            return self._choose_together(targets, energies, keep[0], gains)
        return self._choose_apart(targets, energies, keep, gains)

    def _choose_apart(self, targets: Sequence[int], energies: Energies, keep: Sequence[int], gains: Gains) -> list[int]:
        """Chooses and applies masks of kernels that are ranked each by itself; how many weights each keeps."""
        # A subclass may shape masks, or rank weights, in another way than the class that it is made of.
        plain = type(self._updater.pattern) is Unstructured and type(self._updater.allocation) in (Uniform, ERK)
        if not plain:
            return [
                kept for target in targets for kept in self._choose_together([target], energies, keep[target], gains)
            ]
        memory = Memory()
        with quiet():
            return [self._choose_plainly(target, energies, keep[target], gains, memory) for target in targets]

    def _choose_plainly(self, target: int, energies: Energies, keep: int, gains: Gains, memory: Memory) -> int:
        """Chooses and applies the mask of a kernel, whose weights are ranked by their scores alone."""
        number, (weights, live) = self._targets[target], self._state(target)
        values = weights.astype(np.float32, copy=False)
        bits = score_bits(self._updater, number, values, live, energies, gains, memory)
        (mask,) = select(
            [bits], keep, lambda: [sort_keys(bits.view(np.float32), values, live)], memory, compat.host_memory
        )
        return self._apply(target, mask, weights)

    def _choose_together(self, targets: Sequence[int], energies: Energies, keep: int, gains: Gains) -> list[int]:
        """Chooses and applies masks of kernels that are ranked together; how many weights each keeps."""
        updater, pattern = self._updater, self._updater.pattern
        layouts = [self._recipe.kernels[self._targets[target]].layout for target in targets]
        states = [self._state(target) for target in targets]
        more = tf.constant(keep > sum(pattern.least(layout) for layout in layouts))
        ranked = [
            Ranked(*map(_array, updater.ranked(target, tf.constant(weights), tf.constant(live), more, energies, gains)))
            for target, (weights, live) in zip(targets, states, strict=True)
        ]
        bits = [each.scores.view(np.int32) * (np.asarray(each.live) != 0) for each in ranked]
        masks = select(bits, keep, lambda: [sort_keys(*each) for each in ranked])
        expanded = [
            _array(updater.expanded(target, tf.constant(mask), tf.constant(live)))
            for target, mask, (_, live) in zip(targets, masks, states, strict=True)
        ]
        return [
            self._apply(target, mask, weights)
            for target, mask, (weights, _) in zip(targets, expanded, states, strict=True)
        ]

    def _state(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        """A kernel's weights, in their own dtype, and its mask."""
        variable = self._recipe.kernels[self._targets[target]].variable
        return compat.host_array(variable), compat.host_array(self._masks[target])

    def _apply(self, target: int, mask: np.ndarray, weights: np.ndarray) -> int:
        """Writes a mask, and zeros where it drops weights; how many it keeps."""
        variable = self._recipe.kernels[self._targets[target]].variable
        kept = int(np.count_nonzero(mask))
        compat.host_give(variable, _zeroed(weights, mask))
        compat.host_give(self._masks[target], mask)
        return kept


def _once(read: Reader) -> Reader:
    """Reads each variable once, for models have hundreds between their kernels."""
    arrays: dict[int, np.ndarray] = {}

    def read_once(variable: Any) -> np.ndarray:
        if id(variable) not in arrays:
            arrays[id(variable)] = read(variable)
        return arrays[id(variable)]

    return read_once


class _Seen(NamedTuple):
    """A kernel's weights as they are scored: times a unit, and times a gain where there is one.

    Attributes:
        weights: float32, as they are.
        unit: a power of two.
        gain: None, or what broadcasts against the weights.
    """

    weights: np.ndarray
    unit: float
    gain: Any

    @property
    def columns(self) -> int:
        """How many weights lie on the last axis."""
        return self.weights.shape[-1]

    def pieces(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows of the weights after the others, with their place among all rows."""
        matrix = self.weights.reshape(-1, self.columns)
        gain = None if self.gain is None else np.broadcast_to(self.gain, self.weights.shape).reshape(matrix.shape)
        rows = max(1, _PIECE // self.columns)
        for first in range(0, len(matrix), rows):
            place = slice(first, first + rows)
            piece = matrix[place]
            if self.unit != 1:
                piece = piece * np.float32(self.unit)
            yield place, piece if gain is None else piece * gain[place]


def _channel_energies(seen: _Seen, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """What `Layout.energies` gives."""
    if layout.groups > 1:
        weights = np.concatenate([piece for _, piece in seen.pieces()])
        squares = np.square(weights).reshape(-1, *layout.shape[-2:]).sum(axis=0)
        by_group = squares.reshape(len(squares), layout.groups, -1)
        return by_group.sum(axis=2).T.reshape(-1), squares.sum(axis=0)
    row_energies = np.empty(layout.size // seen.columns, np.float32)
    column_energies = np.zeros(seen.columns, np.float32)
    for place, piece in seen.pieces():
        np.einsum("ij,ij->i", piece, piece, out=row_energies[place])
        column_energies += np.einsum("ij,ij->j", piece, piece)
    over_taps = row_energies.reshape(-1, layout.shape[-2]).sum(axis=0)
    return (column_energies, over_taps) if layout.swapped else (over_taps, column_energies)


def score_bits(
    updater: Updater,
    number: int,
    weights: np.ndarray,
    live: np.ndarray,
    energies: Energies,
    gains: Gains,
    memory: Memory,
) -> np.ndarray:
    """The bits of a kernel's scores, int32; 0 where a weight is pruned.

    Args:
        updater: the model and the choices.
        number: the kernel's number in the recipe.
        weights: its values, float32.
        live: bool, False where a weight is pruned.
        energies: as `Updater.all_energies` gives them.
        gains: as `Updater.update` takes them.
        memory: what the result is in.
    """
    layout = updater.recipe.kernels[number].layout
    factors = None
    if layout.groups == 1:
        factors = channel_factors(updater.score, *(np.asarray(side[number]) for side in energies))
    if factors is None:
        scores = updater.scores(number, tf.constant(weights), energies, gains)
        return np.where(live, _array(scores).view(np.int32), 0)
    by_input, by_output = factors
    rows, columns = (by_output, by_input) if layout.swapped else (by_input, by_output)
    seen = _Seen(weights, updater.scale.unit(number), gains.get(number))
    row_factors = np.tile(rows, layout.size // (seen.columns * len(rows)))[:, np.newaxis]
    stays = live.reshape(-1, seen.columns)
    bits = memory("bits", layout.size, np.int32).reshape(stays.shape)
    products = bits.view(np.float32)
    for place, piece in seen.pieces():
        product = np.multiply(row_factors[place], columns, out=products[place])
        product *= piece
        taken = memory("taken", piece.size, np.int32).reshape(piece.shape)
        bits[place] &= np.multiply(stays[place], _MAGNITUDE, out=taken)  # the magnitude of a live weight, or nothing
    return bits.reshape(layout.shape)


def _zeroed(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Weights, in their own dtype, with zeros where a mask is False, in memory of their own."""
    integers = _INTEGERS[weights.itemsize]
    result = compat.host_memory(weights.shape, weights.dtype)
    written = result.reshape(-1).view(integers)
    bits, flags = weights.reshape(-1).view(integers), mask.reshape(-1).view(np.int8)
    for first in range(0, bits.size, _PIECE):
        piece = slice(first, first + _PIECE)
        np.bitwise_and(bits[piece], -flags[piece], out=written[piece])
    return result


def _array(tensor: tf.Tensor) -> np.ndarray:
    """A tensor's values, without a copy where they lie in the host's memory."""
    return np.asarray(tensor)
