"""How the `tf-lap` command shows its work: progress, a table and a chart."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_lap import tabular
from tf_lap.charting import DENSE_COLOUR, STYLES, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""The errors of the seeds, by method and sparsity. Sparsities and errors are fractions."""

_SHIFT = 0.02  # between curves, so that no error bars hide others


class Progress:
    """Says on standard output which training runs: on a terminal in a line that is rewritten, else in a line for each.

    Args:
        trainings: how many there will be.
        steps: how many steps each has.
    """

    def __init__(self, trainings: int, steps: int) -> None:
        self._trainings, self._steps, self._number, self._label = trainings, steps, 0, ""
        self._started = time.monotonic()

    def begin(self, label: str) -> None:
        """Shows that the next training begins."""
        self._number, self._label = self._number + 1, label
        self._show(0.0)

    def step(self, done: int) -> None:
        """Shows how many steps of the training are done."""
        if sys.stdout.isatty():
            self._show(min(1.0, done / self._steps))

    def close(self) -> None:
        """Clears the line when all trainings are over."""
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)

    def _show(self, fraction: float) -> None:
        done = self._number - 1 + fraction
        text = f"training {self._number} of {self._trainings}: {self._label}"
        if done:
            text += f", about {(time.monotonic() - self._started) / done * (self._trainings - done):.0f} s left"
        if sys.stdout.isatty():
            # A line broken by the terminal's edge could not be rewritten.
            print("\r\033[K" + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        else:
            print(text, flush=True)


def format_table(dense: Sequence[float], curves: Curves, digits: int = 1) -> str:
    """The mean errors over seeds, with the lowest and the highest, at each sparsity.

    Args:
        dense: the errors of the seeds before pruning.
        curves: those after pruning and retraining.
        digits: how many decimals a percentage has.
    """
    rows = [("sparsity", "weights left", *(f"{method} error" for method in curves))]
    for sparsity in sorted({sparsity for points in curves.values() for sparsity in points}):
        errors = [_format_spread(points[sparsity], digits) if sparsity in points else "-" for points in curves.values()]
        rows.append((f"{sparsity:.2%}", f"{1 - sparsity:.2%}", *errors))
    above = f"Test error, mean over seeds (lowest to highest); seeds: {len(dense)}"
    return "\n".join(
        [
            above,
            f"dense, before pruning: {_format_spread(dense, digits)}",
            "",
            *tabular.table(rows, right=range(len(rows[0]))),
        ]
    )


def _format_spread(errors: Sequence[float], digits: int) -> str:
    mean, least, most = (f"{error:.{digits}%}" for error in (np.mean(errors), min(errors), max(errors)))
    return f"{mean} ({least} to {most})"


def draw_error_chart(path: Path, title: str, dense: Sequence[float], curves: Curves) -> None:
    """Draws error against the weights left, sparser to the right, and writes it as a PNG file; needs matplotlib.

    Args:
        path: the file to write.
        title: what was trained.
        dense: as in `format_table`.
        curves: as in `format_table`.

    Raises:
        OSError: the file cannot be written.
    """
    # Imported here, so that progress and tables do without matplotlib.
    from matplotlib.ticker import NullLocator, PercentFormatter

    figure, axes = make_axes(title)
    axes.set_xscale("log")
    handles: list[Any] = [
        _draw_curve(axes, method, points, STYLES[i % len(STYLES)], 1 + _SHIFT * ((len(curves) - 1) / 2 - i))
        for i, (method, points) in enumerate(curves.items())
    ]
    ticks = sorted({1 - sparsity for points in curves.values() for sparsity in points})
    axes.set_xticks(ticks, [f"{fraction:.2%}" for fraction in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    handles.append(
        axes.axhline(float(np.mean(dense)), color=DENSE_COLOUR, linestyle="--", label="dense, before pruning")
    )
    axes.margins(x=0.1)
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("weights left (log scale, sparser to the right)")
    axes.set_ylabel("test error after retraining")
    axes.legend(handles=handles, frameon=False, loc="upper left")
    figure.savefig(path, dpi=150, format="png")


def _draw_curve(
    axes: Axes, method: str, points: Mapping[float, Sequence[float]], style: tuple[str, str], shift: float
) -> Any:
    """Draws the mean errors of a method, with bars from the lowest to the highest, and returns the legend's entry.

    Args:
        axes: where to draw.
        method: the method's name.
        points: the errors of the seeds, by sparsity.
        style: colour and marker.
        shift: by how much the curve is moved aside, a factor of the weights left.
    """
    colour, marker = style
    sparsities = sorted(points)
    errors = [points[sparsity] for sparsity in sparsities]
    means = np.array([np.mean(at_sparsity) for at_sparsity in errors])
    bars = (means - [min(at_sparsity) for at_sparsity in errors], [max(at_sparsity) for at_sparsity in errors] - means)
    return axes.errorbar(
        [(1 - sparsity) * shift for sparsity in sparsities],
        means,
        bars,
        elinewidth=1.3,
        capsize=5,
        label=method,
        color=colour,
        marker=marker,
        markersize=7,
        linewidth=2,
    )
