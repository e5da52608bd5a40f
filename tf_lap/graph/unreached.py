"""What no step of a recipe reaches: kernels inside boundaries, and weight matrices that are not kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tf_lap import compat
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.channels import ChannelRule
from tf_lap.graph.kernels import KernelRule, weight_matrices
from tf_lap.graph.model_graph import OtherLayer
from tf_lap.graph.recipe_builder import RecipeBuilder
from tf_lap.graph.registry import find_rule


def add_unreached(builder: RecipeBuilder, model: Model) -> dict[str, OtherLayer]:
    """Adds the kernels of a model that no step reaches, and finds its weight matrices that are not kernels.

    Args:
        builder: the recipe, which has all its steps.
        model: the model.

    Returns:
        The layers with weight matrices that are not kernels, by path.
    """
    others = {}
    reasons = builder.unreached_reasons
    model_reason = reasons.get(id(model), "no output depends on it")
    for layer, path, reason in _walk_sublayers(model, "", model_reason, reasons, set()):
        rule = find_rule(layer)
        if isinstance(rule, KernelRule) and builder.find_kernel(layer) is None:
            obstacle = rule.find_obstacle(layer)
            if obstacle is None:
                builder.add_kernel(rule, layer, path, reason)
            else:
                matrices = weight_matrices(compat.own_weights(layer))
                others[builder.make_unique(path)] = OtherLayer(type(layer).__name__, matrices, obstacle)
        else:
            other = _describe_other(layer, rule)
            if other is not None:
                if isinstance(rule, KernelRule):
                    path = f"{path}/{compat.variable_name(other.matrices[0])}"
                others[builder.make_unique(path)] = other
    return others


def _walk_sublayers(
    layer: Layer, prefix: str, reason: str, reasons: Mapping[int, str], visited: set[int]
) -> Iterator[tuple[Layer, str, str]]:
    """All layers inside a layer, at any depth: each once, with its path, and why its kernel would not be reached.

    Args:
        layer: the layer or model.
        prefix: the beginning of the paths.
        reason: why kernels in it are not reached.
        reasons: the same by the id of a layer, which counts for all that is inside it.
        visited: ids of layers to leave out; those that are met are added.
    """
    for sublayer in compat.sublayers(layer):
        if id(sublayer) not in visited:
            visited.add(id(sublayer))
            path, sublayer_reason = prefix + sublayer.name, reasons.get(id(sublayer), reason)
            yield sublayer, path, sublayer_reason
            yield from _walk_sublayers(sublayer, path + "/", sublayer_reason, reasons, visited)


def _describe_other(layer: Layer, rule: ChannelRule | KernelRule | None) -> OtherLayer | None:
    """The weight matrices that a layer itself has besides a kernel; None where it has none."""
    weights = compat.own_weights(layer)
    if isinstance(rule, KernelRule):
        weights = [variable for variable in weights if variable is not rule.kernel(layer)]
    matrices = weight_matrices(weights)
    if not matrices:
        return None
    name = type(layer).__name__
    if rule is None:
        reason = f"{name} has no kernel rule"
    elif isinstance(rule, KernelRule) and rule.input_rule is None:
        reason = f"a {name} has one kernel to prune, and this is another weight of it"
    else:
        reason = f"the weights of a {name} act on one channel each"
    return OtherLayer(name, matrices, reason)
