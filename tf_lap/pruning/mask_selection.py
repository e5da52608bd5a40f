"""From scores to masks: what the pruner and tfmot's wrappers have in common.

`MaskSelection` works on tensors: it can be traced, and runs where the weights are. `HostSelection` does the same with
NumPy, where the weights are in the host's memory: a kernel is scored piece by piece, and nothing is traced.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import ERK, LAMP, Allocation, Uniform, protect_best
from tf_lap.graph.energy import Energies
from tf_lap.graph.layouts import Layout
from tf_lap.graph.measurer import Gains, Measurer, Override
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.scale import Scale
from tf_lap.graph.scaled_weights import ScaledWeights
from tf_lap.patterns import Pattern, Ranked, Unstructured
from tf_lap.scores import Score, channel_factors
from tf_lap.topk.layer_adaptive import count_layer_adaptively, rank_layer_adaptively
from tf_lap.topk.select import keep_largest_on_host, make_sort_keys_on_host
from tf_lap.topk.sort_keys import TopK, make_sort_keys
from tf_lap.topk.traced_select import keep_largest

_MAGNITUDE_BITS = np.int32(0x7FFFFFFF)  # all bits of a float32 but its sign


def ignore_overflow() -> contextlib.AbstractContextManager[Any]:
    """NumPy gives no warnings in here of what is not finite: that is looked for afterwards, and named in an error."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


class KernelWeights(NamedTuple):
    """A kernel whose mask is chosen, as it is now.

    Attributes:
        number: the kernel's number in the recipe.
        values: its weights, floating-point, of the kernel's shape.
        live: bool of that shape, False where a weight is pruned already.
    """

    number: int
    values: Any
    live: Any


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MaskSelection:
    """How masks are chosen.

    Attributes:
        measurer: the model.
        score: how much a weight matters.
        allocation: whether kernels are ranked apart or together.
        pattern: in what shape weights go.
    """

    measurer: Measurer
    score: Score
    allocation: Allocation
    pattern: Pattern

    @classmethod
    def of(
        cls, recipe: Recipe, override: Override, score: Score, allocation: Allocation, pattern: Pattern
    ) -> MaskSelection:
        """The choice of masks in a resolved model, whose energies are those that the score asks for."""
        distance = score.distance if score.needs_energies else 0
        measurer = Measurer(recipe, Scale.of(recipe), distance, override, not score.gains_in_energies)
        return cls(measurer, score, allocation, pattern)

    def select(
        self,
        kernels: Sequence[KernelWeights],
        energies: Energies,
        keep: tf.Tensor,
        gains: Gains,
        groups: Sequence[Sequence[int]],
    ) -> TopK:
        """The masks of some kernels.

        Args:
            kernels: the kernels, in tensors.
            energies: as `Measurer.energies_around` gives them.
            keep: int32, how many units each group keeps.
            gains: what weights are multiplied by before they are scored.
            groups: which of the kernels are ranked together, by their places among `kernels`.

        Returns:
            Bool masks of the kernels' shapes, and for each group the lowest score that is kept.
        """
        least = [self.pattern.least(self._layout(kernel).plain) for kernel in kernels]
        more = {i: keep[g] > sum(least[k] for k in group) for g, group in enumerate(groups) for i in group}
        ranked = [self.rank(kernel, more[i], energies, gains) for i, kernel in enumerate(kernels)]
        top = keep_largest([make_sort_keys(*units) for units in ranked], keep, groups)
        masks = [self.expand_mask(kernel, mask) for kernel, mask in zip(kernels, top.masks, strict=True)]
        return TopK(masks, top.threshold)

    def rank(self, kernel: KernelWeights, more: tf.Tensor, energies: Energies, gains: Gains) -> Ranked:
        """The units that are ranked in place of a kernel's weights: see `Pattern.pool` and `Pattern.protect`.

        Args:
            kernel: the kernel, in tensors.
            more: a bool scalar, as `Pattern.protect` takes it.
            energies: as `select` takes them.
            gains: likewise.
        """
        scores = tf.where(kernel.live, self.compute_scores(kernel.number, kernel.values, energies, gains), 0.0)
        layout = self._layout(kernel)
        ranked = Ranked(*map(layout.to_plain, (scores, compat.value(kernel.values), kernel.live)))
        units = self.pattern.pool(ranked, layout.plain)
        comparable = self.allocation.comparable(units.scores, units.live, self.score.norm_order)
        units = self.pattern.protect(units._replace(scores=comparable), layout.plain, more)
        return units._replace(scores=protect_best(units.scores, units.live)) if self.allocation.pooled else units

    def compute_scores(self, number: int, weights: Any, energies: Energies, gains: Gains) -> tf.Tensor:
        """The scores of a kernel's weights: float32 of the kernel's shape, not negative.

        Args:
            number: the kernel's number in the recipe.
            weights: its values.
            energies: as `select` takes them.
            gains: likewise.

        Raises:
            ValueError: a score of the user's gives scores of another shape.
        """
        kernel = self.measurer.recipe.kernels[number]
        incoming, outgoing = (tf.convert_to_tensor(side[number]) for side in energies)
        scores = self.score.score(kernel, self.measurer.scaled(number, gains, weights), incoming, outgoing)
        if tuple(scores.shape) != kernel.layout.shape:
            raise ValueError(
                f"score={self.score!r} gives scores of shape {tuple(scores.shape)} for the kernel of layer "
                f"{kernel.path!r}, whose shape is {kernel.layout.shape}: return one for each weight, in that shape"
            )
        # Else a -0.0 would come before all numbers.
        return tf.abs(scores)

    def expand_mask(self, kernel: KernelWeights, kept: tf.Tensor) -> tf.Tensor:
        """A kernel's mask, bool, where `kept` says which units stay.

        Raises:
            ValueError: a pattern of the user's gives a mask of another shape or dtype.
        """
        layout = self._layout(kernel)
        mask = self.pattern.expand(kept, layout.to_plain(kernel.live), layout.plain)
        if tuple(mask.shape) != layout.plain.shape or mask.dtype != tf.bool:
            raise ValueError(
                f"pattern={self.pattern!r} gives a mask of shape {tuple(mask.shape)} and dtype {mask.dtype.name} for "
                f"the kernel of layer {self.measurer.recipe.kernels[kernel.number].path!r}: return bool of shape "
                f"{layout.plain.shape}"
            )
        return layout.from_plain(mask)

    def _layout(self, kernel: KernelWeights) -> Layout:
        return self.measurer.recipe.kernels[kernel.number].layout


