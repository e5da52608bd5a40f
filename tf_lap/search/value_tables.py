"""Tables of measured values, which fit a width."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from tf_lap.tabular import GAP, elide, share, table

Row = Mapping[str, str]
"""The cells of a row, by column; columns that are left out are empty."""


_MIN_NAME_WIDTH = 4


def format_value(value: float, dense: float) -> str:
    """A value with as many decimals as four digits of the dense model's value take.

    Example:

    >>> format_value(0.5, 0.9712), format_value(7.25, 2.301), format_value(81.25, 97.1)
    ('0.5000', '7.250', '81.25')
    """
    if not math.isfinite(value) or abs(value) >= 1e6:
        return f"{value:.3g}"
    digits = 4 - math.ceil(math.log10(abs(dense))) if dense else 4
    return f"{value:.{min(max(digits, 0), 6)}f}"


def fit_table(
    rows: Sequence[Row],
    columns: Sequence[str],
    names: Collection[str],
    width: int,
    least: Mapping[str, int],
    optional: Sequence[str],
) -> tuple[list[str], list[str]]:
    """A table that fits a width: columns of names are shortened, and then columns are left out.

    Args:
        rows: the rows, without the heading.
        columns: the columns, in their order.
        names: the columns that hold names; the others are aligned to the right.
        width: how many characters a line has at most.
        least: to what width columns of names are shortened before others are left out.
        optional: the columns that are left out where there is no room, in that order.

    Returns:
        The lines, with a rule below the heading, and the columns that were left out.
    """
    heading = {column: column for column in columns}
    natural = {column: max(len(row.get(column, "")) for row in (heading, *rows)) for column in columns}
    floors = {column: min(natural[column], least.get(column, natural[column])) for column in columns}
    kept, omitted = list(columns), []
    for column in optional:
        if _total(floors[name] for name in kept) <= width:
            break
        kept.remove(column)
        omitted.append(column)
    if _total(floors[name] for name in kept) > width:
        floors |= {column: min(natural[column], _MIN_NAME_WIDTH) for column in least}
    widths = share([natural[column] for column in kept], [floors[column] for column in kept], width)
    cells = [[elide(row.get(c, ""), w) for c, w in zip(kept, widths, strict=True)] for row in (heading, *rows)]
    return table(cells, [i for i, column in enumerate(kept) if column not in names]), omitted


def _total(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) - GAP


def html_table(rows: Sequence[Row], columns: Sequence[str], names: Collection[str]) -> str:
    """A table as a piece of HTML; columns other than `names` are aligned to the right."""

    def cell(tag: str, column: str, text: str) -> str:
        side = "left" if column in names else "right"
        return f'<{tag} style="text-align: {side}">{html.escape(text)}</{tag}>'

    lines = ["<table>", "<tr>" + "".join(cell("th", column, column) for column in columns) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(cell("td", column, row.get(column, "")) for column in columns) + "</tr>")
    return "\n".join([*lines, "</table>"])
