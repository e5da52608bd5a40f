"""Repair without data: moments of what kernels read are carried through the graph of the whole network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tf_lap import compat
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.moments.channels import ChannelMoments
from tf_lap.moments.propagated import find_block_moments, propagate_moments
from tf_lap.reconstruction.fitting import OutputMoments, fit_kernel
from tf_lap.reconstruction.methods import BIAS, WEIGHTS
from tf_lap.reconstruction.plan import KernelPlan, plan_kernels
from tf_lap.reconstruction.report import LayerRepair, RepairReport
from tf_lap.reconstruction.whole_weights import WholeWeights

_NO_MEAN = "no mean of its inputs is known without data: pass data="
_UNCORRELATED = "what is known of its inputs without data does not tell one from another: pass data="


def repair_without_data(
    recipe: Recipe, masks: Mapping[int, np.ndarray], whole_weights: WholeWeights, methods: Sequence[str]
) -> RepairReport:
    """Repairs a pruned model, and says what was done.

    Args:
        recipe: the graph of the model, whose kernels are pruned.
        masks: which weights stay, by the numbers of the kernels that lack some; bool, in the kernels' shapes.
        whole_weights: the weights before pruning.
        methods: of "weights" and "bias".
    """
    plans, reasons = plan_kernels(recipe, masks.keys(), WEIGHTS in methods)
    with whole_weights.in_place():
        read = propagate_moments(recipe)
    layers = []
    for number, plan in plans.items():
        moments = _find_output_moments(plan.kernel, read.get(number, []), whole_weights)
        # Only batch normalization tells means.
        is_shifted = BIAS in methods and plan.shift is not None and moments is not None and bool(moments.mean.any())
        if moments is None or (not is_shifted and moments.second.shape[-1] == 1):
            reasons[number] = _UNCORRELATED if WEIGHTS in methods else _NO_MEAN
        elif not is_shifted and WEIGHTS not in methods:
            reasons[number] = _NO_MEAN
        else:
            layers.append(_repair_kernel(plan, moments, masks[number], whole_weights, WEIGHTS in methods, is_shifted))
    left = [LayerRepair(recipe.kernels[number].path, left=reason) for number, reason in reasons.items()]
    return RepairReport((*layers, *left), tuple(methods))


def _find_output_moments(
    kernel: Kernel, uses: Sequence[ChannelMoments], whole_weights: WholeWeights
) -> OutputMoments | None:
    """The moments of what a kernel reads and puts out, block by block, over its uses.

    None where no use is known, or where uses differ in what is known of them.
    """
    by_use = [find_block_moments(kernel, moments) for moments in uses]
    shapes = {covariance.shape for covariance, _ in by_use}
    if len(shapes) != 1:
        return None
    covariance = sum((covariance for covariance, _ in by_use[1:]), start=by_use[0][0]) / len(by_use)
    means = [mean for _, mean in by_use if mean is not None]
    mean = sum(means[1:], start=means[0]) / len(means) if len(means) == len(by_use) else np.zeros(covariance.shape[:2])
    second = covariance + mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
    matrices = _cut(kernel.layout.to_matrices(whole_weights.value(kernel.variable)), covariance.shape[1])
    cross = second @ matrices
    square = np.einsum("bro,bro->bo", matrices, cross)
    return OutputMoments(second, cross, mean, np.einsum("br,bro->bo", mean, matrices), square)


def _cut(matrices: np.ndarray, size: int) -> np.ndarray:
    """Matrices of groups `(groups, rows, outputs)` as those of blocks, `(blocks, size, outputs)`."""
    return matrices.reshape(-1, size, matrices.shape[-1]).astype(matrices.dtype)


def _repair_kernel(
    plan: KernelPlan,
    moments: OutputMoments,
    mask: np.ndarray,
    whole_weights: WholeWeights,
    fits_weights: bool,
    is_shifted: bool,
) -> LayerRepair:
    kernel, layout, size = plan.kernel, plan.kernel.layout, moments.second.shape[-1]
    by_group = layout.to_matrices(whole_weights.value(kernel.variable)).astype(np.float64)
    matrices, mask = _cut(by_group, size), _cut(layout.to_matrices(mask), size)
    # Where all that it reads is taken for independent, no weight can make up for another.
    fit = fit_kernel(moments, matrices, mask, fits_weights and size > 1, is_shifted)
    compat.assign(kernel.variable, layout.from_matrices(fit.matrices.reshape(by_group.shape)))
    if is_shifted and plan.shift is not None:
        shift = plan.shift_sign * _find_shift(moments, fit.matrices, len(by_group))
        compat.assign(plan.shift, whole_weights.value(plan.shift) + shift.reshape(plan.shift.shape))
    before = _measure_loss(moments, np.where(mask, matrices, 0.0), len(by_group), False)
    return LayerRepair(kernel.path, before, _measure_loss(moments, fit.matrices, len(by_group), is_shifted))


def _find_shift(moments: OutputMoments, matrices: np.ndarray, groups: int) -> np.ndarray:
    """What is to be added to each output so that its mean is that of the whole kernel: `(groups, outputs)`."""
    return moments.find_shift(matrices).reshape(groups, -1, matrices.shape[-1]).sum(axis=1)


def _measure_loss(moments: OutputMoments, matrices: np.ndarray, groups: int, is_shifted: bool) -> float:
    """As `OutputMoments.measure_loss`: blocks are independent of each other, so that what they lose adds up."""
    loss = moments.measure_loss(matrices, True)
    if is_shifted or moments.output_variance <= 0:
        return loss
    return loss + float(np.sum(_find_shift(moments, matrices, groups) ** 2)) / moments.output_variance
