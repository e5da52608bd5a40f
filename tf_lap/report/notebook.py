"""A pruning report as HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tf_lap.report.remarks import Remark, remarks, whole_model
from tf_lap.report.rendering import COLUMNS, NUMBERS, Section, cells, sections, total

if TYPE_CHECKING:
    from tf_lap.report import PruningReport


def as_html(report: PruningReport) -> str:
    """The report as a piece of HTML: a table, all kernels of a long model folded behind it, remarks, the whole model.

    Names and reasons are escaped; paths are whole.
    """
    shown = sections(report.pruned, everything=False)
    parts = [_table(shown, total(report))]
    if len(shown) > 1:
        whole = _table(sections(report.pruned, everything=True), total(report))
        parts.append(_folded(f"all {len(report.pruned)} pruned kernels", whole))
    said = [*remarks(report, str), *whole_model(report, str)]
    return "\n".join(["<div>", *parts, *map(_remark, said), "</div>"])


def _table(shown: Sequence[Section], last: Mapping[str, str]) -> str:
    lines = ["<table>", _row({column: column for column in COLUMNS}, "th")]
    for section in shown:
        if section.title:
            lines.append(f'<tr><td colspan="{len(COLUMNS)}"><i>{html.escape(section.title)}</i></td></tr>')
        lines += [_row(cells(layer, str), "td") for layer in section.layers]
    return "\n".join([*lines, _row(last, "th"), "</table>"])


def _row(row: Mapping[str, str], tag: str) -> str:
    sides = {column: "right" if column in NUMBERS else "left" for column in COLUMNS}
    return "".join(
        [
            "<tr>",
            *(
                f'<{tag} style="text-align: {side}">{html.escape(row.get(column, ""))}</{tag}>'
                for column, side in sides.items()
            ),
            "</tr>",
        ]
    )


def _remark(remark: Remark) -> str:
    if remark.names:
        return _folded(remark.text, html.escape(", ".join(remark.names)))
    return f"<p>{html.escape(remark.text)}</p>"


def _folded(summary: str, inside: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{inside}</details>"
