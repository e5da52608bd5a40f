"""What pruning did to whole channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lap.channels.plan import ChannelPlan
from tf_lap.costs.channel_costs import Cost


@dataclasses.dataclass(frozen=True)
class GroupReport:
    """A group of channels.

    Attributes:
        name: the path of the first kernel that puts the channels out.
        width: how many channels there are.
        kept: how many of them stay.
        blocked: why none of them can be removed; empty where they can.
    """

    name: str
    width: int
    kept: int
    blocked: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ChannelsReport:
    """All groups of channels, in the order of the graph.

    Attributes:
        groups: a `GroupReport` for each.
        before: what the model costs: weights, their bytes, and multiply-accumulates for one sample. None where its
            input has axes of unknown size.
        after: what it costs without the channels that were removed.
    """

    groups: tuple[GroupReport, ...]
    before: Cost | None
    after: Cost | None

    @property
    def pruned(self) -> tuple[GroupReport, ...]:
        """The groups whose channels can be removed."""
        return tuple(group for group in self.groups if not group.blocked)

    @property
    def sparsity(self) -> float:
        """The fraction of those channels that were removed."""
        width = sum(group.width for group in self.pruned)
        return 1 - sum(group.kept for group in self.pruned) / width

    def blocked_by_reason(self) -> dict[str, list[str]]:
        """The names of the groups that stay whole, by the reason why."""
        names: dict[str, list[str]] = {}
        for group in self.groups:
            for reason in group.blocked:
                names.setdefault(reason, []).append(group.name)
        return names

    @property
    def summary(self) -> str:
        """What stays, in one or two sentences."""
        width, kept = (sum(getattr(group, name) for group in self.pruned) for name in ("width", "kept"))
        text = f"channels: {kept:,} of {width:,} stay in {len(self.pruned)} group{'s' * (len(self.pruned) != 1)}"
        if self.before is None or self.after is None:
            return text
        return (
            f"{text}; tf_lap.shrink leaves {self.after.weights:,} of {self.before.weights:,} weights, "
            f"{self.after.macs:,} of {self.before.macs:,} multiply-accumulates"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        return {
            "sparsity": self.sparsity,
            "groups": [{**dataclasses.asdict(group), "blocked": list(group.blocked)} for group in self.groups],
            "before": None if self.before is None else dict(self.before._asdict()),
            "after": None if self.after is None else dict(self.after._asdict()),
        }


def report_channels(plan: ChannelPlan | None, masks: Mapping[int, np.ndarray]) -> ChannelsReport | None:
    """The report of a pruned model; None where there is no plan.

    Args:
        plan: its groups of channels.
        masks: bool arrays of the kernels' shapes, by number.
    """
    if plan is None:
        return None
    alive = plan.find_alive(masks)
    groups = tuple(
        GroupReport(group.name, group.width, int(np.count_nonzero(alive[group.classes])), group.blocked)
        for group in plan.groups
    )
    try:
        costs = plan.costs
    except ValueError:  # axes of unknown size, which the pattern may say
        return ChannelsReport(groups, None, None)
    return ChannelsReport(groups, costs.total(np.ones_like(alive)), costs.total(alive))
