"""Selects layers by path, by regular expression, or by a function of the layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from tf_lap.compat.types import Layer

Filters: TypeAlias = str | Sequence[str] | Callable[[Layer], bool] | None
Entry = TypeVar("Entry")


def select_paths(filters: Filters, layers: Mapping[str, Layer]) -> set[str]:
    """The paths of the layers that `filters` lets through.

    Args:
        filters: None for all; a regular expression that is searched in the path, or a list of them; or a function that
            says of a layer whether it is let through.
        layers: the layers by path.

    Raises:
        ValueError: an expression that is malformed or matches nothing, or a function that accepts no layer.
        TypeError: `filters` is none of these.
    """
    if filters is None:
        return set(layers)
    if callable(filters):
        accepted = {path for path, layer in layers.items() if filters(layer)}
        if not accepted:
            raise ValueError(
                f"filters={filters!r} accepts no layer: the layers with a kernel are {_format_paths(layers)}"
            )
        return accepted
    patterns = [filters] if isinstance(filters, str) else filters
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"filters={filters!r}: expected a regular expression, a list of them, or a function of a layer")
    if not patterns:
        raise ValueError("filters is an empty list, which matches nothing: pass None to prune every layer")
    return {path for pattern in patterns for path in _search("filters", pattern, layers)}


def is_named(filters: Filters, path: str) -> bool:
    """Whether an expression among the filters matches a whole path, as it must for kernels that are opt-in."""
    patterns = [filters] if isinstance(filters, str) else filters
    return isinstance(patterns, (list, tuple)) and any(re.fullmatch(pattern, path) for pattern in patterns)


def lookup(
    option: str, mapping: Mapping[str, Entry], paths: Sequence[str], opt_in: Collection[str] = ()
) -> dict[str, Entry]:
    """The entry of each path that a mapping speaks of.

    A key that is a path speaks of that layer alone, and wins. Any other key is a regular expression
    searched in the paths; the first that matches counts.

    Args:
        option: the name of the option that the user passed the mapping as, for messages.
        mapping: from a path or an expression to an entry.
        paths: the paths of the layers.
        opt_in: those of them that an expression speaks of only where it matches the whole path.

    Returns:
        The entries by path, in the order of `paths`.

    Raises:
        ValueError: an expression that is malformed or matches nothing.
        TypeError: a key that is not a string.
    """
    entries = {path: mapping[path] for path in paths if path in mapping}
    for key, entry in mapping.items():
        if not isinstance(key, str):
            raise TypeError(
                f"{option}: the key {key!r} is no layer path or regular expression: use a string, such as {paths[0]!r}"
            )
        if key not in paths:
            for path in _search(option, key, paths):
                if path not in opt_in or re.fullmatch(key, path):
                    entries.setdefault(path, entry)
    return {path: entries[path] for path in paths if path in entries}


def _search(option: str, pattern: str, paths: Iterable[str]) -> list[str]:
    """The paths in which a regular expression is found.

    Raises:
        ValueError: the expression is malformed, or found in no path.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{option}: {pattern!r} is not a regular expression ({error}): a layer's path, or a part of it, is enough. "
            f"The layers with a kernel are {_format_paths(paths)}"
        ) from error
    matches = [path for path in paths if expression.search(path)]
    if not matches:
        raise ValueError(f"{option}: {pattern!r} matches no layer: the layers with a kernel are {_format_paths(paths)}")
    return matches


def _format_paths(paths: Iterable[str]) -> str:
    return ", ".join(repr(path) for path in paths)
