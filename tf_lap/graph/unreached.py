"""What no step of a recipe reaches: kernels inside boundaries, and weight matrices that are not kernels."""

from __future__ import annotations

from collections.abc import Iterable

from tf_lap import compat
from tf_lap.graph.channels import ChannelRule
from tf_lap.graph.kernels import KernelRule, weight_matrices
from tf_lap.graph.model_graph import OtherLayer
from tf_lap.graph.recipe_builder import RecipeBuilder
from tf_lap.graph.registry import find_rule


def add_unreached(
    builder: RecipeBuilder, layers: Iterable[compat.LayerEntry], model_reason: str
) -> dict[str, OtherLayer]:
    """Adds the kernels of a model that no step reaches, and finds its weight matrices that are not kernels.

    Args:
        builder: the recipe, which has all its steps.
        layers: all layers in the model.
        model_reason: why kernels are not reached where none of the layers that they are in has a reason.

    Returns:
        The layers with weight matrices that are not kernels, by path.
    """
    others = {}
    for entry in layers:
        rule = find_rule(entry.layer)
        if isinstance(rule, KernelRule) and builder.find_kernel(entry.layer) is None:
            obstacle = rule.find_obstacle(entry.layer)
            if obstacle is None:
                reasons = (builder.unreached_reasons.get(id(outer.layer)) for outer in entry.lineage())
                builder.add_kernel(rule, entry.layer, entry.path, next(filter(None, reasons), model_reason))
            else:
                others[builder.make_unique(entry.path)] = OtherLayer(
                    type(entry.layer).__name__, weight_matrices(entry.weights), obstacle
                )
        else:
            other = _describe_other(entry, rule)
            if other is not None:
                path = entry.path
                if isinstance(rule, KernelRule):
                    path = f"{path}/{compat.variable_name(other.matrices[0])}"
                others[builder.make_unique(path)] = other
    return others


def _describe_other(entry: compat.LayerEntry, rule: ChannelRule | KernelRule | None) -> OtherLayer | None:
    """The weight matrices that a layer itself has besides a kernel; None where it has none."""
    weights = entry.weights
    if isinstance(rule, KernelRule):
        weights = tuple(variable for variable in weights if variable is not rule.kernel(entry.layer))
    matrices = weight_matrices(weights)
    if not matrices:
        return None
    name = type(entry.layer).__name__
    if rule is None:
        reason = f"{name} has no kernel rule"
    elif isinstance(rule, KernelRule) and rule.input_rule is None:
        reason = f"a {name} has one kernel to prune, and this is another weight of it"
    else:
        reason = f"the weights of a {name} act on one channel each"
    return OtherLayer(name, matrices, reason)
