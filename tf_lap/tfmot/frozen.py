"""Which of the weights that wrappers prune are trained: a frozen layer is left as it is."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from tf_lap import compat
from tf_lap.compat import tf_keras as legacy
from tf_lap.tfmot.weight import PrunableWeight
from tf_lap.warn import warn

_WARNED: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()
"""The layers in each model that a warning has named."""


def select_trained(weights: Iterable[PrunableWeight], models_around: Sequence[Any]) -> frozenset[PrunableWeight]:
    """Those weights that are trained now.

    Of the models that have a wrapper, the outermost one decides. A wrapper that no model has, because a function calls
    it, decides by itself.

    Args:
        weights: the weights.
        models_around: the models that are called or train now, the outermost first.
    """
    weights = list(weights)
    outermost = {id(weight.wrapper): weight.wrapper for weight in weights}
    for model in reversed(models_around):
        outermost.update({id(layer): model for layer in legacy.layers_inside(model) if id(layer) in outermost})
    predicates = {id(owner): compat.trains(owner) for owner in {id(o): o for o in outermost.values()}.values()}
    return frozenset(weight for weight in weights if predicates[id(outermost[id(weight.wrapper)])](weight.variable))


def warn_of_frozen(weights: Iterable[PrunableWeight], model: Any) -> None:
    """Says once of each layer of a model, or of a wrapper alone, that it is wrapped and not pruned."""
    layers = {f"{weight.path!r} ({type(weight.wrapper.layer).__name__})" for weight in weights}
    before = _WARNED.get(model, frozenset())
    if layers <= before:
        return
    _WARNED[model] = before | layers
    warn(
        f"tf_lap.PrunableLayer does not prune {', '.join(sorted(layers - before))}, frozen as they are: to have them "
        "pruned, set trainable=True on them and on the models around them, and compile the model again"
    )
