"""What the package's pictures have in common: colours and shapes of curves, and plain axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; the shapes differ as well.
STYLES = (("#D55E00", "s"), ("#0072B2", "o"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
DENSE_COLOUR = "#555555"


def make_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """An empty figure.

    Args:
        width: in inches.
        height: in inches.
        layout: "constrained" makes room for texts by itself.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # Imported here, so that the package does without matplotlib. pyplot would look for a display.
    try:
        from tf_lap.notebook_figure import NotebookFigure
    except ImportError as error:
        raise ImportError('matplotlib is needed to draw: pip install "tf_lap[plot]"') from error
    return NotebookFigure(figsize=(width, height), layout=layout)


def make_axes(title: str, width: float = 7.2, height: float = 4.5) -> tuple[Figure, Axes]:
    """A figure and its axes: with a title, light horizontal lines, and no frame at the top and on the right.

    Args:
        title: what is shown.
        width: in inches.
        height: in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = make_figure(width, height, "constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
