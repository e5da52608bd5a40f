"""What no step of a recipe reaches: kernels inside boundaries, and weight matrices that are not kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.composite import CompositeRule
from tf_lap.graph.declared_kernels import UNKNOWN_AXES, find_declared_matrices
from tf_lap.graph.kernels import LayerKernel, weight_matrices
from tf_lap.graph.layouts import Layout
from tf_lap.graph.model_graph import OtherLayer
from tf_lap.graph.recipe_builder import RecipeBuilder
from tf_lap.graph.registry import find_rule

UNUSED = "no output depends on it"
"""Why a kernel is not reached that takes no part in what the model puts out."""


def add_unreached(
    builder: RecipeBuilder, layers: Sequence[compat.LayerEntry], model_reason: str | None
) -> dict[str, OtherLayer]:
    """Adds the kernels of a model that no step reaches, and finds its weight matrices that are not kernels.

    Args:
        builder: the recipe, which has all its steps.
        layers: all layers in the model.
        model_reason: why none is reached; None where the model could be read.

    Returns:
        The layers with weight matrices that are not kernels, by path.
    """
    for entry in layers:
        for kernel in _find_kernels(entry.layer):
            _add_kernel(builder, entry, kernel, model_reason or UNUSED)
    for entry in layers:  # last, because a layer may declare those of layers inside it
        matrices = find_declared_matrices(entry.layer) if find_rule(entry.layer) is None else ()
        for matrix in matrices:
            name = compat.variable_name(matrix) if len(matrices) > 1 else ""
            reason = f"{type(entry.layer).__name__} {entry.path!r}: {UNKNOWN_AXES}"
            kernel = LayerKernel(name, matrix, Layout(tuple(matrix.shape)))
            _add_kernel(builder, entry, kernel, model_reason or reason)
    return _find_others(builder, layers)


def _find_kernels(layer: Layer) -> list[LayerKernel]:
    """The kernels of a layer that can be pruned at the moment."""
    rule = find_rule(layer)
    if isinstance(rule, CompositeRule) and rule.find_obstacle(layer) is None:
        return rule.find_kernels(layer)
    return []


def _add_kernel(builder: RecipeBuilder, entry: compat.LayerEntry, kernel: LayerKernel, default: str) -> None:
    """Adds a kernel that no step reaches, if it is such.

    Args:
        builder: the recipe.
        entry: the layer.
        kernel: a kernel of it.
        default: why the kernel is not reached where none of the layers that it is in has a reason.
    """
    if builder.find_kernel(kernel.variable) is None:
        reasons = (
            builder.unreached_reasons.get(id(outer.layer))
            or (builder.inner_reasons.get(id(outer.layer)) if outer is not entry else None)
            for outer in entry.lineage()
        )
        path = f"{entry.path}/{kernel.name}" if kernel.name else entry.path
        builder.add_kernel(path, entry.layer, kernel, next(filter(None, reasons), default))


def _find_others(builder: RecipeBuilder, layers: Iterable[compat.LayerEntry]) -> dict[str, OtherLayer]:
    """The layers with weight matrices that are not kernels, by path."""
    others = {}
    for entry in layers:
        matrices = weight_matrices(v for v in entry.weights if builder.find_kernel(v) is None)
        if matrices:
            name, rule = type(entry.layer).__name__, find_rule(entry.layer)
            has_kernels = any(builder.find_kernel(v) is not None for v in entry.weights)
            obstacle = rule.find_obstacle(entry.layer) if isinstance(rule, CompositeRule) else None
            if obstacle is not None:
                reason = obstacle
            elif has_kernels:
                reason = f"a {name} has other kernels to prune, and this is another weight of it"
            elif rule is None:
                reason = f"{name} has no kernel rule"
            else:
                reason = f"the weights of a {name} act on one channel each"
            path = f"{entry.path}/{compat.variable_name(matrices[0])}" if has_kernels else entry.path
            others[builder.make_unique(path)] = OtherLayer(name, matrices, reason)
    return others
