"""Measured values as text."""

from __future__ import annotations

import math


def format_value(value: float, dense: float) -> str:
    """A value with as many decimals as four digits of the dense model's value take.

    Example:

    >>> format_value(0.5, 0.9712), format_value(7.25, 2.301), format_value(81.25, 97.1)
    ('0.5000', '7.250', '81.25')
    """
    if not math.isfinite(value) or abs(value) >= 1e6:
        return f"{value:.3g}"
    digits = 4 - math.ceil(math.log10(abs(dense))) if dense else 4
    return f"{value:.{min(max(digits, 0), 6)}f}"
