"""A picture of how sparse each layer is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tf_lap.charting import DENSE_COLOUR, STYLES
from tf_lap.plotting.rows import TEXT, make_rows, shorten_paths
from tf_lap.report import PruningReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOUR, _MODEL_COLOUR = STYLES[1][0], STYLES[0][0]
_WHOLE_COLOUR = "#BBBBBB"
_BOTTOM = 0.75


def plot_sparsity(report: PruningReport) -> Figure:
    """Draws the share of zeros in each layer of a report: pruned kernels in colour, what was left whole in grey.

    Example:

    >>> figure = tf_lap.plot_sparsity(tf_lap.prune(model, 0.9))
    >>> figure.savefig("sparsity.png")

    Args:
        report: what `tf_lap.prune` returns, or `tf_lap.Pruner(model).report()` of a model that was pruned before.

    Returns:
        A figure of matplotlib, with a row for each layer.

    Raises:
        TypeError: no report. ImportError: matplotlib is not installed; it comes with `pip install "tf_lap[plot]"`.
    """
    if not isinstance(report, PruningReport):
        raise TypeError(
            f"plot_sparsity takes a PruningReport, got {type(report).__name__}: pass what tf_lap.prune returns, or "
            "tf_lap.Pruner(model).report()"
        )
    layers = report.layers
    title = f"zeros by layer: {report.sparsity:.1%} of the pruned kernels, {report.model_sparsity:.1%} of the model"
    figure, axes = make_rows(title, shorten_paths([layer.path for layer in layers]), 4.5, 1.2, _BOTTOM)
    colours = [_COLOUR if layer.skipped is None else _WHOLE_COLOUR for layer in layers]
    axes.barh(range(len(layers)), [layer.sparsity for layer in layers], height=0.7, color=colours)
    for row, layer in enumerate(layers):
        axes.text(1.015, row, f"{layer.sparsity:.1%} of {_shorten(layer.weights)}", fontsize=TEXT, va="center")
    lines: list[Any] = [
        axes.axvline(report.sparsity, color=_COLOUR, linestyle="--", linewidth=1, label="all pruned kernels"),
        axes.axvline(report.model_sparsity, color=_MODEL_COLOUR, linestyle=":", linewidth=1.5, label="whole model"),
    ]
    if report.skipped:
        lines.append(axes.barh([0], [0], color=_WHOLE_COLOUR, label="not pruned"))
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=TEXT)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", color=DENSE_COLOUR)
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=lines, loc="lower left", bbox_to_anchor=(0, 0.08 / height), ncols=3, frameon=False, fontsize=TEXT
    )
    return figure


def _shorten(count: int) -> str:
    """A count in four characters or so."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
