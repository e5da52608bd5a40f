"""`python -m benchmarks.chart`: draws docs/update_time.png from what the benchmark `growth` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results" / "growth.json"
CHART = Path(__file__).parent.parent / "docs" / "update_time.png"


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


if __name__ == "__main__":
    draw()
