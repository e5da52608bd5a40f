"""How many channels each group keeps, so that a model costs no more than a budget.

All channels that may go are ranked together, by their layer-adaptive scores (`tf_lap.allocation.LAMP`) over the share
of the cost that their removal saves. A layer-adaptive score is the share of what remains of its group. It grows while a
group gets narrower, so that no group is emptied for what it saves. The fewest channels go that bring the cost down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from tf_lap.allocation import LAMP
from tf_lap.channels.plan import ChannelPlan, compare_scores
from tf_lap.costs.channel_costs import ChannelCosts, Cost

Budget: TypeAlias = Mapping[str, float]
"""What a model may cost: "macs", "weights" or "bytes", each a fraction of the present cost below 1, or a number."""

BUDGETS = ("macs", "weights", "bytes")


def check_budget(budget: Any) -> dict[str, float]:
    """A budget as plain numbers.

    Raises:
        TypeError: no mapping, or a number that is none. ValueError: an unknown or missing name, or no positive number.
    """
    if not isinstance(budget, Mapping):
        raise TypeError(f"budget={budget!r}: expected a mapping such as {{'macs': 0.5}}, with names of {list(BUDGETS)}")
    if not budget or not set(budget) <= set(BUDGETS):
        raise ValueError(f"budget={dict(budget)!r}: name one or more of {list(BUDGETS)}, as in {{'macs': 0.5}}")
    for name, value in budget.items():
        if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
            raise TypeError(f"budget[{name!r}]={value!r}: expected a fraction below 1, or a number of {name}")
        if not 0 < float(value) < float("inf"):
            raise ValueError(f"budget[{name!r}]={value!r}: expected a fraction below 1, or a number of {name}")
    return {name: float(value) for name, value in budget.items()}


def fit_budget(budget: Any, plan: ChannelPlan | None, score_channels: Callable[[], np.ndarray]) -> dict[str, float]:
    """The sparsity of each group of channels with which a model keeps within a budget.

    Args:
        budget: what the user asks for.
        plan: the groups of channels; None where weights go.
        score_channels: computes how much each class of channels matters: `(classes,)`, not negative.

    Returns:
        Sparsities by the name of the group, all groups that can be pruned among them.

    Raises:
        TypeError, ValueError: no budget, no plan, or the model costs more even with the fewest channels.
    """
    budget = check_budget(budget)
    if plan is None:
        raise ValueError(f"budget={budget!r} is reached by whole channels: use pattern='channels'")
    try:
        costs = plan.costs
    except ValueError as error:
        raise ValueError(f"budget={budget!r}: {error}, in pattern=tf_lap.patterns.Channels(input_shape=...)") from error
    scores = score_channels()
    everything = np.ones(costs.count, bool)
    before = costs.total(everything)
    limits = {name: value if value >= 1 else value * getattr(before, name) for name, value in budget.items()}
    order = _rank(plan, costs, scores, before, list(limits))

    def keep(removed: int) -> np.ndarray:
        candidates = everything.copy()
        candidates[order[:removed]] = False
        counts = [plan.round_count(group, int(np.count_nonzero(candidates[group.classes]))) for group in plan.prunable]
        return plan.choose(scores, everything, counts)

    def fits(removed: int) -> bool:
        total = costs.total(keep(removed))
        return all(getattr(total, name) <= limit for name, limit in limits.items())

    if not fits(len(order)):
        least = costs.total(keep(len(order)))
        shortest = ", ".join(f"{name}: {getattr(least, name):,} of {getattr(before, name):,}" for name in limits)
        raise ValueError(f"budget={dict(budget)!r} cannot be reached: with the fewest channels that stay, {shortest}")
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    kept = keep(low)
    return {
        group.name: 1 - int(np.count_nonzero(kept[group.classes])) / group.width
        for group in plan.prunable
        if group.name in group.producers
    }


def _rank(plan: ChannelPlan, costs: ChannelCosts, scores: np.ndarray, before: Cost, names: list[str]) -> np.ndarray:
    """The classes that may go, the first to go first. The best of each group is not among them."""
    savings = costs.savings(np.ones(costs.count, bool))
    share = np.max([getattr(savings, name) / getattr(before, name) for name in names], axis=0)
    ranked, classes = [], []
    for group in plan.prunable:
        if group.name not in group.producers:
            continue  # a mapping of sparsities cannot name it apart from another group of the same kernel
        comparable = compare_scores(scores[group.classes], np.ones(group.width, bool), LAMP())
        ranked.append(comparable.astype(np.float64) / share[group.classes])
        classes.append(group.classes)
    worths, numbers = np.concatenate(ranked), np.concatenate(classes)
    return numbers[np.argsort(worths, kind="stable")][: np.count_nonzero(np.isfinite(worths))]
