"""`python -m benchmarks.chart`: draws the pictures in docs from what the benchmarks wrote.

docs/update_time.png from `growth`, and docs/accuracy.png from `accuracy`.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from benchmarks.tables import ACCURACY_TOOLS

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = Path(__file__).parent / "results" / "growth.json"
CHART = DOCS / "update_time.png"
ACCURACY_RESULTS = RESULTS.with_name("accuracy.json")
ACCURACY_CHART = DOCS / "accuracy.png"


def draw(results: Path = RESULTS, chart: Path = CHART) -> None:
    """Draws update time against weights, both logarithmic, a line for each method."""
    mpl.use("Agg")
    seconds_by_name = json.loads(results.read_text(encoding="utf-8"))["seconds"]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in seconds_by_name.items():
        weights, seconds = zip(*points, strict=True)
        axes.loglog(weights, seconds, marker="o", label=name)
    axes.set_xlabel("weights")
    axes.set_ylabel("seconds for one mask update")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(chart, dpi=120)
    plt.close(figure)


def draw_accuracy(results: Path = ACCURACY_RESULTS, chart: Path = ACCURACY_CHART) -> None:
    """Draws accuracy against sparsity, a line of means for each tool, with bars from the least to the most."""
    mpl.use("Agg")
    runs = json.loads(results.read_text(encoding="utf-8"))["runs"]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    sparsities = sorted({fit["sparsity"] for fit in runs if fit["sparsity"]})
    for place, (tool, label) in enumerate(ACCURACY_TOOLS.items()):
        right = [[fit["right"] for fit in runs if (fit["tool"], fit["sparsity"]) == (tool, s)] for s in sparsities]
        if not all(right):
            continue  # PQuantML, where it is not installed
        means = [statistics.mean(fractions) for fractions in right]
        below = [mean - min(fractions) for mean, fractions in zip(means, right, strict=True)]
        above = [max(fractions) - mean for mean, fractions in zip(means, right, strict=True)]
        # Side by side, so that no bars hide others.
        places = [i + 0.03 * (place - (len(ACCURACY_TOOLS) - 1) / 2) for i in range(len(sparsities))]
        axes.errorbar(places, means, [below, above], marker="o", capsize=3, label=label.replace("`", ""))
    unpruned = statistics.mean(fit["right"] for fit in runs if not fit["sparsity"])
    axes.axhline(unpruned, color="grey", linestyle="--", label="not pruned")
    axes.set_xticks(range(len(sparsities)), [f"{sparsity:.0%}" for sparsity in sparsities])
    axes.set_xlabel("zeros in all kernels")
    axes.set_ylabel("test images that are right")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(chart, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    draw()
    draw_accuracy()
