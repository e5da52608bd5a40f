"""What is put into channels, where batch normalizations tell it.

The energy behind a batch normalization is that of the kernel before it, over the variance that the layer has seen. But
that variance is the channel's own. So the ratio says how alike the kernel's inputs are, and nothing of the channel. The
variance behind the layer is known: it is the square of the layer's scale. Channels are scored with that.
"""

from __future__ import annotations

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.channels import ChannelRule
from tf_lap.graph.energy import KernelEnergies
from tf_lap.graph.layer_rules import batch_normalization
from tf_lap.graph.model_graph import KernelStep, Recipe, RuleStep
from tf_lap.graph.registry import find_rule


def find_spread(recipe: Recipe, kernel_energies: KernelEnergies, unit: float) -> list[list[np.ndarray]]:
    """What is put into the channels that each use of a kernel reads: its neighbours' energies, or a known variance.

    Args:
        recipe: the resolved model.
        kernel_energies: what each kernel reads and puts out, as `Measurer.measure` gives them.
        unit: what an energy of 1 is on their scale.

    Returns:
        For each kernel a float64 array `(inputs,)`, or `(outputs,)` where a use reads these, for each of its uses.
    """
    tensors: list[np.ndarray] = [np.full(1, unit, np.float32)] * recipe.tensor_count
    for step in recipe.steps:
        if isinstance(step, KernelStep):
            tensors[step.target] = np.asarray(kernel_energies[step.kernel][0 if step.is_transposed else 1], np.float32)
    for step in recipe.steps:
        if isinstance(step, RuleStep):
            energies = [tensors[source] for source in step.sources]
            variances = _find_variances(step.layer)
            mapped = step.energy_map.apply(*energies)
            tensors[step.target] = np.asarray(
                mapped if variances is None else np.broadcast_to(variances * unit, mapped.shape)
            )
    spread: list[list[np.ndarray]] = [[] for _ in recipe.kernels]
    for number, _, source, _ in recipe.kernel_uses:
        spread[number].append(tensors[source].astype(np.float64))
    return spread


def _find_variances(layer: Layer) -> np.ndarray | None:
    """The variance of each channel behind a batch normalization, `(channels,)`; None for any other layer."""
    rule = find_rule(layer)
    if not isinstance(rule, ChannelRule) or rule.flow is not batch_normalization:
        return None
    gamma = getattr(layer, "gamma", None)
    return np.ones(1, np.float32) if gamma is None else np.square(compat.host_array(gamma))
