"""A model's value against sparsity, layer by layer and for the whole of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lap.allocation import AllocationLike, check_fraction
from tf_lap.graph.layer_filters import Filters
from tf_lap.patterns import PatternLike
from tf_lap.reconstruction.methods import RepairLike
from tf_lap.samples import Representative
from tf_lap.scores import ScoreLike
from tf_lap.search.combinations import Combination, check, combine, fix_data
from tf_lap.search.sensitivity_report import LayerSensitivity, SensitivityReport
from tf_lap.search.trial import Evaluate, Trial
from tf_lap.search.values import format_value
from tf_lap.tabular import elide

DEFAULT_SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
_LINE = 80  # characters of a line that is printed meanwhile
_SHORTEST_PATH = 12


def sensitivity(
    model: Any,
    evaluate: Evaluate,
    *,
    sparsities: Sequence[float] | None = None,
    filters: Filters = None,
    whole_model: bool = True,
    score: ScoreLike = "lookahead",
    allocation: AllocationLike = "auto",
    pattern: PatternLike = "unstructured",
    order: str = "simultaneous",
    neighbors: Mapping[str, Sequence[Sequence[str]]] | None = None,
    data: Representative = None,
    repair: RepairLike = None,
    higher_is_better: bool = True,
    verbose: int = 1,
) -> SensitivityReport:
    """Measures what pruning once does to a model: each layer by itself, the others dense, and all of them together.

    For each layer and each sparsity the model is pruned and evaluated once. The model is left as it was, also where
    `evaluate` raises or Ctrl-C is pressed: weights, statistics of normalization layers, seeds and the state of its
    optimizers. What `evaluate` makes anew, as the state of an optimizer that was not built, stays.

    Example:

    >>> report = tf_lap.sensitivity(model, lambda m: m.evaluate(x, y, verbose=0), higher_is_better=False, verbose=0)
    >>> print(report.render(80))
    dense ...
    layer ...
    >>> fractions = {layer.path: 0.9 for layer in report.by_sensitivity[1:]}  # all but the most sensitive one

    Args:
        model: a built Keras model.
        evaluate: a function of the model that returns one number, such as an accuracy on validation data:
            `lambda model: model.evaluate(x_val, y_val, verbose=0)[1]`. It is called with the model itself, pruned.
        sparsities: the fractions of zeros to measure at; 0.5, 0.7, 0.8, 0.9 and 0.95 by default, or that of the pattern
            where it has only one.
        filters: which layers to measure, as in `Pruner`.
        whole_model: whether to measure all these layers together, too.
        score: as in `Pruner`.
        allocation: as in `Pruner`, for all layers together.
        pattern: as in `Pruner`.
        order: as in `Pruner`.
        neighbors: as in `Pruner`.
        data: as in `Pruner`. A dataset or a function is read once.
        repair: as in `prune`.
        higher_is_better: whether a higher value is better, as with an accuracy. False for a loss or an error.
        verbose: 1 prints a line for each layer.

    Returns:
        A `SensitivityReport`, with a table and a picture.

    Raises:
        TypeError, ValueError: what `prune` raises, before the first evaluation; `evaluate` returns no number, or none
            that is finite for the dense model.
    """
    data = fix_data(model, data)
    options = {"order": order, "filters": filters, "neighbors": neighbors, "data": data, "repair": repair}
    (together,) = combine([score], [allocation], [pattern], options)
    (alone,) = combine([score], ["uniform"], [pattern], options)  # others divide one sparsity among all layers
    fractions = _read_sparsities(sparsities, together.sparsity)
    trial = Trial(model, evaluate)
    pruner = check(model, together, fractions[0])
    for fraction in fractions:
        pruner.check_final(fraction)
    layers = pruner.report().pruned
    with trial:
        dense = trial.measure_dense()
        rows = _Rows(trial, fractions, dense, len(layers) + bool(whole_model), verbose)
        measured = [
            LayerSensitivity(
                layer.path,
                layer.layer_class,
                layer.shape,
                layer.weights,
                rows.measure(layer.path, alone, [{layer.path: fraction} for fraction in fractions]),
            )
            for layer in layers
        ]
        values = rows.measure("all layers together", together, fractions) if whole_model else None
    return SensitivityReport(dense, fractions, tuple(measured), values, bool(higher_is_better), str(together))


def _read_sparsities(sparsities: Any, only: float | None) -> tuple[float, ...]:
    """The sparsities to measure at, in rising order.

    Raises:
        TypeError, ValueError: none, or one outside [0, 1).
    """
    if sparsities is None:
        return DEFAULT_SPARSITIES if only is None else (only,)
    if isinstance(sparsities, (str, Mapping)) or not hasattr(sparsities, "__iter__"):
        raise TypeError(f"sparsities={sparsities!r}: expected several fractions of zeros, such as (0.5, 0.8, 0.9)")
    fractions = sorted({check_fraction("sparsities", fraction) for fraction in sparsities})
    if not fractions:
        raise ValueError("sparsities is empty: pass fractions of zeros, such as (0.5, 0.8, 0.9)")
    return tuple(fractions)


class _Rows:
    """Measures row after row of the table, and tells how far it is.

    Args:
        trial: prunes and evaluates the model.
        fractions: the sparsities.
        dense: the dense model's value.
        count: how many rows there are.
        verbose: whether lines are printed.
    """

    def __init__(self, trial: Trial, fractions: Sequence[float], dense: float, count: int, verbose: int) -> None:
        self._trial, self._dense, self._count, self._verbose = trial, dense, count, verbose
        self._number, self._started = 0, time.monotonic()
        if verbose:
            text = ", ".join(f"{fraction:.4g}" for fraction in fractions)
            print(f"sensitivity: dense {format_value(dense, dense)}; {count} rows at sparsities {text}", flush=True)

    def measure(self, label: str, combination: Combination, sparsities: Sequence[Any]) -> tuple[float, ...]:
        """The values of a row, at each sparsity."""
        values = tuple(self._trial.measure_pruned(sparsity, combination.arguments)[0] for sparsity in sparsities)
        self._number += 1
        if self._verbose:
            seconds = (time.monotonic() - self._started) / self._number * (self._count - self._number)
            left = f", about {seconds:.0f} s left" if seconds >= 1 else ""
            numbers = " ".join(format_value(value, self._dense) for value in values)
            beginning = f"{self._number} of {self._count}{left}: "
            path = elide(label, max(_LINE - len(beginning) - len(numbers) - 2, _SHORTEST_PATH))
            print(f"{beginning}{path}  {numbers}", flush=True)
        return values
