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
    """Runs a function when all other callbacks of a fit have ended."""

    def __init__(self, callbacks: list[types.Callback], function: Callable[[], None]) -> None:
        super().__init__()
        self._callbacks, self._function = callbacks, function

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Runs the function, and leaves the list, which may be used for another fit."""
        self._callbacks.remove(self)
        self._function()


def run_after_others(callbacks: list[types.Callback], model: types.Model, function: Callable[[], None]) -> None:
    """Runs a function when a fit has ended for all its callbacks.

    Args:
        callbacks: the fit's, as `callbacks_of_fit` gives them; where there are none, nothing is done.
        model: the model that is trained.
        function: what to run.
    """
    if callbacks:
        last = _LastCallback(callbacks, function)
        last.set_model(model)
        callbacks.append(last)
