"""A picture of a model as the pruner sees it: kernels, what lies between them, and where the view ends."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_lap.charting import DENSE_COLOUR, STYLES
from tf_lap.graph.energy import ChannelEnergies, channel_energies
from tf_lap.graph.neighbors import Neighbors, find_neighbors
from tf_lap.graph.resolver import resolve
from tf_lap.plotting.rows import ROW, TEXT, make_rows, shorten_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR, _BACK_COLOUR, _BOUNDARY_COLOUR = STYLES[1][0], STYLES[4][0], STYLES[0][0]
_THIN, _THICK = 0.02, 0.34  # widths of ribbons, in rows
_PORT = 0.2  # how far from the middle of its row a ribbon begins or ends, in rows
_MARKS = 2.6  # room for the marks of boundaries, in rows
_POINTS = 24
_LINE = 0.16  # inches, of the text below
_COLUMNS = 100  # characters of that text
# A boundary begins with the class and the name of the layer at which it lies: "Reshape 'flat': reshapes ...".
_BOUNDARY = re.compile(r"[^']*'[^']*':\s*(.*)", re.DOTALL)


class Edge(NamedTuple):
    """Two neighbouring kernels.

    Attributes:
        source: the row of the one that puts channels out.
        target: the row of the one that reads them.
        outgoing: the energy that is read of what the first puts out.
        incoming: the energy that is put into what the second reads.
    """

    source: int
    target: int
    outgoing: float
    incoming: float


def plot_graph(model: Any) -> Figure:
    """Draws a model as the pruner sees it: a row for each kernel, a ribbon between neighbours, marks at boundaries.

    A ribbon is as wide as energies are large, on a log scale. Where it leaves a kernel, that is the energy which is
    read of the kernel's outputs; where it comes to one, the energy that is put into its inputs.

    Example:

    >>> figure = tf_lap.plot_graph(model)
    >>> figure.savefig("graph.png")

    Args:
        model: a built Keras model; pruned, or not.

    Returns:
        A figure of matplotlib.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, not built, or has no kernel.
        ImportError: matplotlib is not installed; it comes with `pip install "tf_lap[plot]"`.
    """
    recipe = resolve(model)
    neighbors = find_neighbors(recipe)
    if not neighbors:
        raise ValueError(f"model {model.name!r} has no kernel that can be pruned: there is nothing to draw")
    shapes = {kernel.path: "x".join(map(str, kernel.layout.shape)) for kernel in recipe.kernels}
    names = [f"{name}  {shapes[path]}" for name, path in zip(shorten_paths(list(neighbors)), neighbors, strict=True)]
    edges = list(_find_edges(neighbors, channel_energies(model)))
    reasons = _number_reasons(neighbors)
    notes = _describe(edges, reasons)
    reach = _reach(max((abs(edge.target - edge.source) for edge in edges), default=1))
    width = _MARKS + reach + 0.5
    figure, axes = make_rows(
        f"{model.name}: {len(neighbors)} kernels, {len(edges)} pairs of neighbours",
        names,
        width * ROW,
        0.2,
        _LINE * len(notes) + 0.25,
    )
    _fit_width(figure)
    axes.set_xlim(0, width)  # a row is as wide as it is high: ribbons keep their width along their way
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    _draw_marks(axes, neighbors, reasons)
    _draw_ribbons(axes, edges)
    height = figure.get_size_inches()[1]
    for number, (line, colour) in enumerate(reversed(notes)):
        figure.text(
            0.1 / figure.get_size_inches()[0], (0.1 + number * _LINE) / height, line, fontsize=TEXT, color=colour
        )
    return figure


def _find_edges(neighbors: Mapping[str, Neighbors], energies: Mapping[str, ChannelEnergies]) -> Iterator[Edge]:
    rows = {path: row for row, path in enumerate(neighbors)}
    for path, around in neighbors.items():
        incoming = float(np.sum(energies[path].incoming))
        for source in around.previous:
            yield Edge(rows[source], rows[path], float(np.sum(energies[source].outgoing)), incoming)


def _number_reasons(neighbors: Mapping[str, Neighbors]) -> dict[str, int]:
    """The reasons of boundaries that are no ends of the network, numbered from 1."""
    reasons: dict[str, int] = {}
    for around in neighbors.values():
        for boundary in around.boundaries:
            reason = _read_reason(boundary)
            if reason:
                reasons.setdefault(reason, len(reasons) + 1)
    return reasons


def _read_reason(boundary: str) -> str:
    """Why a boundary is one, without the layer's name; empty for an input or output of the network."""
    match = _BOUNDARY.fullmatch(boundary)
    if match:
        return match.group(1).strip()
    return "" if _end(boundary) else boundary


def _end(boundary: str) -> str:
    """Which end of the network a boundary is: i for an input, o for an output; empty for another one."""
    match = re.match(r"network (i|o)(?:n|ut)put", boundary)
    return match.group(1) if match else ""


