"""Which callback sets masks on which model: one in a fit, and what an interrupted one left is taken off by the next."""

from __future__ import annotations

import weakref
from typing import Any

from tf_lap import compat
from tf_lap.enforce import Enforcement, holder

# Which kind of callback works on which model now, and in which fit: Keras hands all callbacks of one fit the same
# dictionary of parameters. An entry that a fit left behind when it was interrupted is harmless.
_active: weakref.WeakKeyDictionary[Any, tuple[type, Any]] = weakref.WeakKeyDictionary()
# What callbacks put on kernels, so that the next fit can tell it from a Pruner's hold.
held: weakref.WeakSet[Enforcement] = weakref.WeakSet()


def check_alone(callback: compat.Callback) -> None:
    """Raises ValueError where another callback that sets masks is in the same fit."""
    other, fit = _active.get(callback.model, (None, None))
    if other is None or fit is not callback.params:
        return
    if other is type(callback):
        name = type(callback).__name__
        raise ValueError(f"two {name}s in one fit: pass one, with a mapping of sparsities where layers differ")
    raise ValueError("LAPCallback and PreserveSparsity in one fit: LAPCallback alone keeps pruned weights at zero")


def claim(callback: compat.Callback) -> None:
    """Enters a callback as the one that sets masks on its model in this fit."""
    _active[callback.model] = (type(callback), callback.params)


def disclaim(callback: compat.Callback) -> None:
    """Takes the entry back."""
    _active.pop(callback.model, None)


def release_leftovers(model: Any) -> None:
    """Takes off what a callback left on a model when its fit was interrupted; a Pruner's hold is the user's own."""
    for variable in model.trainable_variables:
        owner = holder(variable)
        if owner is not None and owner in held:
            owner.release()
