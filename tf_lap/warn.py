"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings

# A warning is of the code that called these, also where Keras calls a callback of ours.
_LIBRARIES = ("tf_lap", "keras", "tf_keras", "tensorflow", "tensorflow_model_optimization")


class PruningWarning(UserWarning):
    """A warning of this package."""


def warn(message: str) -> None:
    """Warns, once a place, of the line that called this package, or Keras around it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, PruningWarning, stacklevel=level)
