"""What a long export is doing, told every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

EVERY = 5.0
"""Seconds until the first line, and from one line to the next."""
EARLY = 1.5
"""Seconds after which a stage that lets nothing else run is told as it begins."""


class Progress:
    """Tells on standard error what is being done, where that takes long. Used as a context.

    A thread does it. TensorFlow's converter lets no other thread run while it works: where an export takes long, it is
    told before.

    Args:
        what: what is being done, as "model.tflite".
        verbose: whether to tell anything.
    """

    def __init__(self, what: str, verbose: bool) -> None:
        self._what, self._stage, self._verbose = what, "", verbose
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Progress:
        self._start = time.perf_counter()
        if self._verbose:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        if self._verbose:
            self._thread.join()

    def stage(self, name: str, silent: bool = False) -> None:
        """Notes what is done from now on, as "calibrating".

        Args:
            name: what it is.
            silent: whether no thread can run meanwhile. It is told at once, then, where more than `EARLY` seconds have
                passed: what has taken so long to trace takes longer to convert.
        """
        self._stage = name
        if silent and self._verbose and time.perf_counter() - self._start > EARLY:
            self._print()

    def _tell(self) -> None:
        while not self._done.wait(EVERY):
            self._print()

    def _print(self) -> None:
        seconds = time.perf_counter() - self._start
        print(f"tf_lap.export_tflite, {seconds:.0f} s: {self._stage} ({self._what})", file=sys.stderr, flush=True)
