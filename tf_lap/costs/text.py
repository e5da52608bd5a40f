"""What a model costs, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_lap.graph.channels import format_shape
from tf_lap.tabular import (
    Row,
    check_width,
    common_prefix,
    fit_table,
    hint_at_hidden,
    html_table,
    place_titles,
    shorten_path,
    wrap,
)

if TYPE_CHECKING:
    from tf_lap.costs import CostReport, LayerCost

_NAMES = ("layer", "class", "output")
_COLUMNS = ("layer", "class", "output", "weights", "non-zero", "MACs")
# Where there is no room, paths are shortened to this width, and then columns are left out in this order.
_LEAST = {"layer": 24}
_OPTIONAL = ("class", "output", "non-zero")

# A table of more rows is folded.
_MAX_ROWS = 30
_HEAD, _TAIL, _MOST = 8, 4, 8
_NAMES_PER_REASON = 3


def as_text(report: CostReport, width: int | None, everything: bool) -> str:
    """The report as text; see `CostReport.render`.

    Raises:
        TypeError, ValueError: a width that is no whole number, or less than 40.
    """
    columns = check_width(width)
    prefix = common_prefix([layer.path for layer in report.layers])
    sections, hidden = _select(report, everything)
    rows = [_make_row(layer, prefix) for _, layers in sections for layer in layers]
    lines, omitted = fit_table([*rows, _total(report)], _COLUMNS, _NAMES, columns, _LEAST, _OPTIONAL)
    heading, rule, *body, last = lines
    text = wrap(f"~ is {prefix}", columns) if prefix else []
    text += [heading, rule, *place_titles(body, ((title, len(layers)) for title, layers in sections)), rule, last]
    text += wrap(hint_at_hidden([column for column in _COLUMNS if column in omitted], hidden, "layers"), columns)
    for remark in _list_remarks(report):
        text += wrap(remark, columns)
    return "\n".join(text)


def as_html(report: CostReport) -> str:
    """The report as a piece of HTML: a table, all layers of a long model folded below it, and remarks."""
    sections, hidden = _select(report, everything=False)
    shown = [_make_row(layer, "") for _, layers in sections for layer in layers]
    parts = ["<div>", html_table([*shown, _total(report)], _COLUMNS, _NAMES)]
    if hidden:
        every = html_table([_make_row(layer, "") for layer in report.layers], _COLUMNS, _NAMES)
        parts.append(f"<details><summary>all {len(report.layers)} layers</summary>{every}</details>")
    parts += [f"<p>{html.escape(remark)}</p>" for remark in _list_remarks(report)]
    return "\n".join([*parts, "</div>"])


def _select(report: CostReport, everything: bool) -> tuple[list[tuple[str, Sequence[LayerCost]]], int]:
    """The layers that are shown, in sections with titles, and how many are not shown."""
    if everything:
        return [("", report.layers)], 0
    costly = [layer for layer in report.layers if layer.weights or layer.macs]
    if len(costly) <= _MAX_ROWS:
        return [("", costly)], len(report.layers) - len(costly)
    between = costly[_HEAD:-_TAIL]
    first = sorted(range(len(between)), key=lambda i: -between[i].macs)[:_MOST]
    return [
        ("", costly[:_HEAD]),
        (f"... {len(between)} more, those that multiply most:", [between[i] for i in sorted(first)]),
        ("... and the last:", costly[-_TAIL:]),
    ], len(report.layers) - _HEAD - len(first) - _TAIL


def _make_row(layer: LayerCost, prefix: str) -> Row:
    return {
        "layer": shorten_path(layer.path, prefix),
        "class": layer.layer_class,
        "output": "-" if layer.output_shape is None else "x".join(map(str, layer.output_shape[1:])) or "-",
        "weights": f"{layer.weights:,}",
        "non-zero": f"{layer.nonzero:,}",
        "MACs": f"{layer.macs:,}",
    }


def _total(report: CostReport) -> Row:
    count = len(report.layers)
    return {
        "layer": f"all {count} layers" if count != 1 else "1 layer",
        "weights": f"{report.weights:,}",
        "non-zero": f"{report.nonzero:,}",
        "MACs": f"{report.macs:,}",
    }


def _list_remarks(report: CostReport) -> list[str]:
    """What the table does not say, a sentence or two each."""
    by_dtype = ", ".join(f"{size:,} of {dtype}" for dtype, size in report.bytes_by_dtype.items())
    batch = "one sample" if report.batch_size == 1 else f"a batch of {report.batch_size:,}"
    remarks = [
        f"weights: of all kinds, {report.trainable:,} of them trainable; {report.bytes:,} bytes ({by_dtype or 'none'})",
        f"MACs: multiply-accumulates of kernels and of products of tensors, for {batch}; "
        f"{report.nonzero_macs:,} of weights that are not zero",
    ]
    largest = report.largest_activation
    if largest is not None:
        shape = format_shape(largest.shape)
        remarks.append(f"largest activation: {largest.bytes:,} bytes, {largest.path} {shape} {largest.dtype}")
    by_reason: dict[str, list[str]] = {}
    for path, reason in report.uncounted.items():
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        more = len(paths) - _NAMES_PER_REASON
        names = ", ".join(paths[:_NAMES_PER_REASON]) + (f" and {more} more" if more > 0 else "")
        remarks.append(f"MACs not counted: {names}: {reason}")
    return remarks
