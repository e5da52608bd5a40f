"""What a pruning report says beside its table: each reason once, with all that it holds for."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tf_lap.report import PruningReport

Shorten = Callable[[str], str]
"""A layer's path, in the form that is shown."""

# A boundary begins with the class and the name of the layer at which it lies: "Reshape 'flat': reshapes ...".
_BOUNDARY = re.compile(r"([^']*)'([^']*)'(?:: )?(.*)", re.DOTALL)


class Remark(NamedTuple):
    """A sentence, and the names of the layers that it holds for, where these are several."""

    text: str
    names: tuple[str, ...] = ()


def layer_remarks(report: PruningReport, shorten: Shorten) -> list[Remark]:
    """Weights that are not as their masks say, what patterns cannot drop, how far lookahead sees, and boundaries."""
    return [
        *_remark_revived(report, shorten),
        *_remark_zeros(report, shorten),
        *_remark_notes(report, shorten),
        *_remark_channels(report, shorten),
        *([Remark(report.allocation_note)] if report.allocation_note else []),
        *_remark_sides(report, shorten),
        *_remark_boundaries(report, shorten),
        *_remark_repair(report, shorten),
    ]


def model_remarks(report: PruningReport, shorten: Shorten) -> list[Remark]:
    """The sparsity of the whole model, and what was left whole, the most weights first."""
    weights = report.model_weights
    pruned = weights - sum(report.left_whole.values())
    sentences = [
        Remark(
            f"whole model: {percent(report.model_zeros, weights)} of {weights:,} weights are zero; "
            f"the pruned kernels hold {percent(pruned, weights)} of the weights"
        )
    ]
    paths = report.skipped_by_reason()
    for reason, skipped in report.left_whole.items():
        names = [shorten(path) for path in paths.get(reason, ())]
        size = f"skipped {skipped:,} weights ({percent(skipped, weights)})"
        if len(names) == 1:
            sentences.append(Remark(f"{size} in {names[0]}: {reason}"))
        elif names:
            sentences.append(Remark(f"{size} in {len(names)} matrices: {reason}", tuple(names)))
        elif skipped:
            sentences.append(Remark(f"{size}: {reason}"))
    return sentences


def percent(part: int, total: int) -> str:
    """A share in percent. Only all is 100.00%, and only none is 0.00%."""
    if part in (0, total) or not total:
        return f"{part / (total or 1):.2%}"
    rounded = f"{part / total:.2%}"
    return {"100.00%": ">99.99%", "0.00%": "<0.01%"}.get(rounded, rounded)


def _remark_revived(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    counts = {shorten(layer.path): layer.revived for layer in report.pruned if layer.revived}
    return _remark_counts("warning", counts, "pruned weights are not zero; something wrote them")


def _remark_zeros(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    counts = {shorten(layer.path): layer.zero for layer in report.pruned if layer.zero}
    return _remark_counts("note", counts, "of the kept weights are zero all the same")


def _remark_counts(kind: str, counts: dict[str, int], text: str) -> Iterable[Remark]:
    if len(counts) == 1:
        ((name, count),) = counts.items()
        yield Remark(f"{kind} {name}: {count:,} {text}")
    elif counts:
        names = tuple(f"{name} ({count:,})" for name, count in counts.items())
        yield Remark(f"{kind}, {len(counts)} kernels: {sum(counts.values()):,} {text}", names)


def _remark_notes(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    by_note: dict[str, list[str]] = {}
    for layer in report.pruned:
        if layer.note is not None:
            by_note.setdefault(layer.note, []).append(shorten(layer.path))
    for note, names in by_note.items():
        if len(names) == 1:
            yield Remark(f"note {names[0]}: {note}")
        else:
            yield Remark(f"note, {len(names)} kernels: {note}", tuple(names))


def _remark_sides(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    """How many kernels a score that looks around them saw neighbours of, on both sides, on one, or on none."""
    if not report.score_sides or not report.pruned:
        return
    sides = {layer.path: [side for side in layer.sides if side in report.score_sides] for layer in report.pruned}
    counts = collections.Counter(map(len, sides.values()))
    text = f"lookahead on both sides: {counts[2]} of {len(sides)} kernel{'s' * (len(sides) != 1)}"
    text += "".join(f"; {words}: {counts[n]}" for n, words in ((1, "one side"), (0, "no side")) if counts[n])
    fewest_first = sorted((path for path in sides if len(sides[path]) < 2), key=lambda path: len(sides[path]))
    remaining = {path: f"only {sides[path][0]}" if sides[path] else "none" for path in fewest_first}
    yield Remark(text, tuple(f"{shorten(path)} ({side})" for path, side in remaining.items()))


def _remark_boundaries(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    by_reason: dict[str, list[tuple[str, str]]] = {}
    for boundary in dict.fromkeys(boundary for layer in report.layers for boundary in layer.boundaries):
        match = _BOUNDARY.fullmatch(boundary)
        layer_class, name, reason = match.groups() if match else ("", "", boundary)
        # A network's input or output has no reason.
        place = f"{layer_class if reason else ''}{shorten(name)!r}"
        by_reason.setdefault(reason or layer_class.strip(), []).append((boundary, place))
    for reason, members in by_reason.items():
        if len(members) == 1:
            yield Remark(f"boundary: {members[0][0]}")
        else:
            yield Remark(f"boundary, {len(members)} times: {reason.strip()}", tuple(place for _, place in members))


def _remark_channels(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    if report.channels is not None:
        yield Remark(report.channels.summary)
        for reason, names in report.channels.blocked_by_reason().items():
            yield Remark(f"channels that stay: {reason}", tuple(map(shorten, names)))


def _remark_repair(report: PruningReport, shorten: Shorten) -> Iterable[Remark]:
    if report.repair is not None:
        yield Remark(report.repair.summary)
        for reason, paths in report.repair.left_by_reason().items():
            yield Remark(f"not repaired: {reason}", tuple(map(shorten, paths)))
