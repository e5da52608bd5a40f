"""`python -m benchmarks.choosing_chart`: draws docs/choosing.png from what the benchmark `choosing` wrote."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.choosing import ONCE, REPAIRED, REPAIRED_OVER_DATA

RESULTS = Path(__file__).parent / "results" / "choosing.json"
CHART = Path(__file__).parent.parent / "docs" / "choosing.png"
LINES = (
    ("magnitude uniform, once", ONCE, "magnitude", "uniform"),
    ("lookahead lamp, once", ONCE, "lookahead", "lamp"),
    ("lookahead lamp, repaired without data", REPAIRED, "lookahead", "lamp"),
    ("magnitude lamp, repaired with 256 samples", REPAIRED_OVER_DATA, "magnitude", "lamp"),
    ("obs_lookahead lamp, repaired with 256 samples", REPAIRED_OVER_DATA, "obs_lookahead", "lamp"),
)


def draw(results: Path = RESULTS, chart: Path = CHART) -> None:
    """Draws mean errors against sparsity, one panel for each network that was measured."""
    mpl.use("Agg")
    runs = json.loads(results.read_text(encoding="utf-8"))["runs"]
    tasks = list(dict.fromkeys(run["task"] for run in runs if "score" in run))
    figure, panels = plt.subplots(1, len(tasks), figsize=(3.2 * len(tasks), 4.2), layout="constrained", squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        for label, *place in LINES:
            points = _find_points([run for run in runs if run["task"] == task], place)
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
        dense = statistics.mean(run["error"] for run in runs if run["task"] == task and run["regime"] == "dense")
        axes.axhline(dense, color="black", linestyle=":", label="not pruned")
        axes.set_title(task)
        axes.set_xlabel("zeros, percent")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("test errors, percent")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.savefig(chart, dpi=120)
    plt.close(figure)


def _find_points(runs: Sequence[Mapping[str, Any]], place: Sequence[str]) -> list[tuple[float, float]]:
    """The sparsities in percent, and the mean errors at them."""
    errors: dict[float, list[float]] = {}
    for run in runs:
        if [run["regime"], run.get("score"), run.get("allocation")] == list(place):
            errors.setdefault(100 * run["sparsity"], []).append(run["error"])
    return [(sparsity, statistics.mean(errors[sparsity])) for sparsity in sorted(errors)]


if __name__ == "__main__":
    draw()
