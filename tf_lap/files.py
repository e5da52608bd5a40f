"""Paths of users, and files that are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path in any form that `open` takes."""


def as_path(path: AnyPath, argument: str = "path") -> Path:
    """A user's path, of text or of bytes, as a `Path`.

    Args:
        path: the path; bytes are decoded by `os.fsdecode`, so that any file can be named.
        argument: the name of the argument that holds the path, for errors.

    Raises:
        TypeError: no path. ValueError: a path with a null byte.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{argument}={_shorten(path)}: expected a path, of str, bytes or pathlib.Path")
    decoded = os.fsdecode(path)
    if "\0" in decoded:
        raise ValueError(f"{argument}={decoded!r}: a path holds no null byte")
    return Path(decoded)


def _shorten(value: Any) -> str:
    """The representation of a value, or the name of its class if that is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces the file at `path` when the block ends. If the block raises, nothing is replaced.

    The content and the new name are on the disk when the block is left, so that after a power failure the file is
    whole, too.
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
    """Removes the files that killed writers of `path` left beside it. No other process may be writing it."""
    for beside in path.parent.glob(f"{glob.escape(_unfinished_prefix(path))}*.part"):
        beside.unlink(missing_ok=True)


def _unfinished_prefix(path: Path) -> str:
    # The name is cut, because file systems limit its length.
    return f".{path.name[:40]}."


def _sync_directory(directory: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a directory, and its renames are durable without this
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
