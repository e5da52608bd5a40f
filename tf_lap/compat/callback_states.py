"""What Keras's own callbacks remember of a training, so that a training which goes on later can remember it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from tf_lap.compat.types import Callback

# By the name of the class, which both Kerases share: the attributes that a training changes.
_NUMBERS = {
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch"),
    "ModelCheckpoint": ("best", "epochs_since_last_save", "_batches_seen_since_last_saving", "_last_batch_seen"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
}
_WEIGHTS = "best_weights"

Number: TypeAlias = int | float | None


class CallbackState(NamedTuple):
    """What one callback remembers.

    Attributes:
        name: the name of Keras's class.
        numbers: the numbers that it remembers, by attribute.
        weights: the weights that it keeps, in the order of the model's; None where it keeps none.
    """

    name: str
    numbers: dict[str, Number]
    weights: Sequence[np.ndarray] | None


def read_states(callbacks: Sequence[Callback]) -> list[CallbackState]:
    """What the callbacks remember that are of Keras's classes, or of subclasses of these."""
    return [_read_state(callback, name) for callback in callbacks if (name := _name_class(callback)) is not None]


def write_states(callbacks: Sequence[Callback], states: Sequence[CallbackState]) -> bool:
    """Makes callbacks remember what others did.

    Args:
        callbacks: the callbacks of a fit, once they have been told that it begins.
        states: as `read_states` gave them in another fit.

    Returns:
        Whether the callbacks are of the same classes in the same order. Nothing is written where they are not.
    """
    named = [(callback, name) for callback in callbacks if (name := _name_class(callback)) is not None]
    if [name for _, name in named] != [state.name for state in states]:
        return False
    for (callback, _), state in zip(named, states, strict=True):
        for attribute, number in state.numbers.items():
            setattr(callback, attribute, number)
        if state.weights is not None:
            setattr(callback, _WEIGHTS, list(state.weights))
    return True


def _name_class(callback: Callback) -> str | None:
    """The name of the class of Keras's own that a callback is of; None where it is of none that is known here."""
    for cls in type(callback).__mro__:
        if cls.__name__ in _NUMBERS and cls.__module__.partition(".")[0] in ("keras", "tf_keras"):
            return cls.__name__
    return None


def _read_state(callback: Callback, name: str) -> CallbackState:
    present = [attribute for attribute in _NUMBERS[name] if hasattr(callback, attribute)]
    numbers = {attribute: _as_number(getattr(callback, attribute)) for attribute in present}
    weights = getattr(callback, _WEIGHTS, None)
    return CallbackState(name, numbers, None if weights is None else [np.asarray(array) for array in weights])


def _as_number(value: float | np.generic | None) -> Number:
    """A plain Python number of the same value."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
