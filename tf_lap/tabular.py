"""Tables of text that fit a width, and the same in HTML."""

from __future__ import annotations

import collections
import html
import shutil
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence

GAP = 2
"""How many spaces lie between two columns."""

MIN_WIDTH = 40
"""How many columns a line has at least."""

Row = Mapping[str, str]
"""The cells of a row, by column; columns that are left out are empty."""

_MIN_NAME_WIDTH = 4


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines of a table, with a rule below its heading.

    Args:
        rows: the heading and the other rows, with a cell for each column.
        right: the numbers of the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        (" " * GAP)
        .join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def elide(text: str, width: int, tail: int | None = None) -> str:
    """A text of at most `width` characters, 4 or more. A longer one loses its middle.

    Args:
        text: the text.
        width: how many characters stay, three dots among them.
        tail: how many of them are those of its end; by default half.

    >>> elide("block_12_expand", 12)
    'block...pand'
    """
    if len(text) <= width:
        return text
    tail = (width - 3) // 2 if tail is None else tail
    return f"{text[: width - 3 - tail]}...{text[len(text) - tail :]}"


def elide_apart(texts: Sequence[str], width: int) -> list[str]:
    """Texts of at most `width` characters, all cut at one place: where most stay apart, and then nearest the middle.

    Texts that are all short enough stay as they are, whatever the width; others need 4 or more.

    >>> elide_apart(["layer_0/attention/query", "layer_1/attention/query"], 14)
    ['layer_0...uery', 'layer_1...uery']
    """
    if all(len(text) <= width for text in texts):
        return list(texts)
    middle = (width - 3) // 2
    tails = sorted(range(width - 3), key=lambda tail: abs(tail - middle))
    cuts = ([elide(text, width, tail) for text in texts] for tail in tails)
    apart = len(set(texts))
    best: list[str] = []
    for cut in cuts:
        if len(set(cut)) > len(set(best)):
            best = cut
        if len(set(best)) == apart:
            break
    return best


def share(widths: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """The widths of columns that fit into `width` characters together, gaps included.

    The widest columns are narrowed first, none below its minimum.

    Args:
        widths: the natural width of each column.
        least: the minimum width of each column.
        width: the width of all together; at least the sum of `least` and the gaps.
    """
    shared = list(widths)
    excess = sum(shared) + GAP * (len(shared) - 1) - width
    for _ in range(max(excess, 0)):
        widest = max((i for i in range(len(shared)) if shared[i] > least[i]), key=shared.__getitem__)
        shared[widest] -= 1
    return shared


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
    cut = [elide_apart([row.get(c, "") for row in (heading, *rows)], w) for c, w in zip(kept, widths, strict=True)]
    cells = [list(row) for row in zip(*cut, strict=True)]
    return table(cells, [i for i, column in enumerate(kept) if column not in names]), omitted


def _total(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) - GAP


def place_titles(body: Sequence[str], sections: Iterable[tuple[str, int]]) -> list[str]:
    """The lines of a table's rows with titles between them.

    Args:
        body: the lines of all rows.
        sections: a title, empty for none, and the number of the rows below it.
    """
    lines, start = list[str](), 0
    for title, count in sections:
        lines += [title] if title else []
        lines += body[start : start + count]
        start += count
    return lines


def hint_at_hidden(columns: Sequence[str], rows: int, noun: str) -> str:
    """What a table does not show, and how to see it; empty where it shows everything.

    Args:
        columns: the columns that were left out.
        rows: how many rows were left out.
        noun: what a row is about, in the plural.
    """
    hints = [f"column{'s' * (len(columns) > 1)} {', '.join(columns)}: render(width=...)"] if columns else []
    hints += [f"{rows} {noun}: render(all=True)"] if rows else []
    return f"(left out: {'; '.join(hints)})" if hints else ""


def html_table(rows: Sequence[Row], columns: Sequence[str], names: Collection[str]) -> str:
    """A table as a piece of HTML; columns other than `names` are aligned to the right."""

    def cell(tag: str, column: str, text: str) -> str:
        side = "left" if column in names else "right"
        return f'<{tag} style="text-align: {side}">{html.escape(text)}</{tag}>'

    lines = ["<table>", "<tr>" + "".join(cell("th", column, column) for column in columns) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(cell("td", column, row.get(column, "")) for column in columns) + "</tr>")
    return "\n".join([*lines, "</table>"])


def check_width(width: int | None) -> int:
    """How many columns a line has at most; None stands for those of the terminal.

    Raises:
        TypeError, ValueError: a width that is no whole number, or less than 40.
    """
    if width is None:
        return max(shutil.get_terminal_size((80, 24)).columns, MIN_WIDTH)
    if isinstance(width, bool) or not hasattr(width, "__index__"):
        raise TypeError(f"width={width!r}: expected a whole number of columns, {MIN_WIDTH} or more")
    if width < MIN_WIDTH:
        raise ValueError(f"width={width!r}: expected {MIN_WIDTH} or more columns")
    return int(width)


def wrap(text: str, width: int) -> list[str]:
    """A text as lines of at most `width` characters; those behind the first are indented."""
    return textwrap.wrap(text, width, subsequent_indent="    ", break_on_hyphens=False)


def shorten_path(path: str, prefix: str) -> str:
    """A path with "~" in place of a prefix, as `common_prefix` gives it."""
    return "~" + path.removeprefix(prefix) if prefix and path.startswith(prefix + "/") else path


def common_prefix(paths: Sequence[str]) -> str:
    """The prefix whose removal shortens these paths most, if half of them or more begin with it; else empty."""
    counts: collections.Counter[str] = collections.Counter()
    for path in paths:
        names = path.split("/")
        counts.update("/".join(names[:i]) for i in range(1, len(names)))
    frequent = [prefix for prefix, count in counts.items() if count * 2 >= len(paths) and count > 1]
    return max(frequent, key=lambda prefix: counts[prefix] * (len(prefix) - 1), default="")
