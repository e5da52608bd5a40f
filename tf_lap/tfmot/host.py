"""The masks of a model's wrappers, chosen on the host in one call out of the training step's graph.

The step that is traced has one operation for all of it, because many operations take long to trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import keep_count
from tf_lap.graph.energy import Energies
from tf_lap.graph.energy_maps import Reader
from tf_lap.patterns import Ranked
from tf_lap.pruning.host_update import HostUpdater, Memory, quiet, score_bits
from tf_lap.pruning.mask_update import AROUND, BETWEEN, Updater
from tf_lap.tfmot.weight import Weight, blocks, expanded, m_zeros_of_n
from tf_lap.topk.select import select, sort_keys

KERNEL = (
    "the kernel of layer {} holds NaN, infinity, or weights whose squares do not add up in float32: restore sound "
    "weights before pruning"
)
"""Without quotes around the path: TensorFlow escapes them."""


class Request(NamedTuple):
    """What is asked of one weight.

    Attributes:
        weight: the weight.
        order: the number of the order that it belongs to.
        keep: a float64 scalar, the fraction to keep.
    """

    weight: Weight
    order: int
    keep: tf.Tensor


class NewMask(NamedTuple):
    """A weight's mask after a step: a new one where that was due, else the one that it had.

    Attributes:
        weight: the weight.
        mask: ones and zeros, float32, of the weight's shape.
        lowest: the lowest score that the mask kept when it was chosen, a float32 scalar.
    """

    weight: Weight
    mask: tf.Tensor
    lowest: tf.Tensor


def new_masks(
    updater: Updater | None, weights: Sequence[Weight], requests: Sequence[Request], due: tf.Tensor
) -> tuple[tf.Tensor, list[NewMask]]:
    """Chooses masks, in one operation of the graph that is traced now, or at once.

    Args:
        updater: what measures the model; None where the weights have no place in a graph.
        weights: all weights of the wrappers, which must be finite.
        requests: what is asked; of one weight several things may be, one after the other.
        due: bool, for each order whether it is followed now.

    Returns:
        A string that says what is not finite, empty where all is, and the masks of the weights that are asked. Where
        something is not finite they are what they were.
    """
    asked = list(dict.fromkeys(request.weight for request in requests))
    variables = [variable for weight in weights for variable in (weight.variable, weight.mask, weight.threshold)]
    if updater is not None:
        variables += [kernel.variable for kernel in updater.recipe.kernels]
        variables += [variable for between in updater.between.values() for variable in between]
    variables = list({id(variable): variable for variable in variables}.values())

    def choose(due: np.ndarray, keep: np.ndarray, *values: np.ndarray) -> list[Any]:
        arrays = {id(v): np.asarray(value, np.float32) for v, value in zip(variables, values, strict=True)}

        def read(variable: Any) -> np.ndarray:
            known = arrays.get(id(variable))
            return compat.host_value(variable) if known is None else known

        masks = {weight: read(weight.mask) for weight in asked}
        lowest = {weight: np.float32(read(weight.threshold)) for weight in asked}
        memory = Memory()
        with quiet():
            fault, energies = _measured(updater, weights, read)
            for request, fraction in zip(requests, keep, strict=True):
                if due[request.order] and not fault:
                    weight = request.weight
                    masks[weight], lowest[weight] = _chosen(
                        weight, read(weight.variable), masks[weight], fraction, updater, energies, memory
                    )
        return [fault.encode(), np.asarray([lowest[weight] for weight in asked], np.float32), *masks.values()]

    keep = tf.stack([request.keep for request in requests])
    results = tf.numpy_function(
        choose,
        [due, keep, *map(compat.value, variables)],
        [tf.string, tf.float32, *[tf.float32] * len(asked)],
    )
    fault, lowest, *masks = results
    chosen = []
    for number, (weight, mask) in enumerate(zip(asked, masks, strict=True)):
        mask.set_shape(weight.variable.shape)
        chosen.append(NewMask(weight, mask, lowest[number]))
    return fault, chosen


def _measured(updater: Updater | None, weights: Sequence[Weight], read: Reader) -> tuple[str, Energies | None]:
    """What is not finite, in words, or an empty string; and the energies around the kernels."""
    for weight in weights:
        if weight.kernel is None and not np.isfinite(np.abs(read(weight.variable)).sum()):
            return KERNEL.format(weight.path), None
    if updater is None:
        return "", None
    host = HostUpdater(updater, read)
    kernel_energies, totals = host.measure({})
    energies, around = host.all_energies(kernel_energies, {})
    # A kernel that is not finite makes what surrounds its neighbours so: it is named before them.
    for text, fine in ((KERNEL, np.isfinite(totals)), (AROUND, around)):
        for kernel, flag in zip(updater.recipe.kernels, fine, strict=True):
            if not flag:
                return text.format(kernel.path), None
    return "" if host.between_sound() else BETWEEN, energies


def _chosen(
    weight: Weight,
    values: np.ndarray,
    mask: np.ndarray,
    keep: float,
    updater: Updater | None,
    energies: Energies | None,
    memory: Memory,
) -> tuple[np.ndarray, np.float32]:
    """The new mask of a weight, and the lowest score that it keeps."""
    live = mask != 0
    if weight.kernel is None or updater is None or energies is None:
        scores = np.where(live, np.abs(values), np.float32(0))
    else:
        scores = score_bits(updater, weight.kernel, values, live, energies, {}, memory).view(np.float32)
    wrapper = weight.wrapper
    if wrapper.sparsity_m_by_n:
        kept = m_zeros_of_n(tf.constant(scores), wrapper.sparsity_m_by_n).numpy() * mask
        return kept, np.float32(999)  # as tfmot
    size = tuple(wrapper.block_size)
    ranked = Ranked(scores, values, live)
    if size != (1, 1):
        pooled = blocks(*map(tf.constant, (scores, values, mask)), size, wrapper.block_pooling_type)
        ranked = Ranked(*map(np.asarray, pooled))
    count = keep_count(ranked.scores.size, 1 - keep)
    (kept,) = select([ranked.scores.view(np.int32)], count, lambda: [sort_keys(*ranked)])
    all_stay = np.count_nonzero(kept) < count
    lowest = np.float32(0) if all_stay else ranked.scores[kept].min()
    if size != (1, 1):
        kept = expanded(tf.constant(kept), size, values.shape).numpy()
    return kept.astype(np.float32), lowest
