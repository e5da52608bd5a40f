"""Which weights of a layer tfmot prunes; of subclasses of its layers too, and of layers that call one of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import tf_keras

from tf_lap.compat.tfmot import CELL_WEIGHTS, LAYER_WEIGHTS, RECURRENT, prunable_layer, prune_registry
from tf_lap.graph.composite import CompositeRule
from tf_lap.graph.registry import find_rule
from tf_lap.graph.rule_tables import install_tf_keras


def make_prunable(layer: Any) -> bool:
    """Gives a layer the method `get_prunable_weights` where it is of a class that tfmot knows, or of a subclass.

    Returns:
        Whether the layer has the method now.
    """
    if not hasattr(layer, "get_prunable_weights"):
        if prune_registry.PruneRegistry.supports(layer):
            prune_registry.PruneRegistry.make_prunable(layer)
        elif getter := _make_getter(layer):
            layer.get_prunable_weights = getter
    return hasattr(layer, "get_prunable_weights")


def has_kernel(layer: Any) -> bool:
    """Whether there is anything to prune in a layer: not in a ReLU, nor in a layer that tfmot does not know."""
    if hasattr(type(layer), "get_prunable_weights"):
        return True
    if parts := _list_inner_layers(layer):
        return hasattr(layer, "get_prunable_weights") or all(map(has_kernel, parts))
    names, cells = _find_weight_names(type(layer)), _find_cells(layer)
    if names is None and cells is None:
        return hasattr(layer, "get_prunable_weights")
    return bool(names or cells)  # on a layer that it knows, tfmot may have set the method, for no weights


def is_known(layer: Any) -> bool:
    """Whether tfmot knows what to prune in a layer, be it nothing."""
    parts = _list_inner_layers(layer)
    return (
        has_kernel(layer) or _find_weight_names(type(layer)) is not None or (bool(parts) and all(map(is_known, parts)))
    )


def has_kernel_rule(layer: Any) -> bool:
    """Whether tf_lap itself knows kernels in a layer of this class, whatever tfmot knows."""
    install_tf_keras()
    rule = find_rule(layer)
    return isinstance(rule, CompositeRule) and rule.has_kernels


def _list_inner_layers(layer: Any) -> list[Any]:
    """The layers that a TimeDistributed or Bidirectional layer calls; none in any other."""
    if isinstance(layer, tf_keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer.layer] if isinstance(layer, tf_keras.layers.TimeDistributed) else []


def _make_getter(layer: Any) -> Callable[[], list[Any]] | None:
    """A `get_prunable_weights` for a subclass of a layer that tfmot knows; None for any other layer."""
    if parts := _list_inner_layers(layer):
        if not all(map(has_kernel, parts)):
            return None
        for part in parts:
            make_prunable(part)
        return lambda: [weight for part in parts for weight in part.get_prunable_weights()]
    names, cells = _find_weight_names(type(layer)), _find_cells(layer)
    if names is None and cells is None:
        return None
    return lambda: [
        *(operator.attrgetter(name)(layer) for name in names or ()),
        *(weight for cell in cells or () for weight in _list_cell_weights(cell)),
    ]


def _find_weight_names(layer_class: type) -> list[str] | None:
    """The attributes that are the weights to prune; None for a class that tfmot does not know."""
    return next((LAYER_WEIGHTS[cls] for cls in layer_class.__mro__ if cls in LAYER_WEIGHTS), None)


def _find_cells(layer: Any) -> list[Any] | None:
    """The cells of a recurrent layer whose cells are all known; None for any other layer."""
    if not any(cls in RECURRENT for cls in type(layer).__mro__):
        return None
    cells = layer.cell.cells if isinstance(layer.cell, tf_keras.layers.StackedRNNCells) else [layer.cell]
    are_known = all(isinstance(cell, prunable_layer.PrunableLayer) or _find_cell_names(type(cell)) for cell in cells)
    return cells if are_known else None


def _list_cell_weights(cell: Any) -> list[Any]:
    if isinstance(cell, prunable_layer.PrunableLayer):
        return cell.get_prunable_weights()
    return [getattr(cell, name) for name in _find_cell_names(type(cell)) or ()]


def _find_cell_names(cell_class: type) -> list[str] | None:
    return next((CELL_WEIGHTS[cls] for cls in cell_class.__mro__ if cls in CELL_WEIGHTS), None)
