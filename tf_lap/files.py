"""Paths that users give, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path in any form that `open` takes."""


def as_path(path: AnyPath, what: str = "path") -> Path:
    """A path that a user gives, of text or of bytes.

    Args:
        path: the user's; bytes are decoded as `os.fsdecode` does, so that any file can be named.
        what: the argument's name, for errors.

    Raises:
        TypeError: it is no path. ValueError: it holds a null byte.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{what}={_shown(path)}: expected a path, of str, bytes or pathlib.Path")
    decoded = os.fsdecode(path)
    if "\0" in decoded:
        raise ValueError(f"{what}={decoded!r}: a path holds no null byte")
    return Path(decoded)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"


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
