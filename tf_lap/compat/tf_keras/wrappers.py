"""Pruning wrappers of tfmot around layers of tf_keras."""

from __future__ import annotations

import sys

import tf_keras

from tf_lap.compat.nodes import private
from tf_lap.compat.types import Layer, Model


def is_wrapper(layer: Layer) -> bool:
    """Whether it is a pruning wrapper of tfmot, or of a class made from one."""
    module = sys.modules.get("tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper")
    return module is not None and isinstance(layer, module.PruneLowMagnitude)


def unwrapped(layer: Layer) -> Layer:
    """The layer inside a pruning wrapper of tfmot; any other layer as it is."""
    return layer.layer if is_wrapper(layer) else layer


def wrappers(model: Model) -> list[Layer]:
    """The pruning wrappers of a model in the order of their calls, without those only called with `training=False`."""
    if not isinstance(model, tf_keras.Model) or not private(model, "_is_graph_network"):
        return [layer for layer in model._flatten_layers(include_self=False) if is_wrapper(layer)]
    by_depth = private(model, "_nodes_by_depth")
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    called = [node.layer for node in nodes if node.call_kwargs.get("training") is not False]
    inside = [wrapper for layer in called for wrapper in ([layer] if is_wrapper(layer) else wrappers(layer))]
    return list(dict.fromkeys(inside))


def rename(layer: Layer, name: str) -> None:
    """Gives another name to a layer that is in no model yet."""
    private(layer, "_name")  # raises where this release has no such attribute
    layer._name = name
