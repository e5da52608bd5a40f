"""How the `tf-lap` command shows its work: progress, a table and a chart."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_lap import tabular

Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""For each method and sparsity the errors of the single seeds; sparsities and errors are fractions."""

# Okabe and Ito's colours, which colour-blind readers can tell apart; the shapes differ as well.
_STYLES = (("#D55E00", "s"), ("#0072B2", "o"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
_APART = 0.02  # so that no curve's bars hide another's
_DENSE = "#555555"


class Progress:
    """Says on standard output which training runs: on a terminal in one line rewritten, else in a line for each.

    Args:
        trainings: how many there will be.
        steps: how many steps each has.
    """

    def __init__(self, trainings: int, steps: int) -> None:
        self._trainings, self._steps, self._number, self._what = trainings, steps, 0, ""
        self._started = time.monotonic()

    def begin(self, what: str) -> None:
        """The next training begins."""
        self._number, self._what = self._number + 1, what
        self._show(0.0)

    def step(self, done: int) -> None:
        """So many steps of the training are done."""
        if sys.stdout.isatty():
            self._show(min(1.0, done / self._steps))

    def close(self) -> None:
        """All trainings are over."""
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)

    def _show(self, part: float) -> None:
        done = self._number - 1 + part
        text = f"training {self._number} of {self._trainings}: {self._what}"
        if done:
            text += f", about {(time.monotonic() - self._started) / done * (self._trainings - done):.0f} s left"
        if sys.stdout.isatty():
            # A line broken by the terminal's edge could not be rewritten.
            print("\r\033[K" + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        else:
            print(text, flush=True)


def table(dense: Sequence[float], curves: Curves, digits: int = 1) -> str:
    """The mean errors over seeds, with the lowest and the highest, at each sparsity.

    Args:
        dense: the errors of the single seeds before pruning.
        curves: those after pruning and retraining.
        digits: of a percentage, behind the point.
    """
    rows = [("sparsity", "weights left", *(f"{method} error" for method in curves))]
    for sparsity in sorted({sparsity for points in curves.values() for sparsity in points}):
        errors = [_spread(points[sparsity], digits) if sparsity in points else "-" for points in curves.values()]
        rows.append((f"{sparsity:.2%}", f"{1 - sparsity:.2%}", *errors))
    above = f"Test error, mean over seeds (lowest to highest); seeds: {len(dense)}"
    return "\n".join(
        [above, f"dense, before pruning: {_spread(dense, digits)}", "", *tabular.table(rows, right=range(len(rows[0])))]
    )


def _spread(errors: Sequence[float], digits: int) -> str:
    mean, least, most = (f"{error:.{digits}%}" for error in (np.mean(errors), min(errors), max(errors)))
    return f"{mean} ({least} to {most})"


def error_chart(path: Path, title: str, dense: Sequence[float], curves: Curves) -> None:
    """Draws error against the weights left, sparser to the right, and writes it as a PNG file; needs matplotlib.

    Args:
        path: the file to write.
        title: what was trained.
        dense: as in `table`.
        curves: as in `table`.

    Raises:
        OSError: the file cannot be written.
    """
    # Here, so that progress and tables do without matplotlib; and no pyplot, which would look for a display.
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, PercentFormatter

    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    shown: list[Any] = []
    middle = (len(curves) - 1) / 2
    for i, (method, given) in enumerate(curves.items()):
        (colour, marker), aside = _STYLES[i % len(_STYLES)], 1 + _APART * (middle - i)
        points = dict(sorted(given.items()))
        left, errors = [1 - sparsity for sparsity in points], list(points.values())
        means = np.array([np.mean(each) for each in errors])
        spread = (means - [min(each) for each in errors], [max(each) for each in errors] - means)
        beside = [fraction * aside for fraction in left]
        style = {"color": colour, "marker": marker, "markersize": 7, "linewidth": 2}
        shown.append(axes.errorbar(beside, means, spread, elinewidth=1.3, capsize=5, label=method, **style))
    everything = sorted({1 - sparsity for points in curves.values() for sparsity in points})
    axes.set_xticks(everything, [f"{fraction:.2%}" for fraction in everything])
    axes.xaxis.set_minor_locator(NullLocator())
    shown.append(axes.axhline(np.mean(dense), color=_DENSE, linestyle="--", label="dense, before pruning"))
    axes.margins(x=0.1)
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("weights left (log scale, sparser to the right)")
    axes.set_ylabel("test error after retraining")
    axes.set_title(title, fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=shown, frameon=False, loc="upper left")
    figure.savefig(path, dpi=150, format="png")
