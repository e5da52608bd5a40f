"""A pruning report as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_lap.tabular import table

if TYPE_CHECKING:
    from tf_lap.report import PruningReport

_NUMBERS = (3, 4, 5)


def as_text(report: PruningReport, width: int | None, everything: bool) -> str:
    """The report as text."""
    rows = [("layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after")]
    notes = []
    for layer in report.layers:
        kept = (f"{layer.kept:,}", f"{layer.sparsity:.2%}") if layer.skipped is None else ("skipped", "")
        shape = "x".join(map(str, layer.shape))
        ends = (_names(layer.previous), _names(layer.following))
        rows.append((layer.path, layer.layer_class, shape, f"{layer.weights:,}", *kept, *ends))
        if layer.skipped is not None:
            notes.append(f"skipped {layer.path}: {layer.skipped}")
        if layer.skipped is None and layer.zero:
            notes.append(f"note {layer.path}: {layer.zero:,} of the kept weights are zero all the same")
        if layer.revived:
            notes.append(f"warning {layer.path}: {layer.revived:,} pruned weights are not zero; something wrote them")
    rows.append(("total", "", "", f"{report.weights:,}", f"{report.kept:,}", f"{report.sparsity:.2%}", "", ""))
    ends = dict.fromkeys(reason for layer in report.layers for reason in layer.boundaries)
    notes += [f"boundary: {reason}" for reason in ends]
    *lines, total = table(rows, right=_NUMBERS)
    return "\n".join([*lines, lines[1], total, *notes])


def as_html(report: PruningReport) -> str:
    """The report as a piece of HTML."""
    return ""


def _names(paths: Sequence[str]) -> str:
    if not paths:
        return "-"
    return ", ".join(paths[:2]) + (f" +{len(paths) - 2}" if len(paths) > 2 else "")
