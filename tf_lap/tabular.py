"""Tables of text that fit a width."""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = 2
"""How many spaces lie between two columns."""


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


def elide(text: str, width: int) -> str:
    """A text of at most `width` characters, 4 or more. A longer one loses its middle.

    >>> elide("block_12_expand", 12)
    'block...pand'
    """
    if len(text) <= width:
        return text
    ends = width - 3
    return f"{text[: ends - ends // 2]}...{text[len(text) - ends // 2 :]}"


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
