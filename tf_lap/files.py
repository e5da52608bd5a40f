"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends; when it raises, what was there stays.

    Both the content and the new name are on the disk when this returns, so a power failure leaves a whole file too.
    """
    beside = path.with_name(f"{_unfinished_prefix(path)}{uuid.uuid4().hex}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Removes what writers of `path` left beside it when they were killed. Nobody may be writing it meanwhile."""
    for beside in path.parent.glob(f"{glob.escape(_unfinished_prefix(path))}*.part"):
        beside.unlink(missing_ok=True)


def _unfinished_prefix(path: Path) -> str:
    # Cut, because file systems limit the length of a name.
    return f".{path.name[:40]}."


def _sync_directory(directory: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a directory, and renames durably without it
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
