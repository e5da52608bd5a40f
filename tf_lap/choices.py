"""How a choice is given: by name, or as an object with `get_config` and `from_config`, as Keras does for optimizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class Configurable:
    """A frozen dataclass whose fields are its configuration."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal object: `type(x).from_config(x.get_config()) == x`."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes the object that `get_config` describes."""
        return cls(**config)


def choose(
    what: str, given: Any, named: Mapping[str, type], methods: Iterable[str], accepted: str | None = None
) -> Any:
    """Turns a name into an object of its class with defaults; lets a fitting object through.

    Args:
        what: the argument's name, for errors.
        given: a name in `named`, or an object.
        named: the classes by name.
        methods: what an object must have.
        accepted: what to use, for errors; by default a name, or an object with the methods.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor an object with these methods.
    """
    accepted = accepted or f"use one of {sorted(named)}, or an object with {', '.join(methods)}"
    if isinstance(given, str):
        if given not in named:
            raise ValueError(f"{what}={given!r} is not known: {accepted}")
        return named[given]()
    missing = [name for name in methods if not hasattr(given, name)]
    if isinstance(given, type) or missing:
        lacks = "it is a class, not an object" if isinstance(given, type) else f"it has no {', '.join(missing)}"
        raise TypeError(f"{what}={given!r} cannot be used ({lacks}): {accepted}")
    return given
