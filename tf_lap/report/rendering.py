"""A pruning report as text that fits a width, and which of many kernels are shown."""

from __future__ import annotations

import collections
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tf_lap.report.remarks import Remark, Shorten, percent, remarks, whole_model
from tf_lap.tabular import GAP, elide, share, table

if TYPE_CHECKING:
    from tf_lap.report import LayerReport, PruningReport

NARROWEST = 40
COLUMNS = ("layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after")
NUMBERS = ("weights", "kept", "sparsity")
_ALWAYS = ("layer", "weights", "sparsity")
# What a narrow table does without: the last of these first.
_OPTIONAL = (("kept",), ("kernel",), ("before", "after"), ("class",))
# Columns of names give way to others down to this width.
_NAMES = {"layer": 36, "before": 14, "after": 14}
_ELIDED = 4
# How many names stand behind a reason.
_PATHS = 3

# A longer table is folded.
_LONGEST = 30
_HEAD, _TAIL, _EXTREMES = 8, 4, 3
# Sparsities that differ less differ by the rounding of counts alone.
_SPREAD = 0.01


class Section(NamedTuple):
    """Rows of a table, and what they are, where they are not simply its first ones."""

    title: str
    layers: tuple[LayerReport, ...]


def as_text(report: PruningReport, width: int | None, everything: bool) -> str:
    """The report as text; see `PruningReport.render`.

    Raises:
        TypeError, ValueError: a width that is no whole number, or less than 40.
    """
    columns = _checked(width)
    prefix = common_prefix([layer.path for layer in report.layers])

    def shorten(path: str) -> str:
        return "~" + path.removeprefix(prefix) if prefix and path.startswith(prefix + "/") else path

    lines = _wrapped(f"~ is {prefix}", columns) if prefix else []
    lines += _table(report, columns, everything, shorten)
    for remark in (*remarks(report, shorten), *whole_model(report, shorten)):
        lines += _remark(remark, columns, everything)
    return "\n".join(lines)


def sections(layers: Sequence[LayerReport], everything: bool) -> list[Section]:
    """The layers to show: all of a short model; of a long one its ends, and the extremes of what lies between."""
    if everything or len(layers) <= _LONGEST:
        return [Section("", tuple(layers))]
    between = layers[_HEAD:-_TAIL]
    sparsities = [layer.sparsity for layer in between]
    shown = [
        Section("", tuple(layers[:_HEAD])),
        Section(f"... {len(between)} more, the largest of them:", _first(between, [-x.weights for x in between])),
    ]
    if max(sparsities) - min(sparsities) >= _SPREAD:
        shown.append(Section("... the most sparse of them:", _first(between, [-x for x in sparsities])))
        shown.append(Section("... the least sparse of them:", _first(between, sparsities)))
    return [*shown, Section("... and the last:", tuple(layers[-_TAIL:]))]


def common_prefix(paths: Sequence[str]) -> str:
    """The names of models and layers around others that most lengthen these paths, if around half of them or more."""
    around: collections.Counter[str] = collections.Counter()
    for path in paths:
        names = path.split("/")
        around.update("/".join(names[:i]) for i in range(1, len(names)))
    frequent = [prefix for prefix, count in around.items() if count * 2 >= len(paths) and count > 1]
    return max(frequent, key=lambda prefix: around[prefix] * (len(prefix) - 1), default="")


def cells(layer: LayerReport, shorten: Shorten) -> dict[str, str]:
    """What a layer's row holds, by column."""
    return {
        "layer": shorten(layer.path),
        "class": layer.layer_class,
        "kernel": "x".join(map(str, layer.shape)),
        "weights": f"{layer.weights:,}",
        "kept": f"{layer.kept:,}",
        "sparsity": percent(layer.zeros, layer.weights),
        "before": _names([shorten(path) for path in layer.previous]),
        "after": _names([shorten(path) for path in layer.following]),
    }


