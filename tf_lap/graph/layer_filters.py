"""Which layers are meant: by path, by regular expression, or by a function of the layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Filters = str | Sequence[str] | Callable[[Any], bool] | None
Entry = TypeVar("Entry")


def filtered(filters: Filters, layers: Mapping[str, Any]) -> set[str]:
    """The paths of the layers that `filters` lets through.

    Args:
        filters: None for all; a regular expression searched in the path, or a list of them; or a function of a layer.
        layers: the layers by path.

    Raises:
        ValueError: an expression that is malformed or matches nothing, or a function that accepts no layer.
        TypeError: none of these.
    """
    if filters is None:
        return set(layers)
    if callable(filters):
        accepted = {path for path, layer in layers.items() if filters(layer)}
        if not accepted:
            raise ValueError(f"filters={filters!r} accepts no layer: the layers with a kernel are {_listed(layers)}")
        return accepted
    patterns = [filters] if isinstance(filters, str) else filters
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"filters={filters!r}: expected a regular expression, a list of them, or a function of a layer")
    if not patterns:
        raise ValueError("filters is an empty list, which matches nothing: pass None to prune every layer")
    return {path for pattern in patterns for path in _searched("filters", pattern, layers)}


def lookup(what: str, mapping: Mapping[str, Entry], paths: Sequence[str]) -> dict[str, Entry]:
    """The entry of each path that a mapping speaks of.

    A key that is a path speaks of that layer alone, and wins; any other key is a regular expression
    searched in the paths, the first that matches counts.

    Raises:
        ValueError: an expression that is malformed or matches nothing. TypeError: a key that is no string.
    """
    found: dict[str, Entry] = {}
    exact = {path: mapping[path] for path in paths if path in mapping}
    for key, entry in mapping.items():
        if not isinstance(key, str):
            raise TypeError(
                f"{what}: the key {key!r} is no layer path or regular expression: use a string, such as {paths[0]!r}"
            )
        if key not in exact:
            for path in _searched(what, key, paths):
                found.setdefault(path, entry)
    return {path: exact.get(path, found.get(path)) for path in paths if path in exact or path in found}  # type: ignore[misc]


def _searched(what: str, pattern: str, paths: Mapping[str, Any] | Sequence[str]) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{what}: {pattern!r} is not a regular expression ({error}): a layer's path, or a part of it, is enough. "
            f"The layers with a kernel are {_listed(paths)}"
        ) from error
    matched = [path for path in paths if expression.search(path)]
    if not matched:
        raise ValueError(f"{what}: {pattern!r} matches no layer: the layers with a kernel are {_listed(paths)}")
    return matched


def _listed(paths: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(repr(path) for path in paths)
