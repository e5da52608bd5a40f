"""Pruning once, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tf_lap import scores
from tf_lap.allocation import AllocationLike, Sparsity
from tf_lap.channels.budget import Budget
from tf_lap.graph.layer_filters import Filters
from tf_lap.patterns import PatternLike
from tf_lap.pruning.pruner import Pruner
from tf_lap.reconstruction.methods import RepairLike
from tf_lap.report import PruningReport
from tf_lap.report.coverage import left_whole_warning
from tf_lap.samples import Representative
from tf_lap.scores import ScoreLike
from tf_lap.warn import warn


def prune(
    model: Any,
    sparsity: Sparsity | None = None,
    *,
    budget: Budget | None = None,
    score: ScoreLike = "lookahead",
    allocation: AllocationLike = "auto",
    pattern: PatternLike = "unstructured",
    order: str = "simultaneous",
    filters: Filters = None,
    neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
    data: Representative = None,
    steps: int = 1,
    repair: RepairLike = None,
    verbose: int = 0,
) -> PruningReport:
    """Prunes a model once, in place, without training.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> round(report.sparsity, 2)
    0.9

    Args:
        model: a built Keras model; its kernels are changed in place.
        sparsity: the fraction of zeros, in [0, 1), or a mapping from layer paths or regular expressions to fractions.
            Embeddings and depthwise kernels are pruned only where a key, or an expression in `filters`, is their path
            or matches all of it: `{"embedding": 0.5, "dense": 0.9}`.
        budget: in place of a sparsity, with `pattern="channels"`: what the model may cost, such as `{"macs": 0.5}`. Of
            "macs" (multiply-accumulates), "weights" and "bytes" each is a fraction of the present cost, or a number.
        score: as in `Pruner`.
        allocation: as in `Pruner`.
        pattern: as in `Pruner`.
        order: as in `Pruner`.
        filters: as in `Pruner`.
        neighbors: as in `Pruner`.
        data: as in `Pruner`, and what a repair is measured over.
        steps: in how many parts, with new scores and a repair for each. Each drops the same share of what is left.
        repair: what the kept weights do to make up for the others: True, "weights", "bias", "batchnorm" or several of
            these, as `method` of `tf_lap.repair`. Without data, moments are carried through the graph.
        verbose: 1 prints what is being repaired, and the report.

    Returns:
        A `PruningReport`. To keep the zeros while fine-tuning, pass `tf_lap.PreserveSparsity()` to `fit`.

    Raises:
        TypeError, ValueError: as `Pruner` and `Pruner.update`; the model is unchanged then.
    """
    if (sparsity is None) == (budget is None):
        raise TypeError(
            f"sparsity={sparsity!r} and budget={budget!r}: pass one of the two, such as 0.9, or budget={{'macs': 0.5}}"
        )
    pruner = Pruner(
        model,
        score=score,
        allocation=allocation,
        pattern=pattern,
        order=order,
        filters=filters,
        neighbors=neighbors,
        data=data if scores.get(score).needs_data or not repair else None,
    )
    report = prune_with(pruner, sparsity, budget, steps, repair, data, verbose)
    if verbose:
        print("", report, sep="\n")  # a progress bar leaves its line open
    return report


def prune_with(
    pruner: Pruner,
    sparsity: Sparsity | None,
    budget: Budget | None,
    steps: int,
    repair: RepairLike,
    data: Representative,
    verbose: int,
) -> PruningReport:
    """Prunes the model of a new pruner once; the arguments are those of `prune`.

    Args:
        pruner: made with the other arguments of `prune`.
        sparsity: as in `prune`; the model is unchanged where it is refused.
        budget: as in `prune`.
        steps: as in `prune`.
        repair: as in `prune`.
        data: what a repair is measured over.
        verbose: 1 prints what is being repaired.

    Raises:
        TypeError, ValueError: as `prune`.
    """
    if budget is not None:
        sparsity = pruner.fit_budget(budget)
    assert sparsity is not None
    pruner.check_final(sparsity)
    pruner.update(sparsity, steps=steps, repair=repair, data=data if repair else None, verbose=verbose)
    report = pruner.report()
    warning = left_whole_warning(pruner.model, report)
    if warning:
        warn(warning)
    return report
