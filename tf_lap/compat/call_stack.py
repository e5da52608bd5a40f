"""The calls that are running, for what Keras does not tell a callback or a layer."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from tf_lap.compat.types import Model


def running_frames() -> Iterator[FrameType]:
    """The frames of the running calls, the innermost first: that of the function that asks, then its callers.

    Read `f_locals` of frames of Keras alone. To read the variables of a user's function would keep them alive as long
    as that function runs.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def read_local_of_fit(fit: Callable[..., Any], model: Model, name: str) -> Any:
    """A local variable of the `fit` of a model that is running.

    Keras tells a callback nothing of the data that it iterates over, so this looks at the call stack.

    Args:
        fit: the function `fit` of the model's Keras.
        model: the model that is being fitted.
        name: the name of the variable.

    Raises:
        RuntimeError: this function is not running for the model, or has no such variable.
    """
    code = inspect.unwrap(fit).__code__
    for frame in running_frames():
        if frame.f_code is code and frame.f_locals.get("self") is model and name in frame.f_locals:
            return frame.f_locals[name]
    raise RuntimeError(
        f"a killed training is resumed in Keras's own fit, in its variable `{name}`, and the fit of "
        f"{type(model).__name__} does not have it. Delete backup_dir and leave tf_lap.BackupAndRestore out, or use the "
        "fit of Keras and a release that tf_lap was tested with (keras 3.15, tf_keras 2.21)"
    )
