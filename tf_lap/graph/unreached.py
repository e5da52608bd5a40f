"""What no step of a recipe reaches: kernels inside boundaries, and weight matrices that are not kernels."""

from __future__ import annotations

from collections.abc import Iterable

from tf_lap import compat
from tf_lap.graph.composite import CompositeRule
from tf_lap.graph.kernels import KernelRule, LayerKernel, weight_matrices
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
        obstacle, kernels = None, list[LayerKernel]()
        if isinstance(rule, (KernelRule, CompositeRule)):
            obstacle = rule.find_obstacle(entry.layer)
            kernels = rule.kernels(entry.layer) if obstacle is None else []
        for kernel in kernels:
            if builder.find_kernel(kernel.variable) is None:
                reasons = (builder.unreached_reasons.get(id(outer.layer)) for outer in entry.lineage())
                path = f"{entry.path}/{kernel.name}" if kernel.name else entry.path
                builder.add_kernel(path, entry.layer, kernel, next(filter(None, reasons), model_reason))
        matrices = weight_matrices(v for v in entry.weights if builder.find_kernel(v) is None)
        if matrices:
            name = type(entry.layer).__name__
            if obstacle is not None:
                reason = obstacle
            elif kernels:
                reason = f"a {name} has other kernels to prune, and this is another weight of it"
            elif rule is None:
                reason = f"{name} has no kernel rule"
            else:
                reason = f"the weights of a {name} act on one channel each"
            path = f"{entry.path}/{compat.variable_name(matrices[0])}" if kernels else entry.path
            others[builder.make_unique(path)] = OtherLayer(name, matrices, reason)
    return others