class ScratchMemory:
    """Arrays that are used again and again: new memory takes the system as long as the work that is done in it."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, type], np.ndarray] = {}

    def __call__(self, name: str, size: int, dtype: type) -> np.ndarray:
        """An array of a size, with any content. Other names have other memory; the same name may have the same."""
        array = self._arrays.get((name, dtype))
        if array is None or array.size < size:
            array = self._arrays[name, dtype] = np.empty(size, dtype)
        return array[:size]


class HostSelection:
    """What `MaskSelection` does, with NumPy, for a kernel or a group of kernels at a time.

    Args:
        selection: how masks are chosen.
        memory: what scores are worked out in.
    """

    def __init__(self, selection: MaskSelection, memory: ScratchMemory) -> None:
        self._selection, self._memory = selection, memory
        # Exactly these classes: a subclass may shape masks, or rank weights, in another way.
        ranks_weights = type(selection.allocation) in (Uniform, ERK, LAMP)
        self._is_unstructured = type(selection.pattern) is Unstructured and ranks_weights

    def select(self, kernels: Sequence[KernelWeights], energies: Energies, keep: int, gains: Gains) -> TopK:
        """The masks of kernels that are ranked together.

        Args:
            kernels: the kernels, in arrays.
            energies: as `MaskSelection.select` takes them.
            keep: how many units stay.
            gains: as `MaskSelection.select` takes them.

        Returns:
            Bool arrays of the kernels' shapes, in memory that TensorFlow takes without a copy, and the lowest score
            that is kept.
        """
        if self._is_unstructured:
            counts = [keep] if len(kernels) == 1 else self._count_layer_adaptively(kernels, energies, keep, gains)
            if counts is not None:
                tops = [
                    self._select_unstructured(kernel, energies, count, gains)
                    for kernel, count in zip(kernels, counts, strict=True)
                ]
                return TopK([mask for top in tops for mask in top.masks], min(top.threshold for top in tops))
        pattern, recipe = self._selection.pattern, self._selection.measurer.recipe
        tensors = [KernelWeights(n, tf.constant(values), tf.constant(live)) for n, values, live in kernels]
        more = tf.constant(keep > sum(pattern.least(recipe.kernels[kernel.number].layout.plain) for kernel in kernels))
        ranked_tensors = [self._selection.rank(kernel, more, energies, gains) for kernel in tensors]
        ranked = [Ranked(*map(np.asarray, units)) for units in ranked_tensors]
        score_bits = [scores.view(np.int32) * (live != 0) for scores, _, live in ranked]
        top = keep_largest_on_host(score_bits, keep, lambda: [make_sort_keys_on_host(*units) for units in ranked])
        masks = [
            np.asarray(self._selection.expand_mask(kernel, tf.constant(mask)))
            for kernel, mask in zip(tensors, top.masks, strict=True)
        ]
        return TopK(masks, top.threshold)

    def _count_layer_adaptively(
        self, kernels: Sequence[KernelWeights], energies: Energies, keep: int, gains: Gains
    ) -> list[int] | None:
        """How many weights each kernel keeps by layer-adaptive scores; None where scores do not say it."""
        ranked = [
            rank_layer_adaptively(self.compute_score_bits(_as_float32(kernel), energies, gains), keep)
            for kernel in kernels
        ]
        return count_layer_adaptively(ranked, keep)

    def _select_unstructured(self, kernel: KernelWeights, energies: Energies, keep: int, gains: Gains) -> TopK:
        """The mask of a kernel whose weights are ranked by their scores alone."""
        kernel = _as_float32(kernel)
        bits = self.compute_score_bits(kernel, energies, gains)
        mask = compat.host_memory(bits.shape, np.bool_)
        return keep_largest_on_host(
            [bits],
            keep,
            lambda: [make_sort_keys_on_host(bits.view(np.float32), kernel.values, kernel.live)],
            self._memory,
            [mask],
        )

    def compute_score_bits(self, kernel: KernelWeights, energies: Energies, gains: Gains) -> np.ndarray:
        """The bits of a kernel's scores, int32 of its shape; 0 where a weight is pruned.

        Args:
            kernel: the kernel, in float32.
            energies: as `MaskSelection.select` takes them.
            gains: likewise.
        """
        number, weights, live = kernel
        measurer = self._selection.measurer
        layout = measurer.recipe.kernels[number].layout
        factors = None
        if not layout.is_grouped and layout.is_in_order:
            factors = channel_factors(self._selection.score, *(np.asarray(side[number]) for side in energies))
        if factors is None:
            scores = self._selection.compute_scores(number, tf.constant(weights), energies, gains)
            return np.where(live, np.asarray(scores).view(np.int32), 0)
        by_input, by_output = factors
        rows, columns = (by_output, by_input) if layout.plain.swapped else (by_input, by_output)
        scaled = ScaledWeights.of(layout, weights, measurer.scale.unit(number), gains.get(number))
        row_factors = np.tile(rows, layout.size // (scaled.columns * len(rows)))[:, np.newaxis]
        live_rows = live.reshape(-1, scaled.columns)
        bits = self._memory("bits", layout.size, np.int32).reshape(live_rows.shape)
        products = bits.view(np.float32)
        for place, piece in scaled.pieces():
            product = np.multiply(row_factors[place], columns, out=products[place])
            product *= piece
            magnitude_bits = self._memory("magnitude bits", piece.size, np.int32).reshape(piece.shape)
            # The magnitude of a live weight, or nothing.
            bits[place] &= np.multiply(live_rows[place], _MAGNITUDE_BITS, out=magnitude_bits)
        return bits.reshape(layout.shape)


def _as_float32(kernel: KernelWeights) -> KernelWeights:
    return kernel._replace(values=kernel.values.astype(np.float32, copy=False))
