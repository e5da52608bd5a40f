"""What a fit holds beside one callback: the other callbacks, in their order."""

from __future__ import annotations

from collections.abc import Callable

from tf_lap.compat import types
from tf_lap.compat.call_stack import running_frames
from tf_lap.compat.callback import Callback


def callbacks_of_fit(callback: types.Callback) -> list[types.Callback]:
    """The callbacks of the fit that is calling `on_train_begin` of this one; empty where no fit does.

    The list is the fit's own: what is appended to it is called last, in this fit alone. Keras tells a callback
    nothing of the others, so this looks at the call stack.

    Args:
        callback: a callback whose `on_train_begin` is running.
    """
    for frame in running_frames():
        if frame.f_code.co_name == "on_train_begin":
            callbacks = getattr(frame.f_locals.get("self"), "callbacks", None)
            if isinstance(callbacks, list) and any(member is callback for member in callbacks):
                return callbacks
    return []


class _LastCallback(Callback):
    """Runs functions when all other callbacks of a fit have come to the end of an epoch, or of the training."""

    def __init__(self, callbacks: list[types.Callback]) -> None:
        super().__init__()
        self._callbacks = callbacks
        self.epoch_functions: list[Callable[[], None]] = []
        self.training_functions: list[Callable[[], None]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Runs the functions of an epoch's end."""
        for function in self.epoch_functions:
            function()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Runs the functions of the training's end, and leaves the list, which may be used for another fit."""
        self._callbacks.remove(self)
        for function in self.training_functions:
            function()


def run_after_others(
    callbacks: list[types.Callback],
    model: types.Model,
    *,
    at_epoch_end: Callable[[], None] | None = None,
    at_train_end: Callable[[], None] | None = None,
) -> bool:
    """Runs functions when all callbacks of a fit have come to an end.

    Args:
        callbacks: the fit's, as `callbacks_of_fit` gives them; where there are none, nothing is done.
        model: the model that is trained.
        at_epoch_end: what to run after each epoch.
        at_train_end: what to run after the training.

    Returns:
        Whether they will be run.
    """
    if not callbacks:
        return False
    # One for all who ask: if two of them left the list, Keras would pass over the second.
    if not isinstance(callbacks[-1], _LastCallback):
        callbacks.append(_LastCallback(callbacks))
        callbacks[-1].set_model(model)
    last = callbacks[-1]
    last.epoch_functions += [] if at_epoch_end is None else [at_epoch_end]
    last.training_functions += [] if at_train_end is None else [at_train_end]
    return True
