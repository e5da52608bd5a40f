"""Whole channels."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_lap.patterns.base import Pattern, check_whole_number, register


@register("channels")
@dataclasses.dataclass(frozen=True)
class Channels(Pattern):
    """Whole channels stay or go, with all weights that put them out and all that read them.

    What is pruned can then be removed: `tf_lap.shrink` makes a smaller model of it. A sparsity counts channels. A group
    of w channels keeps `max(1, round(w * (1 - sparsity)))` of them, rounded to `round_to`. `tf_lap.channel_groups` says
    which channels go together, and which cannot go.

    Example:

    >>> report = tf_lap.prune(model, 0.5, pattern=tf_lap.patterns.Channels(round_to=4))

    Args:
        round_to: of which number the width of a layer is to be a multiple; it is never less. Hardware is often faster
            with multiples of 8.
        group_wise: whether channels go that several kernels put out, such as those of a residual stream.

        input_shape: the shape of the model's input, as in `tf_lap.cost`, where the model leaves axes of it open. What a
            model computes depends on it, and so do budgets and reports.

    Raises:
        TypeError, ValueError: `round_to` is no whole number of at least 1, `group_wise` no bool.
    """

    round_to: int = 1
    group_wise: bool = True
    input_shape: Any = dataclasses.field(default=None, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "round_to", check_whole_number("round_to", self.round_to))
        if not isinstance(self.group_wise, bool):
            raise TypeError(f"group_wise={self.group_wise!r}: expected True or False")

    def __str__(self) -> str:
        return "channels" if self == Channels() else repr(self)
