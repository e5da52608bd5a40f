"""The pattern that a text such as "2:4" stands for, and what a pattern cannot do."""

from __future__ import annotations

import re

from tf_lap.graph.layouts import Layout
from tf_lap.patterns import base
from tf_lap.patterns.base import Pattern, PatternLike
from tf_lap.patterns.blocks import Blocks
from tf_lap.patterns.n_of_m import NOfM

_FORMS = (
    (re.compile(r"(\d+):(\d+)"), NOfM),
    (re.compile(r"block:(\d+)x(\d+)"), Blocks),
)


def get(pattern: PatternLike) -> Pattern:
    """The pattern object that a name, an object or a configuration stands for.

    Raises:
        ValueError: an unknown name, or one of an impossible pattern. TypeError: none of the three.
    """
    if isinstance(pattern, str):
        for form, cls in _FORMS:
            if match := form.fullmatch(pattern):
                return cls(*map(int, match.groups()))
    return base.get(pattern)


def limit(pattern: Pattern, layout: Layout, kept: int) -> str | None:
    """Why a kernel keeps more than the pattern's share, if the pattern cannot prune more of it; else None.

    Example:

    >>> limit(NOfM(2, 4), Layout((3, 3, 1, 8)), kept=72)
    '2:4 drops nothing where an output has 1 input at each tap'

    Args:
        pattern: the pattern.
        layout: the kernel's.
        kept: how many weights the kernel keeps.
    """
    if pattern.sparsity is None:
        return None
    least, units = pattern.least(layout), pattern.units(layout)
    if kept > least or least <= max(1, round(units * (1 - pattern.sparsity))):
        return None
    inputs = layout.shape[layout.input_axis]
    most = "nothing" if least == units else f"{1 - least / units:.0%} at most"
    taps = " at each tap" if len(layout.shape) > 2 else ""
    return f"{pattern} drops {most} where an output has {inputs} input{'s' * (inputs > 1)}{taps}"
