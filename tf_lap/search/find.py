"""The sparsest model within a drop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lap.allocation import AllocationLike
from tf_lap.files import AnyPath, as_path
from tf_lap.graph.layer_filters import Filters
from tf_lap.patterns import PatternLike
from tf_lap.reconstruction.methods import RepairLike
from tf_lap.samples import Representative
from tf_lap.scores import ScoreLike
from tf_lap.search.bisection import Search
from tf_lap.search.combinations import check, combine, fix_data
from tf_lap.search.record import Record, fingerprint_data, fingerprint_weights
from tf_lap.search.search_report import SearchReport
from tf_lap.search.trial import Evaluate, Trial


def find_sparsity(
    model: Any,
    evaluate: Evaluate,
    max_drop: float = 0.01,
    *,
    relative: bool = False,
    higher_is_better: bool = True,
    scores: ScoreLike | Sequence[ScoreLike] = ("lookahead", "magnitude"),
    allocations: AllocationLike | Sequence[AllocationLike] = ("global", "lamp", "uniform"),
    patterns: PatternLike | Sequence[PatternLike] = "unstructured",
    order: str = "simultaneous",
    filters: Filters = None,
    neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
    data: Representative = None,
    repair: RepairLike = None,
    tolerance: float = 0.005,
    path: AnyPath | None = None,
    verbose: int = 1,
) -> SearchReport:
    """Finds the sparsest model whose value is within a drop of the dense model's, when it is pruned once.

    Each score, allocation and pattern is tried with each other one, by bisection over the sparsity. Later combinations
    are first tried at the best sparsity so far, and are over where they do not reach it. A pattern that has only one
    sparsity, such as "2:4", is tried at that, with the allocation "uniform". What is found was measured: where values
    do not fall steadily with the sparsity, a sparser model may be within the drop too.

    The model is left as it was, also where `evaluate` raises or the search is stopped by Ctrl-C: weights, statistics of
    normalization layers, seeds and the state of its optimizers. What `evaluate` makes anew, as the state of an
    optimizer that was not built, stays.

    Example:

    >>> labels = model.predict(x, verbose=0).argmax(axis=1)
    >>> def share_as_before(model):
    ...     return (model.predict(x, verbose=0).argmax(axis=1) == labels).mean()
    >>> result = tf_lap.find_sparsity(model, share_as_before, max_drop=0.1, verbose=0)
    >>> report = tf_lap.prune(model, **result.best)
    >>> report.sparsity == result.sparsity
    True

    Args:
        model: a built Keras model.
        evaluate: a function of the model that returns one number, such as an accuracy on validation data:
            `lambda model: model.evaluate(x_val, y_val, verbose=0)[1]`. It is called with the model itself, pruned.
        max_drop: by how much the value may be worse than the dense model's: 0.01 is one point of accuracy in a hundred.
        relative: whether `max_drop` is a fraction of the dense model's value.
        higher_is_better: whether a higher value is better, as with an accuracy. False for a loss or an error.
        scores: one or several; each as in `Pruner`.
        allocations: one or several; each as in `Pruner`.
        patterns: one or several; each as in `Pruner`.
        order: as in `Pruner`.
        filters: as in `Pruner`.
        neighbors: as in `Pruner`.
        data: as in `Pruner`, for the scores that need it and for `repair`. A dataset or a function is read once.
        repair: as in `prune`, for every model that is tried.
        tolerance: the bisection ends where the sparsest model within the drop and the next one that is not are so near.
        path: a JSON file that keeps each evaluation. A search that is started again with the same arguments and the
            same weights goes on from it. What `evaluate` does is not known to the file. None: no file.
        verbose: 1 prints a line for each evaluation.

    Returns:
        A `SearchReport`. `result.best` holds the arguments for `prune`.

    Raises:
        TypeError, ValueError: what `prune` raises, before the first evaluation; `evaluate` returns no number, or none
            that is finite for the dense model; a `path` with a search of other arguments or weights.
        OSError: the file cannot be read or written.
    """
    drop = _check_number("max_drop", max_drop, "0 or more, by how much the value may be worse")
    step = _check_number("tolerance", tolerance, "a difference of sparsities in (0, 1)")
    if drop < 0:
        raise ValueError(f"max_drop={max_drop!r}: expected 0 or more, by how much the value may be worse")
    if not 0 < step < 1:
        raise ValueError(f"tolerance={tolerance!r}: expected a difference of sparsities in (0, 1)")
    data = fix_data(model, data)
    options = {"order": order, "filters": filters, "neighbors": neighbors, "data": data, "repair": repair}
    combinations = combine(scores, allocations, patterns, options)
    trial = Trial(model, evaluate)
    pruners = [check(model, combination) for combination in combinations]
    arguments: dict[str, Any] = {}
    file = None if path is None else as_path(path)
    if file is not None:
        arguments = {
            "max_drop": drop,
            "relative": bool(relative),
            "higher_is_better": bool(higher_is_better),
            "choices": [combination.to_dict() for combination in combinations],
            "order": order,
            "layers": sorted(pruners[0].masks),
            "neighbors": repr(neighbors),
            "repair": repr(repair),
            "tolerance": step,
            "data": fingerprint_data(data),
            "weights": fingerprint_weights(model),
        }
    record = Record(file, arguments)
    search = Search(trial, record, combinations, verbose)
    with trial:
        goal = search.measure_dense(drop, relative, higher_is_better)
        search.run(goal, pruners[0].sparsity, step)
    return search.report()


def _check_number(argument: str, value: Any, expected: str) -> float:
    """A number of the user's as a float.

    Raises:
        TypeError: no number. ValueError: NaN or infinity.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{argument}={value!r}: expected a number, {expected}")
    if not math.isfinite(value):
        raise ValueError(f"{argument}={value!r}: expected {expected}")
    return float(value)
