"""Charts with a row for each layer: as high as the layers are many, with room for their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_lap.charting import make_figure
from tf_lap.tabular import common_prefix, elide

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.21
"""The height of a row, in inches."""
TEXT = 8
"""The size of names, in points."""
_CHARACTER = 0.068  # inches, of a name
_MAX_NAME = 46
_TITLE, _LINE = 0.45, 0.17


def shorten_paths(paths: Sequence[str]) -> list[str]:
    """The paths without the prefix that most of them have, cut to a length in which they stay apart."""
    prefix = common_prefix(paths)
    bare = [path.removeprefix(f"{prefix}/") if prefix else path for path in paths]
    return [elide(path, _MAX_NAME) for path in bare]


def make_rows(
    title: str, names: Sequence[str], width: float, right: float = 0.3, bottom: float = 0.7
) -> tuple[Figure, Axes]:
    """A figure with a row for each name, the first at the top; row i is at y = i.

    Args:
        title: what is shown.
        names: of the rows, beside them on the left.
        width: of the part beside the names, in inches.
        right: room on the right of it, in inches.
        bottom: room below it, in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    label = max(map(len, names)) * _CHARACTER + 0.2
    lines = title.count("\n") + 1
    top = _TITLE + _LINE * (lines - 1)
    figure_width, height = label + width + right, top + bottom + ROW * len(names)
    figure = make_figure(figure_width, height)
    axes = figure.add_axes((label / figure_width, bottom / height, width / figure_width, ROW * len(names) / height))
    figure.text(0.1 / figure_width, 1 - 0.1 / height, title, fontsize=11, va="top")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=TEXT)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes
