"""A picture of a model's values against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_lap.charting import DENSE_COLOUR, STYLES, make_axes
from tf_lap.tabular import elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tf_lap.search.sensitivity_report import SensitivityReport

_OTHERS_COLOUR = "#BBBBBB"
_MAX_LABEL = 36  # characters
_WIDE_RANGE = 20  # values so many times the dense model's are drawn on a log scale, as losses may be


def draw(report: SensitivityReport) -> Figure:
    """Draws the most sensitive layers in colours, all others in grey, and all together in black.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = make_axes(f"value after pruning once: {elide(report.choices, 60)}", 8.4)
    count = len(STYLES)
    places = range(len(report.sparsities))  # evenly, since 98% and 99% would lie upon each other
    for layer in report.by_sensitivity[count:]:
        axes.plot(places, layer.values, color=_OTHERS_COLOUR, linewidth=1)
    handles = [
        _draw_curve(axes, places, layer.values, elide(layer.path, _MAX_LABEL), *style)
        for layer, style in zip(report.by_sensitivity, STYLES, strict=False)
    ]
    if len(report.layers) > count:
        handles.append(_label(axes, f"{len(report.layers) - count} other layers", color=_OTHERS_COLOUR, linewidth=1))
    if report.together is not None:
        handles.append(_draw_curve(axes, places, report.together, "all layers together", "black", "X"))
    handles.append(axes.axhline(report.dense, color=DENSE_COLOUR, linestyle="--", label="not pruned"))
    values = [report.dense, *(value for layer in report.layers for value in layer.values), *(report.together or ())]
    if min(values) > 0 and max(values) > _WIDE_RANGE * report.dense:
        axes.set_yscale("log")
    axes.set_xticks(places, [f"{100 * fraction:.4g}%" for fraction in report.sparsities])
    axes.set_xlabel("zeros in the kernel")
    side = "higher" if report.higher_is_better else "lower"
    axes.set_ylabel(f"value ({side} is better)")
    figure.legend(handles=handles, frameon=False, loc="outside right center", fontsize=8)
    return figure


def _draw_curve(axes: Axes, places: Sequence[int], values: Any, label: str, colour: str, marker: str) -> Any:
    """Draws one curve, and returns the legend's entry."""
    (line,) = axes.plot(places, values, color=colour, marker=marker, markersize=6, linewidth=2, label=label)
    return line


def _label(axes: Axes, label: str, **style: Any) -> Any:
    """A legend's entry for curves that are drawn already."""
    (line,) = axes.plot([], [], label=label, **style)
    return line
