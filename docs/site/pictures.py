"""Draws the pictures of the pages that no benchmark draws: `python docs/site/pictures.py [--site]`.

They go to docs/assets: `lookahead.svg`, `graph.png`, `tradeoff.png` and `report.svg`. With `--site` also `site.png`,
the first page of the site in `build/site`, for which Chromium must be there.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import keras
import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.console import Console
from rich.text import Text

import tf_lap

DOCS = Path(__file__).parents[1]
ASSETS = DOCS / "assets"
FEEDING, READING, WEIGHT, OTHER = "#1f77b4", "#d67b10", "#c2185b", "#c9ced6"


def draw_lookahead(path: Path) -> None:
    """Draws one weight between two channels, and the weights around it that its score counts."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    columns = [[(x, y) for y in range(4)] for x in (0, 2, 4, 6)]
    into, out_of = columns[1][2], columns[2][1]
    for left, right in itertools.pairwise(columns):
        for start in left:
            for end in right:
                color, width = OTHER, 0.8
                if (start, end) == (into, out_of):
                    color, width = WEIGHT, 3.5
                elif end == into or start == out_of:
                    color, width = FEEDING if end == into else READING, 2
                axes.plot(*zip(start, end, strict=True), color=color, linewidth=width, zorder=1 + (width > 1))
    for column in columns:
        axes.scatter(*zip(*column, strict=True), s=260, color="white", edgecolors="#4a5160", zorder=4)
    for (x, y), name in ((into, "j"), (out_of, "k")):
        axes.text(x, y, name, ha="center", va="center", zorder=5, fontstyle="italic")
    for x, text, color in (
        (1, "previous kernel:\nwhat feeds channel j", FEEDING),
        (3, "the kernel:\nthe weight w", WEIGHT),
        (5, "next kernel:\nwhat reads channel k", READING),
    ):
        axes.text(x, 3.55, text, ha="center", va="bottom", color=color)
    axes.set_ylim(-0.4, 4.5)
    axes.axis("off")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_graph(path: Path) -> None:
    """Draws the network of the page on how it works, by `tf_lap.plot_graph`."""
    text = (DOCS / "how_it_works.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    keras.utils.set_random_seed(0)
    exec(compile(code.partition("print(")[0], "how_it_works.md", "exec"), names)
    figure = tf_lap.plot_graph(names["model"])
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_tradeoff(path: Path) -> None:
    """Draws what the benchmark `accuracy` measured, by `tf_lap.plot_tradeoff`."""
    results = DOCS.parent / "benchmarks" / "results" / "accuracy.json"
    runs = json.loads(results.read_text(encoding="utf-8"))["runs"]
    tools = {"lookahead": "tf_lap lookahead lamp", "magnitude": "tf_lap magnitude lamp", "tfmot": "tfmot"}
    values: dict[str, dict[float, list[float]]] = {label: {} for label in tools}
    for label, tool in tools.items():
        for fit in runs:
            if fit["tool"] == tool:
                values[label].setdefault(fit["sparsity"], []).append(fit["right"])
    figure = tf_lap.plot_tradeoff(values, value="accuracy")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_report(path: Path) -> None:
    """Draws a report as a terminal of 100 columns shows it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), name="image")
    x = stream = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(inputs)
    x = keras.layers.Conv2D(64, 1, activation="relu", name="expand")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(32, 1, name="project")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([stream, x]))
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(x), name="small")
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text("$ python prune.py", style="bold"))
    console.print(Text(tf_lap.prune(model, 0.9).render(width=100)), soft_wrap=True)
    svg = console.export_svg(title="print(report)", unique_id="report")
    # A picture in a page loads nothing: the fonts are those of the reader.
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL).replace("Fira Code", "monospace")
    path.write_text(svg, encoding="utf-8")


def take_screenshot(path: Path) -> None:
    """Takes a picture of the first page of build/site, 1280 pixels wide.

    Raises:
        SystemExit: Chromium or the site is missing.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    page = DOCS.parent / "build" / "site" / "index.html"
    if not browser or not page.exists():
        raise SystemExit("needs chromium on the path, and the site: python -m mkdocs build -f docs/site/mkdocs.yml")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,900"]
    options.append("--virtual-time-budget=5000")  # milliseconds for the page's own scripts
    subprocess.run([browser, *options, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True)


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", action="store_true", help="also take the picture of the first page of build/site")
    arguments = parser.parse_args()
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "tf_lap"  # so that the same drawing is the same file
    ASSETS.mkdir(exist_ok=True)
    draw_lookahead(ASSETS / "lookahead.svg")
    draw_graph(ASSETS / "graph.png")
    draw_tradeoff(ASSETS / "tradeoff.png")
    draw_report(ASSETS / "report.svg")
    if arguments.site:
        take_screenshot(ASSETS / "site.png")


if __name__ == "__main__":
    main()