def total(report: PruningReport) -> dict[str, str]:
    """What the row of all pruned kernels holds, by column."""
    count = len(report.pruned)
    return {
        "layer": f"{count} pruned kernel{'s' * (count != 1)}",
        "weights": f"{report.weights:,}",
        "kept": f"{report.kept:,}",
        "sparsity": percent(report.zeros, report.weights),
    }


def _table(report: PruningReport, width: int, everything: bool, shorten: Shorten) -> list[str]:
    shown = sections(report.pruned, everything)
    rows = [{column: column for column in COLUMNS}]
    rows += [cells(layer, shorten) for section in shown for layer in section.layers]
    rows.append(total(report))
    columns, widths = _fitted(rows, width)
    fitted = [[elide(row.get(c, ""), w) for c, w in zip(columns, widths, strict=True)] for row in rows]
    heading, rule, *body, last = table(fitted, [i for i, column in enumerate(columns) if column in NUMBERS])
    lines, place = [heading, rule], 0
    for section in shown:
        lines += [section.title] if section.title else []
        lines += body[place : place + len(section.layers)]
        place += len(section.layers)
    return [*lines, rule, last, *_wrapped(_left_out(report, shown, columns), width)]


def _left_out(report: PruningReport, shown: Sequence[Section], columns: Sequence[str]) -> str:
    """What is not shown, and how to see it; empty where all is."""
    hints = []
    narrow = [column for column in COLUMNS if column not in columns]
    if narrow:
        hints.append(f"column{'s' * (len(narrow) > 1)} {', '.join(narrow)}: render(width=...)")
    hidden = len(report.pruned) - len({layer.path for section in shown for layer in section.layers})
    if hidden:
        hints.append(f"{hidden} kernels: render(all=True)")
    return f"(left out: {'; '.join(hints)})" if hints else ""


def _fitted(rows: Sequence[dict[str, str]], width: int) -> tuple[list[str], list[int]]:
    """The columns that a width has room for, and how wide each is."""
    natural = {column: max(len(row.get(column, "")) for row in rows) for column in COLUMNS}
    least = {column: min(natural[column], _NAMES.get(column, natural[column])) for column in COLUMNS}
    chosen = set(_ALWAYS)
    for group in _OPTIONAL:
        if sum(least[column] + GAP for column in chosen.union(group)) - GAP > width:
            break
        chosen.update(group)
    columns = [column for column in COLUMNS if column in chosen]
    # Where not even the columns that always stay have room, paths give way further.
    floors = [_ELIDED if column == "layer" and len(columns) == len(_ALWAYS) else least[column] for column in columns]
    return columns, share([natural[column] for column in columns], floors, width)


def _remark(remark: Remark, width: int, everything: bool) -> list[str]:
    lines = _wrapped(remark.text, width)
    if remark.names:
        count = len(remark.names) if everything else _PATHS
        more = len(remark.names) - count
        names = ", ".join(remark.names[:count]) + (f" and {more} more" if more > 0 else "")
        lines += _wrapped("    " + names, width)
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="    ", break_on_hyphens=False)


def _checked(width: int | None) -> int:
    if width is None:
        return max(shutil.get_terminal_size((80, 24)).columns, NARROWEST)
    if isinstance(width, bool) or not hasattr(width, "__index__"):
        raise TypeError(f"width={width!r}: expected a whole number of columns, {NARROWEST} or more")
    if width < NARROWEST:
        raise ValueError(f"width={width!r}: expected {NARROWEST} or more columns")
    return int(width)


def _first(layers: Sequence[LayerReport], order: Sequence[float]) -> tuple[LayerReport, ...]:
    """The layers that come first in an order, in the order of the graph."""
    first = sorted(sorted(range(len(layers)), key=order.__getitem__)[:_EXTREMES])
    return tuple(layers[i] for i in first)


def _names(paths: Sequence[str]) -> str:
    if not paths:
        return "-"
    return ", ".join(paths[:2]) + (f" +{len(paths) - 2}" if len(paths) > 2 else "")
