"""One mask update by whole channels: score them, choose which stay, zero what reads and puts out the others.

The lookahead score of a channel is what its removal does to the operators that read it. For each use of a reader that
is the energy put into the channel, times the energy of the weights that read it. The score is the root of their sum,
the norm of the operators' change. Any other score is pooled: the L2 norm of the scores of all weights that go with the
channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.channels.plan import ChannelPlan, sum_sides
from tf_lap.channels.spread import find_spread
from tf_lap.graph.energy import Energies, KernelEnergies
from tf_lap.graph.measurer import Gains
from tf_lap.pruning.mask_selection import MaskSelection
from tf_lap.pruning.mask_update import Updater
from tf_lap.scores import Lookahead


def update_channels(plan: ChannelPlan, updater: Updater, scores: np.ndarray, keep: Sequence[int]) -> list[int]:
    """Chooses which channels stay and applies the masks; how many weights each target keeps.

    Args:
        plan: the groups of channels.
        updater: the kernels, their masks, and how these are chosen.
        scores: how much each class matters: `(classes,)`, not negative.
        keep: how many channels each group keeps, or all together where they are ranked together.
    """
    masks = {target: mask.numpy() for target, mask in zip(updater.targets, updater.masks, strict=True)}
    alive = plan.find_alive(masks)
    allocation = updater.selection.allocation
    group_counts = plan.divide(scores, alive, keep[0], allocation) if allocation.pooled else keep
    kept = plan.choose(scores, alive, group_counts)
    counts = []
    for target, variable in zip(updater.targets, updater.masks, strict=True):
        mask = masks[target] & plan.expand(target, kept)
        kernel = plan.recipe.kernels[target].variable
        values = tf.convert_to_tensor(kernel)
        variable.assign(mask)
        compat.assign(kernel, tf.where(mask, values, tf.zeros([], values.dtype)))
        counts.append(int(np.count_nonzero(mask)))
    return counts


def score_channels(
    plan: ChannelPlan, selection: MaskSelection, kernel_energies: KernelEnergies, energies: Energies, gains: Gains
) -> np.ndarray:
    """The scores of all classes of channels: float64 `(classes,)`, not negative; 0 where nothing of a class counts.

    Args:
        plan: the groups of channels.
        selection: how weights are scored.
        kernel_energies: as `Measurer.measure` gives them.
        energies: as `Measurer.energies_around` gives them.
        gains: what weights are multiplied by before they are scored.
    """
    coupling = plan.coupling
    squares = np.zeros(coupling.count)
    if type(selection.score) is Lookahead and selection.score.needs_energies:
        _add_changes(squares, plan, selection, kernel_energies, energies)
        return np.sqrt(squares)
    for number, kernel in enumerate(plan.recipe.kernels):
        weights = compat.value(kernel.variable)
        scores = np.asarray(selection.compute_scores(number, weights, energies, gains))
        by_input, by_output = sum_sides(kernel.layout, scores)
        np.add.at(squares, coupling.kernel_inputs[number], by_input)
        np.add.at(squares, coupling.kernel_outputs[number], by_output)
    return np.sqrt(squares)


def _add_changes(
    squares: np.ndarray,
    plan: ChannelPlan,
    selection: MaskSelection,
    kernel_energies: KernelEnergies,
    energies: Energies,
) -> None:
    """Adds to each class by how much its removal changes the operators that read it, as squared norms."""
    measurer, coupling = selection.measurer, plan.coupling
    # Farther sweeps and single sides have energies of their own.
    has_spread = selection.score == Lookahead()
    spread = find_spread(plan.recipe, kernel_energies, measurer.scale.end()) if has_spread else []
    for number, kernel in enumerate(plan.recipe.kernels):
        if kernel.layout.is_grouped:
            continue  # it reads within groups of channels, which go whole; what is behind reads them
        for use in range(kernel.uses):
            is_transposed = (number, use) in plan.recipe.transposed_uses
            if has_spread and number not in measurer.override:
                put_in = spread[number][use]
            else:
                put_in = np.asarray(energies[is_transposed][number][use], np.float64)
            read = np.asarray(kernel_energies[number][is_transposed], np.float64)
            sides = (coupling.kernel_inputs[number], coupling.kernel_outputs[number])
            np.add.at(squares, sides[is_transposed], put_in * read)
