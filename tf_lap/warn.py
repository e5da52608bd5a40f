"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings

# A warning points at the code that called these, also where Keras calls a callback of this package.
_LIBRARIES = ("tf_lap", "keras", "tf_keras", "tensorflow", "tensorflow_model_optimization")


class PruningWarning(UserWarning):
    """A warning of this package."""


def warn(message: str) -> None:
    """Warns once for each line that calls this package, or that calls Keras and thereby this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, PruningWarning, stacklevel=level)
