"""A picture of a value against sparsity, with its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tf_lap.charting import DENSE_COLOUR, STYLES, make_axes
from tf_lap.search.search_report import SearchReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves: TypeAlias = Mapping[str, Mapping[float, float | Sequence[float]]]
"""By name, and by sparsity: a value, or several, as of several seeds."""

_SHIFT = 0.06  # of the distance between two sparsities, between curves, so that no bar hides another
_MAX_NAME = 40
_FEW = 12


def plot_tradeoff(
    results: SearchReport | Curves, *, dense: float | Sequence[float] | None = None, value: str = "value"
) -> Figure:
    """Draws values against sparsity: the mean of each, and a bar from the least to the most where there are several.

    Example:

    >>> results = {"lookahead": {0.8: [0.97, 0.96], 0.9: [0.95, 0.93]}, "magnitude": {0.8: [0.96, 0.95], 0.9: 0.9}}
    >>> figure = tf_lap.plot_tradeoff(results, dense=0.98, value="accuracy")

    Args:
        results: what `tf_lap.find_sparsity` returns; or a mapping from names to mappings from sparsities to a value or
            to several, as of several seeds.
        dense: the value of the dense model, or several; that of the search by default.
        value: what the value is, for the axis.

    Returns:
        A figure of matplotlib.

    Raises:
        TypeError, ValueError: results of another form, or none.
        ImportError: matplotlib is not installed; it comes with `pip install "tf_lap[plot]"`.
    """
    curves = _read_search(results) if isinstance(results, SearchReport) else _read_curves(results)
    figure, axes = make_axes(f"{value} against sparsity", 8.6)
    sparsities = sorted({sparsity for points in curves.values() for sparsity in points})
    # A few sparsities lie evenly: of 98% and 99% in true distance the bars would lie upon each other.
    evenly = len(sparsities) <= _FEW and not isinstance(results, SearchReport)
    places = {sparsity: number if evenly else sparsity for number, sparsity in enumerate(sparsities)}
    handles: list[Any] = []
    for number, (name, points) in enumerate(curves.items()):
        colour, marker = STYLES[number % len(STYLES)]
        shift = _SHIFT * (number - (len(curves) - 1) / 2) if evenly else 0.0
        x = [places[sparsity] + shift for sparsity in points]
        means = np.array([np.mean(values) for values in points.values()])
        ends = np.array([[np.min(values), np.max(values)] for values in points.values()])
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "-" if number < len(STYLES) else "--"}
        label = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."
        errors = np.abs(ends.T - means)
        handles.append(axes.errorbar(x, means, yerr=errors if errors.any() else None, capsize=3, label=label, **style))
    if isinstance(results, SearchReport):
        dense = results.goal.dense if dense is None else dense
        handles.append(
            axes.axhline(results.goal.limit, color=DENSE_COLOUR, linestyle=":", label="worst within the drop")
        )
        if results.best_evaluation is not None:
            best = results.best_evaluation
            handles.append(
                axes.scatter(
                    [best.sparsity], [best.value], s=160, facecolors="none", edgecolors="black", zorder=5,
                    label=f"found: {best.sparsity:.2%} zeros",
                )
            )  # fmt: skip
    if dense is not None:
        handles.append(axes.axhline(float(np.mean(dense)), color=DENSE_COLOUR, linestyle="--", label="not pruned"))
        if np.ptp(dense):
            axes.axhspan(float(np.min(dense)), float(np.max(dense)), color=DENSE_COLOUR, alpha=0.12)
    if evenly:
        axes.set_xticks(list(places.values()), [f"{100 * sparsity:.4g}%" for sparsity in sparsities])
    else:
        axes.xaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.4g}%")
    axes.set_xlabel("zeros in the pruned kernels")
    axes.set_ylabel(value)
    figure.legend(handles=handles, frameon=False, loc="outside right center", fontsize=8)
    return figure


def _read_search(report: SearchReport) -> dict[str, dict[float, list[float]]]:
    """The evaluations of each combination, by sparsity."""
    curves: dict[str, dict[float, list[float]]] = {}
    for number, names in enumerate(report.combinations):
        points = [entry for entry in report.evaluations if entry.combination == number]
        if points:
            by_sparsity = curves.setdefault(", ".join(names), {})
            for entry in sorted(points, key=lambda entry: entry.sparsity):
                by_sparsity.setdefault(entry.sparsity, []).append(entry.value)
    return curves


def _read_curves(results: Any) -> dict[str, dict[float, list[float]]]:
    """Curves of the user's, with their points in the order of sparsity.

    Raises:
        TypeError, ValueError: another form, or no points.
    """
    expected = "expected a SearchReport, or names with values by sparsity: {'lookahead': {0.9: [0.95, 0.94]}}"
    if not isinstance(results, Mapping) or not all(isinstance(points, Mapping) for points in results.values()):
        raise TypeError(f"results={results!r}: {expected}")
    curves = {
        str(name): {
            float(sparsity): np.atleast_1d(np.asarray(points[sparsity], float)).tolist() for sparsity in sorted(points)
        }
        for name, points in results.items()
    }
    if not curves or not all(points and all(points.values()) for points in curves.values()):
        raise ValueError(f"results={results!r} has a curve without values: {expected}")
    return curves
