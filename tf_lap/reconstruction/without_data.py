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

_UNCORRELATED = "what is known of its inputs without data does not tell one from another: pass data="


def repair_without_data(
    recipe: Recipe, masks: Mapping[int, np.ndarray], whole: WholeWeights, methods: Sequence[str]
) -> RepairReport:
    """Repairs a pruned model, and says what was done.

    Args:
        recipe: the graph of the model, whose kernels are pruned.
        masks: which weights stay, by the numbers of the pruned kernels; bool, in the kernels' shapes.
        whole: the weights before pruning.
        methods: of "weights" and "bias".
    """
    plans, reasons = plan_kernels(recipe, masks.keys())
    with whole.in_place():
        read = propagate_moments(recipe)
    layers = []
    for number, plan in plans.items():
        moments = _find_output_moments(plan.kernel, read.get(number, []), whole)
        if moments is None:
            reasons[number] = _UNCORRELATED
        elif not masks[number].all():
            layers.append(_repair_kernel(plan, moments, masks[number], whole, methods))
    left = [LayerRepair(recipe.kernels[number].path, left=reason) for number, reason in reasons.items()]
    return RepairReport((*layers, *left), tuple(methods))


def _find_output_moments(kernel: Kernel, uses: Sequence[ChannelMoments], whole: WholeWeights) -> OutputMoments | None:
    """The moments of what a kernel reads and puts out, block by block, over its uses.

    None where all that it reads is taken for independent, so that no weight can make up for another.
    """
    by_use = [find_block_moments(kernel, moments) for moments in uses]
    shapes = {covariance.shape for covariance, _ in by_use}
    if len(shapes) != 1 or next(iter(shapes))[-1] == 1:
        return None
    covariance = sum((covariance for covariance, _ in by_use[1:]), start=by_use[0][0]) / len(by_use)
    known = [mean for _, mean in by_use if mean is not None]
    mean = sum(known[1:], start=known[0]) / len(known) if len(known) == len(by_use) else np.zeros(covariance.shape[:2])
    second = covariance + mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
    matrices = _cut(kernel.layout.to_matrices(whole.value(kernel.variable)), covariance.shape[1])
    cross = second @ matrices
    square = np.einsum("bro,bro->bo", matrices, cross)
    return OutputMoments(second, cross, mean, np.einsum("br,bro->bo", mean, matrices), square)


def _cut(matrices: np.ndarray, size: int) -> np.ndarray:
    """Matrices of groups `(groups, rows, outputs)` as those of blocks, `(blocks, size, outputs)`."""
    return matrices.reshape(-1, size, matrices.shape[-1]).astype(matrices.dtype)


def _repair_kernel(
    plan: KernelPlan, moments: OutputMoments, mask: np.ndarray, whole: WholeWeights, methods: Sequence[str]
) -> LayerRepair:
    kernel, layout, size = plan.kernel, plan.kernel.layout, moments.second.shape[-1]
    by_group = layout.to_matrices(whole.value(kernel.variable)).astype(np.float64)
    matrices, mask = _cut(by_group, size), _cut(layout.to_matrices(mask), size)
    # Only batch normalization tells means.
    shifted = plan.shift if BIAS in methods and moments.mean.any() else None
    fit = fit_kernel(moments, matrices, mask, WEIGHTS in methods, shifted is not None)
    compat.assign(kernel.variable, layout.from_matrices(fit.matrices.reshape(by_group.shape)))
    if shifted is not None:
        shift = fit.shift.reshape(len(by_group), -1, by_group.shape[-1]).sum(axis=1)
        compat.assign(shifted, whole.value(shifted) + plan.shift_sign * shift.reshape(shifted.shape))
    before = moments.measure_loss(np.where(mask, matrices, 0.0), False)
    return LayerRepair(kernel.path, before, moments.measure_loss(fit.matrices, shifted is not None))
