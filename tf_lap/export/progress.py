"""Lines on standard error about what a long export is doing."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

INTERVAL = 5.0
"""Seconds until the first line, and from one line to the next."""
QUIET_SECONDS = 1.5
"""Seconds from the beginning in which a stage that lets no other thread run is not told."""


class Progress:
    """Tells on standard error what is being done, where that takes long. Used as a context.

    A thread writes the lines. TensorFlow's converter lets no other thread run while it works, so its stages are told
    as they begin.

    Args:
        file_name: the name of the file that is exported.
        verbose: whether to tell anything.
    """

    def __init__(self, file_name: str, verbose: bool) -> None:
        self._file_name, self._stage, self._verbose = file_name, "", verbose
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._print_in_intervals, daemon=True)

    def __enter__(self) -> Progress:
        self._start = time.perf_counter()
        if self._verbose:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_done.set()
        if self._verbose:
            self._thread.join()

    def begin_stage(self, name: str, blocks_threads: bool = False) -> None:
        """Begins a stage of the export.

        Args:
            name: what is done in it, as "calibrating".
            blocks_threads: whether no other thread can run in this stage. Then it is told at once, if more than
                `QUIET_SECONDS` have passed: a model that took so long to trace takes longer to convert.
        """
        self._stage = name
        if blocks_threads and self._verbose and time.perf_counter() - self._start > QUIET_SECONDS:
            self._print()

    def _print_in_intervals(self) -> None:
        while not self._is_done.wait(INTERVAL):
            self._print()

    def _print(self) -> None:
        seconds = time.perf_counter() - self._start
        print(f"tf_lap.export_tflite, {seconds:.0f} s: {self._stage} ({self._file_name})", file=sys.stderr, flush=True)
