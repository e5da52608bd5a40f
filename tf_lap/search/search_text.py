"""What a search for a sparsity found, as text and as HTML, and the lines that it prints meanwhile."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from tf_lap.search.combinations import Combination
from tf_lap.search.record import Evaluation
from tf_lap.search.values import format_value
from tf_lap.tabular import Row, check_width, elide, fit_table, html_table, wrap

if TYPE_CHECKING:
    from tf_lap.search.search_report import Goal, SearchReport

_NAMES = ("score", "allocation", "pattern", "")
_COLUMNS = ("score", "allocation", "pattern", "sparsity", "whole model", "value", "")
# Where there is no room, names are shortened to this width, and then columns are left out in this order.
_LEAST = {"score": 9, "allocation": 7, "pattern": 7}
_OPTIONAL = ("whole model", "")
_LINE = 80  # characters of a line that is printed meanwhile


def describe_goal(goal: Goal) -> str:
    """The dense model's value, and what is within the drop."""
    side = "or higher" if goal.higher_is_better else "or lower"
    dense, limit = format_value(goal.dense, goal.dense), format_value(goal.limit, goal.dense)
    return f"dense {dense}; within a drop of {goal.drop:.4g}: {limit} {side}"


def evaluation_line(number: int, combination: Combination, evaluation: Evaluation, goal: Goal) -> str:
    """A line about an evaluation that is done."""
    value = format_value(evaluation.value, goal.dense)
    verdict = "within" if evaluation.within else "not within"
    numbers = f"{evaluation.sparsity:>8.2%}  {value:>8}  {verdict}"
    names = elide(str(combination), _LINE - len(numbers) - 7)
    return f"{number:>3}  {names.ljust(_LINE - 37)}  {numbers}"


def as_text(report: SearchReport, width: int | None, everything: bool) -> str:
    """The result as text; see `SearchReport.render`.

    Raises:
        TypeError, ValueError: a width that is no whole number, or less than 40.
    """
    columns = check_width(width)
    rows = _list_evaluations(report) if everything else _list_combinations(report)
    shown, common = _split_columns(report)
    table, _ = fit_table(rows, shown, _NAMES, columns, _LEAST, _OPTIONAL)
    lines = wrap("; ".join([describe_goal(report.goal), *common]), columns)
    lines += [*table, *wrap(_conclude(report), columns)]
    if not everything:
        lines += wrap(f"({len(report.evaluations)} evaluations: render(all=True))", columns)
    return "\n".join(lines)


def as_html(report: SearchReport) -> str:
    """The result as a piece of HTML: a table of the combinations, all evaluations folded below it."""
    columns, common = _split_columns(report)
    every = html_table(_list_evaluations(report), columns, _NAMES)
    return "\n".join(
        [
            "<div>",
            f"<p>{html.escape('; '.join([describe_goal(report.goal), *common]))}</p>",
            html_table(_list_combinations(report), columns, _NAMES),
            f"<p>{html.escape(_conclude(report))}</p>",
            f"<details><summary>{len(report.evaluations)} evaluations</summary>{every}</details>",
            "</div>",
        ]
    )


def _split_columns(report: SearchReport) -> tuple[list[str], list[str]]:
    """The columns of a table, and what all combinations have in common in words, in place of a column."""
    choices = _COLUMNS[:3]
    values = [{names[i] for names in report.combinations} for i in range(len(choices))]
    common = {choices[i]: names.pop() for i, names in enumerate(values) if len(names) == 1 < len(report.combinations)}
    return [c for c in _COLUMNS if c not in common], [f"{choice} {name}" for choice, name in common.items()]


def _list_evaluations(report: SearchReport) -> list[Row]:
    return [_make_row(report, entry, "within" if entry.within else "not within") for entry in report.evaluations]


def _list_combinations(report: SearchReport) -> list[Row]:
    """A row for each combination: its sparsest model within the drop, or why there is none."""
    rows = []
    for number, names in enumerate(report.combinations):
        tried = [entry for entry in report.evaluations if entry.combination == number]
        within = [entry for entry in tried if entry.within]
        if within:
            sparsest = max(within, key=lambda entry: entry.sparsity)
            rows.append(_make_row(report, sparsest, "best" if sparsest == report.best_evaluation else ""))
            continue
        last = min(tried, key=lambda entry: entry.sparsity, default=None)
        text = "not tried" if last is None else f"not at {last.sparsity:.2%}"
        rows.append({**dict(zip(_COLUMNS, names, strict=False)), "sparsity": "-", "value": "-", "": text})
    return rows


def _make_row(report: SearchReport, entry: Evaluation, text: str) -> Row:
    return {
        **dict(zip(_COLUMNS, report.combinations[entry.combination], strict=False)),
        "sparsity": f"{entry.sparsity:.2%}",
        "whole model": f"{entry.model_sparsity:.2%}",
        "value": format_value(entry.value, report.goal.dense),
        "": text,
    }


def _conclude(report: SearchReport) -> str:
    best = report.best_evaluation
    if best is None:
        return (
            "no model is within the drop: allow a larger max_drop, prune fewer layers (filters), or prune while "
            "training (LAPCallback)"
        )
    return (
        f"best: {', '.join(report.combinations[best.combination])}: {best.sparsity:.2%} of the pruned kernels, "
        f"{best.model_sparsity:.2%} of the whole model; value {format_value(best.value, report.goal.dense)}. "
        "tf_lap.prune(model, **result.best) makes it"
    )
