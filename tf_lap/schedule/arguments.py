"""Checks of what users give a schedule: steps, epochs, numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_PHASES = 3  # dense phases, by default


def check_initial(initial: float, final: Any, alternates: bool) -> None:
    """Raises ValueError where a schedule cannot begin at this sparsity.

    Args:
        initial: the fraction of zeros at the beginning.
        final: that at the end, a number or a mapping.
        alternates: whether dense phases take turns with sparse ones.
    """
    lowest = min(final.values()) if isinstance(final, Mapping) else final
    if initial > lowest:
        raise ValueError(
            f"initial_sparsity={initial} lies above the final sparsity {lowest}, and pruned weights never come back: "
            f"give at most {lowest}"
        )
    if initial and alternates:
        raise ValueError(f"initial_sparsity={initial}: dense phases of decay='alternating' have none, leave it out")


def settle_phases(
    phases: int | None, frequency: int | None, begin: int | None, end: int | None
) -> tuple[int | None, int | None]:
    """The length of a phase where dense and sparse ones alternate, and their number where the length is not known yet.

    Args:
        phases: how many dense phases lie between begin and end, if that is given.
        frequency: the length of a phase in steps, if that is given.
        begin: the step at which the first sparse phase begins, if that is known.
        end: the step at which the last one does, if that is known.

    Returns:
        `(frequency, phases)`; one of the two is None.

    Raises:
        ValueError: both are given, or the phases do not fit between begin and end.
    """
    if phases is not None and frequency is not None:
        raise ValueError(f"phases={phases} and frequency={frequency} both give the length of a phase: give one of them")
    if begin is None or end is None:
        return frequency, phases
    if frequency is None:
        phases = _PHASES if phases is None else phases
        frequency = (end - begin) // (2 * phases)
    if not 0 < frequency < end - begin:
        number = "one dense phase" if phases is None else f"{phases} dense phases"
        raise ValueError(
            f"between begin_step={begin} and end_step={end} there is no room for {number} with as many sparse ones: "
            "train longer, or give fewer phases or a lower frequency"
        )
    return frequency, None


def check_power(power: Any) -> float:
    """The exponent of the polynomial as a float; raises TypeError or ValueError for anything but a number above 0."""
    if isinstance(power, (bool, str)) or not hasattr(power, "__float__"):
        raise TypeError(f"power={power!r}: expected a number above 0")
    if not float(power) > 0:
        raise ValueError(f"power={power} must be above 0")
    return float(power)


def check_step(argument: str, value: Any, minimum: int) -> int | None:
    """A number of steps as an int, or None; raises TypeError or ValueError for anything else."""
    if value is None:
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # such as 2 * len(x) / 32
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument}={value!r}: expected an integer number of training steps")
    if value < minimum:
        raise ValueError(f"{argument}={value} must be at least {minimum}")
    return int(value)


def check_epoch(argument: str, value: Any) -> float | None:
    """A number of epochs as a float, or None; raises TypeError or ValueError for anything else."""
    if value is None:
        return None
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{argument}={value!r}: expected a number of epochs")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{argument}={value} must be at least 0")
    return float(value)


def check_order(unit: str, begin: float | None, end: float | None, strictly: bool) -> None:
    """Raises ValueError if the end, in steps or epochs, comes before the beginning, or `strictly` not behind it."""
    if begin is not None and end is not None and (end < begin or (end == begin and strictly)):
        raise ValueError(f"end_{unit}={end} must lie behind begin_{unit}={begin}")
