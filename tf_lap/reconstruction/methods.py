"""What `repair=` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

WEIGHTS, BIAS, BATCH_NORMALIZATION = METHODS = ("weights", "bias", "batchnorm")

RepairLike: TypeAlias = bool | str | Sequence[str] | None
"""What the argument `repair` takes: None or False for no repair, True for all that the data allows, or methods."""


def read_methods(repair: RepairLike, has_data: bool, name: str = "repair") -> tuple[str, ...]:
    """The methods that an argument asks for, in the order of `METHODS`; none for no repair.

    Args:
        repair: the argument.
        has_data: whether there is data to repair with.
        name: what the argument is called, for messages.

    Raises:
        TypeError, ValueError: something else than methods, or one that needs data where there is none.
    """
    if repair is None or repair is False:
        return ()
    if repair is True:
        return METHODS if has_data else (WEIGHTS, BIAS)
    chosen = [repair] if isinstance(repair, str) else repair
    if not isinstance(chosen, (list, tuple, set, frozenset)) or not all(isinstance(entry, str) for entry in chosen):
        raise TypeError(f"{name}={repair!r}: expected True, or one or several of {list(METHODS)}")
    unknown = [entry for entry in chosen if entry not in METHODS]
    if unknown or not chosen:
        raise ValueError(f"{name}={repair!r} is not known: use True, or one or several of {list(METHODS)}")
    if BATCH_NORMALIZATION in chosen and not has_data:
        raise ValueError(
            f"{name}={repair!r}: the statistics of batch normalization are measured over data: pass data=, typical "
            "inputs such as x_train[:256], or leave 'batchnorm' out"
        )
    return tuple(method for method in METHODS if method in chosen)
