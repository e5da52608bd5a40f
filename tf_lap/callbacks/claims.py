"""Which callback sets masks on which model: one in a fit, and what an interrupted one left is taken off by the next.

Here a callback that restores a killed training hands it the masks too.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from tf_lap import compat
from tf_lap.callbacks.mask_backup import State
from tf_lap.pruning.constraints import Enforcement, holder

# Which callback works on which model now, and in which fit: Keras hands all callbacks of one fit the same dictionary of
# parameters. An entry that a fit left behind when it was interrupted is harmless.
_active: weakref.WeakKeyDictionary[Any, tuple[weakref.ref[compat.Callback], Any]] = weakref.WeakKeyDictionary()
# What callbacks put on kernels, so that the next fit can tell it from a Pruner's hold.
held: weakref.WeakSet[Enforcement] = weakref.WeakSet()


def check_alone(callback: compat.Callback, twice: str) -> None:
    """Raises ValueError where another callback that sets masks is in the same fit.

    Args:
        callback: the one that begins.
        twice: what to say where the other is of the same kind.
    """
    other = mask_setter(callback)
    if other is None:
        return
    if isinstance(other, type(callback)) or isinstance(callback, type(other)):
        raise ValueError(twice)
    raise ValueError(
        "LAPCallback and PreserveSparsity in one fit: leave PreserveSparsity out, LAPCallback keeps pruned weights at "
        "zero itself"
    )


def claim(callback: compat.Callback) -> None:
    """Enters a callback as the one that sets masks on its model in this fit."""
    _active[callback.model] = (weakref.ref(callback), callback.params)


def mask_setter(callback: compat.Callback) -> Any | None:
    """The callback that sets masks in the fit that `callback` is in; None where there is none, or not yet."""
    other, fit = _active.get(callback.model, (None, None))
    return None if other is None or fit is not callback.params else other()


def disclaim(callback: compat.Callback) -> None:
    """Takes the entry back."""
    _active.pop(callback.model, None)


def release_leftovers(model: Any) -> None:
    """Takes off what a callback left on a model when its fit was interrupted; a Pruner's hold is the user's own."""
    for variable in model.trainable_variables:
        owner = holder(variable)
        if owner is not None and owner in held:
            owner.release()


class Handed(NamedTuple):
    """What a callback that restores trainings has for the one that sets masks.

    Attributes:
        fit: the parameters of the fit that both are in.
        source: where it comes from, for messages.
        state: the restored step and masks; None where nothing was restored.
    """

    fit: Any
    source: str
    state: State | None


_handed: weakref.WeakKeyDictionary[Any, Handed] = weakref.WeakKeyDictionary()


def hand_over(callback: compat.Callback, source: str, state: State | None) -> None:
    """Leaves restored masks for the callback that sets masks in this fit, listed before or behind."""
    _handed[callback.model] = Handed(callback.params, source, state)


def handed_over(callback: compat.Callback) -> Handed | None:
    """What was left in the fit that `callback` is in; None where nobody in it restores trainings, or not yet."""
    handed = _handed.get(callback.model)
    return handed if handed is not None and handed.fit is callback.params else None


def check_one_backup(backup_dir: str | None, others: str | None) -> None:
    """Raises ValueError where masks would be kept in a snapshot and in a backup of their own.

    Args:
        backup_dir: that of LAPCallback.
        others: that of `tf_lap.BackupAndRestore` in the same fit.
    """
    if backup_dir is not None and others is not None:
        raise ValueError(
            f"LAPCallback(backup_dir={backup_dir!r}) beside tf_lap.BackupAndRestore({others!r}) in one fit: the "
            "snapshot holds the masks too. Leave backup_dir out of LAPCallback"
        )
