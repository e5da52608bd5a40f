"""Moments of what kernels read, without data: carried through the graph from the network's inputs.

A network's inputs are taken for independent and of variance 1, and what reaches a kernel for a mixture of Gaussians.
A kernel W makes `W^T G W` of the second moment G. Positions of a convolution's filter are taken for independent. Batch
normalization tells the means and the variances of its outputs. Where channels cannot be followed, they begin anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.energy_maps import Chain, ChannelScale, EnergyMap, Gather, Identity, Sum
from tf_lap.graph.model_graph import BoundaryStep, Kernel, KernelStep, Recipe, RuleStep
from tf_lap.graph.rule_tables import has_activation, is_activation
from tf_lap.moments.activations import activate, as_function
from tf_lap.moments.channels import ChannelMoments, add_independent

_NORMALIZING = ("LayerNormalization", "RMSNormalization", "GroupNormalization", "UnitNormalization")


def propagate_moments(recipe: Recipe) -> dict[int, list[ChannelMoments]]:
    """The moments of the channels that each kernel reads, for each of its uses, by the kernels' numbers.

    Args:
        recipe: the recipe of the model, whose present weights count.
    """
    tensors: dict[int, ChannelMoments] = {}
    read: dict[int, list[ChannelMoments]] = {}

    def find(tensor: int) -> ChannelMoments:
        return tensors.get(tensor, ChannelMoments.alike())

    for step in recipe.steps:
        match step:
            case KernelStep():
                kernel, moments = recipe.kernels[step.kernel], find(step.source)
                if step.is_transposed or step.target in tensors or not step.read_axes:
                    tensors[step.target] = ChannelMoments.alike()
                else:
                    moments = moments.spread(kernel.layout.inputs)
                    read.setdefault(step.kernel, []).append(moments)
                    tensors[step.target] = _multiply(kernel, moments)
            case RuleStep():
                tensors[step.target] = _apply_rule(recipe, step, [find(source) for source in step.sources])
            case BoundaryStep():
                tensors.update((target, ChannelMoments.alike()) for target in step.targets)
    return read


def find_block_moments(kernel: Kernel, moments: ChannelMoments) -> tuple[np.ndarray, np.ndarray | None]:
    """The covariance and the mean of the rows that a kernel is multiplied by, in blocks that are independent.

    Args:
        kernel: the kernel.
        moments: those of the channels that it reads.

    Returns:
        Float64 `(blocks, size, size)` and `(blocks, size)`, or None where the mean is not known. The blocks of all taps
        of the first group come first; a block has the rows of one tap, or less.
    """
    plain = kernel.layout.plain
    taps, groups = math.prod(plain.shape[:-2]), plain.groups
    group_size = kernel.layout.inputs // groups
    covariance, mean = moments.covariance, moments.mean
    blocks, size, _ = covariance.shape
    if size > group_size or group_size % size:  # groups cut through blocks
        joined = moments.as_one_block().covariance
        if joined.shape[0] > 1:
            covariance = moments.variances.reshape(-1, 1, 1)
        else:
            cut = joined[0].reshape(groups, group_size, groups, group_size)
            covariance = np.einsum("gigj->gij", cut)
        blocks, size, _ = covariance.shape
    by_group = np.broadcast_to(
        covariance.reshape(groups, 1, blocks // groups, size, size), (groups, taps, blocks // groups, size, size)
    )
    means = None
    if mean is not None:
        repeated = np.broadcast_to(mean.reshape(groups, 1, -1), (groups, taps, group_size))
        means = repeated.reshape(-1, size)
    return by_group.reshape(-1, size, size), means


def _multiply(kernel: Kernel, moments: ChannelMoments) -> ChannelMoments:
    """The moments of what a kernel puts out, with the bias and the activation of its layer."""
    matrices = kernel.layout.to_matrices(compat.host_array(kernel.variable)).astype(np.float64)
    covariance, means = find_block_moments(kernel, moments)
    groups, rows, outputs = matrices.shape
    by_block = matrices.reshape(groups, -1, covariance.shape[1], outputs)
    weighted = covariance.reshape(groups, -1, *covariance.shape[1:]) @ by_block
    output_covariance = np.einsum("gbio,gbip->gop", by_block, weighted, optimize=True)
    mean = None
    if means is not None:
        mean = np.einsum("gr,gro->go", means.reshape(groups, rows), matrices).reshape(-1)
        bias = getattr(kernel.layer, "bias", None)
        if bias is not None and math.prod(bias.shape) == len(mean):
            mean = mean + compat.host_array(bias).reshape(-1)
    moments = ChannelMoments(output_covariance, mean)
    is_only = getattr(kernel.layer, "kernel", None) is kernel.variable and not hasattr(kernel.layer, "cell")
    return _activate(moments, kernel.layer.activation) if is_only and has_activation(kernel.layer) else moments


def _activate(moments: ChannelMoments, activation: Any) -> ChannelMoments:
    activation = getattr(activation, "activation", activation)  # a layer Activation has one
    name = compat.function_name(activation) or getattr(activation, "__name__", type(activation).__name__).lower()
    name = name.rpartition(".")[2]
    if name in ("softmax", "log_softmax", "logsoftmax", "sparsemax", "prelu"):  # no function of one number
        return moments
    return activate(moments, as_function(activation), name == "relu" and _is_plain_relu(activation))


def _is_plain_relu(activation: Any) -> bool:
    limits = (getattr(activation, name, None) for name in ("max_value", "negative_slope", "threshold"))
    return not any(limits)


def _apply_rule(recipe: Recipe, step: RuleStep, sources: Sequence[ChannelMoments]) -> ChannelMoments:
    names = {cls.__name__ for cls in type(step.layer).__mro__}
    if "BatchNormalization" in names and isinstance(step.energy_map, ChannelScale):
        return _normalize_batch(step.layer, sources[0])
    if "Multiply" in names and len(sources) > 1:  # the widest spread is what is gated
        sources = [max(sources, key=lambda moments: moments.width)]
        return sources[0]
    if step.kernel is not None:
        return _filter(recipe.kernels[step.kernel], sources[0])
    moments = _apply_map(step.energy_map, sources)
    if names.intersection(_NORMALIZING) and not moments.is_alike:
        scale = np.mean(sources[0].variances + (0.0 if sources[0].mean is None else sources[0].mean ** 2))
        return moments.scale(np.full(1, 1 / math.sqrt(scale))) if scale > 0 else moments
    if is_activation(step.layer):
        return _activate(moments, step.layer)
    return moments


def _filter(kernel: Kernel, moments: ChannelMoments) -> ChannelMoments:
    """The moments behind a depthwise kernel, which multiplies the taps of each channel with a filter of its own."""
    filters = kernel.layout.to_matrices(compat.host_array(kernel.variable)).astype(np.float64)
    channels, taps, multiplier = filters.shape
    index = np.repeat(np.arange(channels), multiplier)
    moments = moments.spread(channels).as_one_block()
    rows = filters.swapaxes(1, 2).reshape(channels * multiplier, taps)
    mean = None if moments.mean is None else moments.mean[index] * rows.sum(axis=1)
    if moments.covariance.shape[0] > 1:
        variances = moments.variances[index] * np.sum(rows**2, axis=1)
        return ChannelMoments(variances.reshape(-1, 1, 1), mean)
    return ChannelMoments((moments.covariance[0][np.ix_(index, index)] * (rows @ rows.T))[np.newaxis], mean)


def _normalize_batch(layer: Layer, moments: ChannelMoments) -> ChannelMoments:
    """Channels whose means and variances batch normalization tells; only their correlations are carried on."""
    variance = compat.host_array(layer.moving_variance).astype(np.float64)
    gamma = None if getattr(layer, "gamma", None) is None else compat.host_array(layer.gamma)
    beta = None if getattr(layer, "beta", None) is None else compat.host_array(layer.beta)
    deviations = np.sqrt(variance / (variance + layer.epsilon)) * (1.0 if gamma is None else gamma)
    moments = moments.spread(len(variance))
    present = np.sqrt(np.maximum(moments.variances, 0.0))
    scaled = moments.scale(np.divide(deviations, present, out=np.zeros_like(deviations), where=present > 0))
    return ChannelMoments(scaled.covariance, np.zeros(len(variance)) if beta is None else beta.astype(np.float64))


def _apply_map(energy_map: EnergyMap, sources: Sequence[ChannelMoments]) -> ChannelMoments:
    """The moments behind a linear map of energies. Where a map takes means of several channels, variances alone."""
    match energy_map:
        case Identity():
            return sources[0]
        case Gather(index=index) if index.ndim == 1:
            return sources[0].gather(index)
        case Chain(first=first, second=second):
            return _apply_map(second, [_apply_map(first, sources)])
        case Sum(parts=parts):
            return add_independent([_apply_map(part, [source]) for part, source in zip(parts, sources, strict=True)])
        case ChannelScale(factors=factors):
            return sources[0].scale(np.sqrt(np.asarray(factors(compat.host_array), np.float64)).reshape(-1))
    variances = energy_map.apply(*(source.variances.astype(np.float32) for source in sources))
    return ChannelMoments(np.asarray(variances, np.float64).reshape(-1, 1, 1))
