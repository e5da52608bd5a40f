"""What a fit holds beside one callback: the other callbacks, in their order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tf_lap.compat import Callback


def callbacks_of_fit(callback: Any) -> list[Any]:
    """The callbacks of the fit that calls `on_train_begin` of this one now; empty where no fit does.

    The list is the fit's own: what is appended to it is called last, in this fit alone. Keras tells a callback
    nothing of the others, so this looks at the call stack.

    Args:
        callback: a callback whose `on_train_begin` is running.
    """
    frame = sys._getframe(1)
    while frame is not None:
        # Of no other frame: to read the variables of a user's function would keep them alive as long as it runs.
        if frame.f_code.co_name == "on_train_begin":
            callbacks = getattr(frame.f_locals.get("self"), "callbacks", None)
            if isinstance(callbacks, list) and any(member is callback for member in callbacks):
                return callbacks
        frame = frame.f_back
    return []


class _Last(Callback):
    """Runs a function when all other callbacks of a fit have ended."""

    def __init__(self, callbacks: list[Any], function: Callable[[], None]) -> None:
        super().__init__()
        self._callbacks, self._function = callbacks, function

    def on_train_end(self, logs: Any = None) -> None:
        """Runs the function; a list that is used for another fit does not run it again."""
        self._callbacks.remove(self)
        self._function()


def run_after_others(callbacks: list[Any], model: Any, function: Callable[[], None]) -> None:
    """Lets a function run when a fit has ended for all its callbacks.

    Args:
        callbacks: the fit's, as `callbacks_of_fit` gives them; where there are none, nothing is done.
        model: the model that is trained.
        function: what to run.
    """
    if callbacks:
        last = _Last(callbacks, function)
        last.set_model(model)
        callbacks.append(last)
