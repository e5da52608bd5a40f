"""Which callback sets masks on which model.

At most one does in a fit. What an interrupted fit has left attached, the next one detaches. A callback that restores a
killed training hands its masks over by this module too, to the one that sets masks.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from tf_lap import compat
from tf_lap.callbacks.mask_backup import PruningState
from tf_lap.compat.types import Model
from tf_lap.pruning.constraints import Enforcement, find_enforcement

# By model: the callback that sets masks on it, and the parameters of its fit. Keras hands all callbacks of one fit the
# same dictionary of parameters. An entry that an interrupted fit left behind is harmless.
_claims: weakref.WeakKeyDictionary[Model, tuple[weakref.ref[compat.Callback], Any]] = weakref.WeakKeyDictionary()
# The masks that callbacks have attached, so that the next fit can tell them from those of a user's Pruner.
attached_by_callbacks: weakref.WeakSet[Enforcement] = weakref.WeakSet()


def check_alone(callback: compat.Callback, message: str) -> None:
    """Raises ValueError where another callback that sets masks is in the same fit.

    Args:
        callback: the callback whose fit begins.
        message: for another callback of the same kind.
    """
    other = find_mask_setter(callback)
    if other is None:
        return
    if isinstance(other, type(callback)) or isinstance(callback, type(other)):
        raise ValueError(message)
    raise ValueError(
        "LAPCallback and PreserveSparsity in one fit: leave PreserveSparsity out, LAPCallback keeps pruned weights at "
        "zero itself"
    )


def claim(callback: compat.Callback) -> None:
    """Enters a callback as the one that sets masks on its model in this fit."""
    _claims[callback.model] = (weakref.ref(callback), callback.params)


def find_mask_setter(callback: compat.Callback) -> Any | None:
    """The callback that sets masks in the fit that `callback` is in; None where there is none, or not yet."""
    other, fit_params = _claims.get(callback.model, (None, None))
    return None if other is None or fit_params is not callback.params else other()


def disclaim(callback: compat.Callback) -> None:
    """Removes the entry of a callback whose fit ends."""
    _claims.pop(callback.model, None)


def detach_leftovers(model: Model) -> None:
    """Detaches the masks that a callback left on a model when its fit was interrupted. Those of a Pruner stay."""
    for variable in model.trainable_variables:
        enforcement = find_enforcement(variable)
        if enforcement is not None and enforcement in attached_by_callbacks:
            enforcement.detach()


class Handover(NamedTuple):
    """What a callback that restores trainings has for the callback that sets masks.

    Attributes:
        fit_params: the parameters of the fit that both are in.
        source: the directory that it comes from, for messages.
        state: the restored step and masks; None where nothing was restored.
    """

    fit_params: Any
    source: str
    state: PruningState | None


_handovers: weakref.WeakKeyDictionary[Model, Handover] = weakref.WeakKeyDictionary()


def hand_over(callback: compat.Callback, source: str, state: PruningState | None) -> None:
    """Leaves restored masks for the callback that sets masks in this fit, listed before or behind."""
    _handovers[callback.model] = Handover(callback.params, source, state)


def find_handover(callback: compat.Callback) -> Handover | None:
    """What was handed over in the fit that `callback` is in; None where no callback restores trainings, or not yet."""
    handover = _handovers.get(callback.model)
    return handover if handover is not None and handover.fit_params is callback.params else None


def check_single_backup(backup_dir: str | None, snapshot_dir: str | None) -> None:
    """Raises ValueError where masks would be kept in a snapshot of the training and in a second backup.

    Args:
        backup_dir: that of LAPCallback.
        snapshot_dir: that of `tf_lap.BackupAndRestore` in the same fit.
    """
    if backup_dir is not None and snapshot_dir is not None:
        raise ValueError(
            f"LAPCallback(backup_dir={backup_dir!r}) beside tf_lap.BackupAndRestore({snapshot_dir!r}) in one fit: the "
            "snapshot holds the masks too. Leave backup_dir out of LAPCallback"
        )
