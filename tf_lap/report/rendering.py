"""A pruning report as text that fits a width, and which of many kernels are shown."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tf_lap.report.remarks import Remark, Shorten, layer_remarks, model_remarks, percent
from tf_lap.tabular import (
    GAP,
    check_width,
    common_prefix,
    elide,
    hint_at_hidden,
    place_titles,
    share,
    shorten_path,
    table,
    wrap,
)

if TYPE_CHECKING:
    from tf_lap.report import LayerReport, PruningReport

COLUMNS = ("layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after")
NUMBER_COLUMNS = ("weights", "kept", "sparsity")
_ALWAYS = ("layer", "weights", "sparsity")
# A narrow table leaves these out, the last first.
_OPTIONAL = (("kept",), ("kernel",), ("before", "after"), ("class",))
# Columns of names are shortened to this width before columns are left out.
_MIN_NAME_WIDTHS = {"layer": 36, "before": 14, "after": 14}
_MIN_PATH_WIDTH = 4
_NAMES_PER_REMARK = 3

# A table of more rows is folded.
_MAX_ROWS = 30
_HEAD, _TAIL, _EXTREMES = 8, 4, 3
# Smaller differences of sparsity come from the rounding of counts.
_MIN_SPREAD = 0.01


class Section(NamedTuple):
    """Rows of a table, and a title; the first section has none."""

    title: str
    layers: tuple[LayerReport, ...]


def as_text(report: PruningReport, width: int | None, everything: bool) -> str:
    """The report as text; see `PruningReport.render`.

    Raises:
        TypeError, ValueError: a width that is no whole number, or less than 40.
    """
    columns = check_width(width)
    prefix = common_prefix([layer.path for layer in report.layers])
    shorten = functools.partial(shorten_path, prefix=prefix)
    lines = wrap(f"~ is {prefix}", columns) if prefix else []
    lines += _render_table(report, columns, everything, shorten)
    for remark in (*layer_remarks(report, shorten), *model_remarks(report, shorten)):
        lines += _render_remark(remark, columns, everything)
    return "\n".join(lines)


def select_sections(layers: Sequence[LayerReport], everything: bool) -> list[Section]:
    """The layers to show: all of a short model; of a long model the first, the last, and the extremes between them."""
    if everything or len(layers) <= _MAX_ROWS:
        return [Section("", tuple(layers))]
    between = layers[_HEAD:-_TAIL]
    sparsities = [layer.sparsity for layer in between]
    shown = [
        Section("", tuple(layers[:_HEAD])),
        Section(
            f"... {len(between)} more, the largest of them:",
            _select_first(between, [-layer.weights for layer in between]),
        ),
    ]
    if max(sparsities) - min(sparsities) >= _MIN_SPREAD:
        shown.append(
            Section("... the most sparse of them:", _select_first(between, [-sparsity for sparsity in sparsities]))
        )
        shown.append(Section("... the least sparse of them:", _select_first(between, sparsities)))
    return [*shown, Section("... and the last:", tuple(layers[-_TAIL:]))]


def layer_cells(layer: LayerReport, shorten: Shorten) -> dict[str, str]:
    """The cells of a layer's row, by column."""
    return {
        "layer": shorten(layer.path),
        "class": layer.layer_class,
        "kernel": "x".join(map(str, layer.shape)),
        "weights": f"{layer.weights:,}",
        "kept": f"{layer.kept:,}",
        "sparsity": percent(layer.zeros, layer.weights),
        "before": _join_paths([shorten(path) for path in layer.previous]),
        "after": _join_paths([shorten(path) for path in layer.following]),
    }


def total_cells(report: PruningReport) -> dict[str, str]:
    """The cells of the row of all pruned kernels, by column."""
    count = len(report.pruned)
    return {
        "layer": f"{count} pruned kernel{'s' * (count != 1)}",
        "weights": f"{report.weights:,}",
        "kept": f"{report.kept:,}",
        "sparsity": percent(report.zeros, report.weights),
    }


def _render_table(report: PruningReport, width: int, everything: bool, shorten: Shorten) -> list[str]:
    shown = select_sections(report.pruned, everything)
    rows = [{column: column for column in COLUMNS}]
    rows += [layer_cells(layer, shorten) for section in shown for layer in section.layers]
    rows.append(total_cells(report))
    columns, widths = _fit_columns(rows, width)
    elided = [[elide(row.get(c, ""), w) for c, w in zip(columns, widths, strict=True)] for row in rows]
    heading, rule, *body, last = table(elided, [i for i, column in enumerate(columns) if column in NUMBER_COLUMNS])
    lines = place_titles(body, ((section.title, len(section.layers)) for section in shown))
    hidden_columns = [column for column in COLUMNS if column not in columns]
    hidden_kernels = len(report.pruned) - len({layer.path for section in shown for layer in section.layers})
    hint = hint_at_hidden(hidden_columns, hidden_kernels, "kernels")
    return [heading, rule, *lines, rule, last, *wrap(hint, width)]


def _fit_columns(rows: Sequence[dict[str, str]], width: int) -> tuple[list[str], list[int]]:
    """The columns that a width has room for, and how wide each is."""
    natural = {column: max(len(row.get(column, "")) for row in rows) for column in COLUMNS}
    least = {column: min(natural[column], _MIN_NAME_WIDTHS.get(column, natural[column])) for column in COLUMNS}
    chosen_columns = set(_ALWAYS)
    for group in _OPTIONAL:
        if sum(least[column] + GAP for column in chosen_columns.union(group)) - GAP > width:
            break
        chosen_columns.update(group)
    columns = [column for column in COLUMNS if column in chosen_columns]
    # Where there is no room even for the columns that are always shown, paths are shortened further.
    floors = [
        _MIN_PATH_WIDTH if column == "layer" and len(columns) == len(_ALWAYS) else least[column] for column in columns
    ]
    return columns, share([natural[column] for column in columns], floors, width)


def _render_remark(remark: Remark, width: int, everything: bool) -> list[str]:
    lines = wrap(remark.text, width)
    if remark.names:
        count = len(remark.names) if everything else _NAMES_PER_REMARK
        more = len(remark.names) - count
        names = ", ".join(remark.names[:count]) + (f" and {more} more" if more > 0 else "")
        lines += wrap("    " + names, width)
    return lines


def _select_first(layers: Sequence[LayerReport], order: Sequence[float]) -> tuple[LayerReport, ...]:
    """The layers that come first in an order, in the order of the graph."""
    first = sorted(sorted(range(len(layers)), key=order.__getitem__)[:_EXTREMES])
    return tuple(layers[i] for i in first)


def _join_paths(paths: Sequence[str]) -> str:
    if not paths:
        return "-"
    return ", ".join(paths[:2]) + (f" +{len(paths) - 2}" if len(paths) > 2 else "")
