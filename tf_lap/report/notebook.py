"""A pruning report as HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tf_lap.report.remarks import Remark, layer_remarks, model_remarks
from tf_lap.report.rendering import COLUMNS, NUMBER_COLUMNS, Section, layer_cells, select_sections, total_cells

if TYPE_CHECKING:
    from tf_lap.report import PruningReport


def as_html(report: PruningReport) -> str:
    """The report as a piece of HTML: a table, all kernels of a long model folded below it, and remarks.

    Names and reasons are escaped; paths are whole.
    """
    shown = select_sections(report.pruned, everything=False)
    parts = [_render_table(shown, total_cells(report))]
    if len(shown) > 1:
        full_table = _render_table(select_sections(report.pruned, everything=True), total_cells(report))
        parts.append(_fold(f"all {len(report.pruned)} pruned kernels", full_table))
    parts += map(_render_remark, [*layer_remarks(report, str), *model_remarks(report, str)])
    return "\n".join(["<div>", *parts, "</div>"])


def _render_table(shown: Sequence[Section], last: Mapping[str, str]) -> str:
    lines = ["<table>", _render_row({column: column for column in COLUMNS}, "th")]
    for section in shown:
        if section.title:
            lines.append(f'<tr><td colspan="{len(COLUMNS)}"><i>{html.escape(section.title)}</i></td></tr>')
        lines += [_render_row(layer_cells(layer, str), "td") for layer in section.layers]
    return "\n".join([*lines, _render_row(last, "th"), "</table>"])


def _render_row(row: Mapping[str, str], tag: str) -> str:
    sides = {column: "right" if column in NUMBER_COLUMNS else "left" for column in COLUMNS}
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


def _render_remark(remark: Remark) -> str:
    if remark.names:
        return _fold(remark.text, html.escape(", ".join(remark.names)))
    return f"<p>{html.escape(remark.text)}</p>"


def _fold(summary: str, content: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"
