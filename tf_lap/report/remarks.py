"""What a pruning report says beside its table: each reason once, with all that it holds for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tf_lap.report import PruningReport

Shorten = Callable[[str], str]
"""A layer's path, in the form that is shown."""

# A boundary's reason begins with what lies there and its name: "Reshape 'flat': reshapes ...".
_END = re.compile(r"([^']*)'([^']*)'(?:: )?(.*)", re.DOTALL)


class Remark(NamedTuple):
    """A sentence, and the names of what it holds for where it holds for several."""

    text: str
    names: tuple[str, ...] = ()


def remarks(report: PruningReport, shorten: Shorten) -> list[Remark]:
    """Weights that came back, kept weights that are zero, what patterns cannot drop, and boundaries."""
    return [*_revived(report, shorten), *_zero(report, shorten), *_notes(report, shorten), *_ends(report, shorten)]


def whole_model(report: PruningReport, shorten: Shorten) -> list[Remark]:
    """What the model as a whole has, and what was left whole, the most weights first."""
    weights = report.model_weights
    pruned = weights - sum(report.left_whole.values())
    said = [
        Remark(
            f"whole model: {percent(report.model_zeros, weights)} of {weights:,} weights are zero; "
            f"the pruned kernels hold {percent(pruned, weights)} of the weights"
        )
    ]
    paths = report.skipped_by_reason()
    for reason, left in report.left_whole.items():
        names = [shorten(path) for path in paths.get(reason, ())]
        what = f"skipped {left:,} weights ({percent(left, weights)})"
        if len(names) == 1:
            said.append(Remark(f"{what} in {names[0]}: {reason}"))
        elif names:
            said.append(Remark(f"{what} in {len(names)} matrices: {reason}", tuple(names)))
        elif left:
            said.append(Remark(f"{what}: {reason}"))
    return said


def percent(part: int, whole: int) -> str:
    """A share in percent. Only all is 100.00%, and only none is 0.00%."""
    if part in (0, whole) or not whole:
        return f"{part / (whole or 1):.2%}"
    rounded = f"{part / whole:.2%}"
    return {"100.00%": ">99.99%", "0.00%": "<0.01%"}.get(rounded, rounded)


def _revived(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    counts = {shorten(layer.path): layer.revived for layer in report.pruned if layer.revived}
    return _counted("warning", counts, "pruned weights are not zero; something wrote them")


def _zero(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    counts = {shorten(layer.path): layer.zero for layer in report.pruned if layer.zero}
    return _counted("note", counts, "of the kept weights are zero all the same")


def _counted(kind: str, counts: dict[str, int], text: str) -> Iterable[Remark]:
    if len(counts) == 1:
        ((name, count),) = counts.items()
        yield Remark(f"{kind} {name}: {count:,} {text}")
    elif counts:
        names = tuple(f"{name} ({count:,})" for name, count in counts.items())
        yield Remark(f"{kind}, {len(counts)} kernels: {sum(counts.values()):,} {text}", names)


def _notes(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    by_note: dict[str, list[str]] = {}
    for layer in report.pruned:
        if layer.note is not None:
            by_note.setdefault(layer.note, []).append(shorten(layer.path))
    for note, names in by_note.items():
        if len(names) == 1:
            yield Remark(f"note {names[0]}: {note}")
        else:
            yield Remark(f"note, {len(names)} kernels: {note}", tuple(names))


def _ends(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    grouped: dict[str, list[tuple[str, str]]] = {}
    for reason in dict.fromkeys(reason for layer in report.layers for reason in layer.boundaries):
        match = _END.fullmatch(reason)
        what, name, why = match.groups() if match else ("", "", reason)
        # A network's input or output needs no reason: what it is says all.
        grouped.setdefault(why or what.strip(), []).append((reason, f"{what if why else ''}{shorten(name)!r}"))
    for why, members in grouped.items():
        if len(members) == 1:
            yield Remark(f"boundary: {members[0][0]}")
        else:
            yield Remark(f"boundary, {len(members)} times: {why.strip()}", tuple(name for _, name in members))