def _describe(edges: Sequence[Edge], reasons: Mapping[str, int]) -> list[tuple[str, str]]:
    """The lines below the picture, and their colours."""
    energies = [energy for edge in edges for energy in (edge.outgoing, edge.incoming) if energy > 0]
    text = (
        "A ribbon leaves a kernel as wide as what is read of its outputs, and comes to one as wide as what is put in."
    )
    lines = [(line, "black") for line in textwrap.wrap(text, _COLUMNS)]
    if energies:
        lines.append((f"Energies from {min(energies):.2g} to {max(energies):.2g}, on a log scale.", _COLOUR))
    if any(edge.target <= edge.source for edge in edges):
        lines.append(("Back in time, or to a kernel beside it in the order of the graph.", _BACK_COLOUR))
    lines.append(("i, o: an input or an output of the network.", DENSE_COLOUR))
    for reason, number in reasons.items():
        wrapped = textwrap.wrap(f"{number}: boundary: {reason}", _COLUMNS, subsequent_indent="     ")
        lines += [(line, _BOUNDARY_COLOUR) for line in wrapped]
    return lines


def _fit_width(figure: Figure) -> None:
    """Makes the figure wide enough for the text below, without changing what is in it."""
    width, height = figure.get_size_inches()
    wanted_width = max(width, _COLUMNS * 0.062 + 0.2)
    (axes,) = figure.axes
    box = axes.get_position()
    factor = width / wanted_width
    for text in figure.texts:
        text.set_x(text.get_position()[0] * factor)
    axes.set_position((box.x0 * factor, box.y0, box.width * factor, box.height))
    figure.set_size_inches(wanted_width, height)


def _draw_marks(axes: Axes, neighbors: Mapping[str, Neighbors], reasons: Mapping[str, int]) -> None:
    """Marks each row at which the view ends: i and o for the network's ends, numbers for the reasons of others."""
    for row, around in enumerate(neighbors.values()):
        numbers, ends = set(), ""
        for boundary in around.boundaries:
            reason = _read_reason(boundary)
            if reason:
                numbers.add(reasons[reason])
            else:
                ends += _end(boundary)
        ends = "".join(sorted(set(ends)))
        if ends:
            axes.text(0.15, row, ends, fontsize=TEXT, va="center", color=DENSE_COLOUR)
        if numbers:
            shown = ",".join(map(str, sorted(numbers)[:2])) + ("+" if len(numbers) > 2 else "")
            axes.text(_MARKS - 0.25, row, shown, fontsize=TEXT - 1, va="center", ha="right", color=_BOUNDARY_COLOUR)
        axes.plot(
            [_MARKS],
            [row],
            marker="s" if numbers else "o",
            markersize=3,
            color=_BOUNDARY_COLOUR if numbers else DENSE_COLOUR,
        )


def _reach(rows: int) -> float:
    """How far to the right a ribbon over so many rows goes, in rows."""
    return 1.2 + 2.2 * np.log2(1 + rows)


def _draw_ribbons(axes: Axes, edges: Sequence[Edge]) -> None:
    from matplotlib.collections import PolyCollection

    energies = np.array([[edge.outgoing, edge.incoming] for edge in edges]).reshape(-1, 2)
    widths = _scale(energies)
    for goes_back, colour in ((False, _COLOUR), (True, _BACK_COLOUR)):
        shapes = [
            _make_ribbon(edge, *ends)
            for edge, ends in zip(edges, widths, strict=True)
            if (edge.target <= edge.source) == goes_back
        ]
        alpha = 0.75 if len(edges) <= 60 else 0.45
        axes.add_collection(PolyCollection(shapes, facecolors=colour, edgecolors="none", alpha=alpha))


def _scale(energies: np.ndarray) -> np.ndarray:
    """The widths of energies, on a log scale; nothing is read or put in where it is thinnest."""
    positive = energies[energies > 0]
    if not positive.size:
        return np.full(energies.shape, _THIN)
    low, high = np.log(positive.min()), np.log(positive.max())
    logs = np.log(np.maximum(energies, positive.min()))
    share = (logs - low) / (high - low) if high > low else np.ones(energies.shape)
    return np.where(energies > 0, 0.08 + (_THICK - 0.08) * share, _THIN)


def _make_ribbon(edge: Edge, begin: float, end: float) -> np.ndarray:
    """The outline of a ribbon, `(points, 2)`: out of its kernel to the right, and back to the other one."""
    start, stop = edge.source + _PORT, edge.target - _PORT
    reach = 4 / 3 * _reach(abs(edge.target - edge.source))  # of the control points
    t = np.linspace(0, 1, _POINTS)[:, None]
    points = np.array([[0.1, start], [reach, start], [reach, stop], [0.1, stop]]) + np.array([_MARKS, 0])
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    curve = weights @ points
    along = np.gradient(curve, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    half = (begin + (end - begin) * t) / 2
    return np.vstack([curve + normal * half, (curve - normal * half)[::-1]])
