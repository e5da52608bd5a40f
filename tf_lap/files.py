"""Paths that users give, and files that are whole or not there."""

from __future__ import annotations

import contextlib
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
    """A file to write that takes the place of `path` when the block ends; when it raises, what was there stays."""
    beside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with beside.open("xb") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
