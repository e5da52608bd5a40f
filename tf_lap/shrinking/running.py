"""Running a model to look at its numbers: in float32 where that can be, and without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tf_lap.compat import exporting
from tf_lap.compat.types import Model


@contextlib.contextmanager
def running(*models: Model) -> Iterator[bool]:
    """While models are run: those of mixed precision compute in float32, and states are put back at the end.

    Yields:
        Whether that is float32: not where weights themselves are of half precision.
    """
    with contextlib.ExitStack() as stack:
        try:
            for model in models:
                stack.enter_context(exporting.in_float32(model))
            is_float32 = True
        except ValueError:  # half precision
            is_float32 = False
        for model in models:
            stack.enter_context(exporting.states_kept(model))
        yield is_float32
