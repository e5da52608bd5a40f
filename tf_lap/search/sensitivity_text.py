"""A model's values against sparsity, layer by layer, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_lap.search.values import format_value
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
    from tf_lap.search.sensitivity_report import LayerSensitivity, SensitivityReport

_NAMES = ("layer",)
_LEAST = {"layer": 20}

# A table of more rows is folded.
_MAX_ROWS = 30
_MOST, _FEWEST = 16, 8


def as_text(report: SensitivityReport, width: int | None, everything: bool) -> str:
    """The report as text; see `SensitivityReport.render`.

    Raises:
        TypeError, ValueError: a width that is no whole number, or less than 40.
    """
    columns = check_width(width)
    prefix = common_prefix([layer.path for layer in report.layers])
    sections, hidden = _select(report, everything)
    rows = [_make_row(report, layer, prefix) for _, layers in sections for layer in layers]
    lines, omitted = fit_table(
        [*rows, *_list_totals(report)], _list_columns(report), _NAMES, columns, _LEAST, _order(report)
    )
    heading, rule, *body = lines
    text = wrap(_describe(report), columns)
    if prefix:
        text += wrap(f"~ is {prefix}", columns)
    text += [heading, rule, *place_titles(body, ((title, len(layers)) for title, layers in sections))]
    text += [rule, *body[len(rows) :]] if body[len(rows) :] else []
    left_out = [column for column in _list_columns(report) if column in omitted]
    text += wrap(hint_at_hidden(left_out, hidden, "layers"), columns)
    return "\n".join(text)


def as_html(report: SensitivityReport) -> str:
    """The report as a piece of HTML: a table of all layers, folded where they are many."""
    columns = _list_columns(report)
    rows = [_make_row(report, layer, "") for layer in report.layers]
    complete = html_table([*rows, *_list_totals(report)], columns, _NAMES)
    parts = ["<div>", f"<p>{html.escape(_describe(report))}</p>"]
    sections, hidden = _select(report, everything=False)
    if hidden:
        for title, layers in sections:
            parts += [
                f"<p>{title}</p>",
                html_table([_make_row(report, layer, "") for layer in layers], columns, _NAMES),
            ]
        parts.append(f"<details><summary>all {len(rows)} layers</summary>{complete}</details>")
    else:
        parts.append(complete)
    return "\n".join([*parts, "</div>"])


def _describe(report: SensitivityReport) -> str:
    side = "higher" if report.higher_is_better else "lower"
    dense = format_value(report.dense, report.dense)
    return f"dense {dense} ({side} is better); {report.choices}; each layer pruned once by itself"


def _select(report: SensitivityReport, everything: bool) -> tuple[list[tuple[str, Sequence[LayerSensitivity]]], int]:
    """The layers that are shown, in sections with titles, and how many are not shown."""
    if everything or len(report.layers) <= _MAX_ROWS:
        return [("", report.layers)], 0
    ranked, hidden = report.by_sensitivity, len(report.layers) - _MOST - _FEWEST
    return [
        ("the most sensitive layers:", ranked[:_MOST]),
        (f"... {hidden} more; the least sensitive:", ranked[-_FEWEST:]),
    ], hidden


def _list_columns(report: SensitivityReport) -> list[str]:
    return ["layer", "weights", *(_title(fraction) for fraction in report.sparsities)]


def _order(report: SensitivityReport) -> list[str]:
    """The columns that a narrow table leaves out, the first first: weights, then every other sparsity."""
    titles = [_title(fraction) for fraction in report.sparsities[:-1]]
    return ["weights", *titles[::2], *titles[1::2]]


def _title(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"


def _make_row(report: SensitivityReport, layer: LayerSensitivity, prefix: str) -> Row:
    return {
        "layer": shorten_path(layer.path, prefix),
        "weights": f"{layer.weights:,}",
        **_make_cells(report, layer.values),
    }


def _list_totals(report: SensitivityReport) -> list[Row]:
    if report.together is None:
        return []
    weights = f"{sum(layer.weights for layer in report.layers):,}"
    return [{"layer": "all layers together", "weights": weights, **_make_cells(report, report.together)}]


def _make_cells(report: SensitivityReport, values: Sequence[float]) -> Row:
    return {
        _title(fraction): format_value(value, report.dense)
        for fraction, value in zip(report.sparsities, values, strict=True)
    }
