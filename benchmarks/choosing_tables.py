"""The tables and the picture of docs/choosing.md, from the runs of `benchmarks.choosing` and `benchmarks.gradual`."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Runs = Sequence[Mapping[str, Any]]
FormatRows = Callable[[Sequence[str], Iterable[Any]], str]
FormatTable = Callable[[str, Mapping[str, Any]], str]
TASKS = ("perceptron", "cnn", "residual", "mobile", "text")


def find_sparsities(runs: Runs) -> list[float]:
    """The sparsities that were measured."""
    return sorted({run["sparsity"] for run in runs if "sparsity" in run})


def format_error(errors: Sequence[float]) -> str:
    """The mean of errors in percent; empty where nothing was measured."""
    return f"{statistics.mean(errors):.1f}" if errors else ""


def list_rows(runs: Runs, task: str, regime: str) -> list[tuple[str, ...]]:
    """For each score and allocation the mean errors at each sparsity; the least of a column is bold.

    Args:
        runs: what the benchmark wrote.
        task: a network.
        regime: how it is pruned.
    """
    errors: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run in runs:
        if run["task"] == task and run["regime"] == regime:
            errors.setdefault((run["score"], run["allocation"]), {}).setdefault(run["sparsity"], []).append(
                run["error"]
            )
    sparsities = find_sparsities(runs)
    columns = [[format_error(by_sparsity.get(s, [])) for by_sparsity in errors.values()] for s in sparsities]
    least = [min((float(cell) for cell in column if cell), default=0.0) for column in columns]
    rows = []
    for row, (score, allocation) in enumerate(errors):
        cells = [column[row] for column in columns]
        marked = [
            f"**{cell}**" if cell and float(cell) == best else cell for cell, best in zip(cells, least, strict=True)
        ]
        rows.append((score, allocation, *marked))
    return rows


def format_task(task: str, name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """A table for each way to prune a network."""
    runs: Runs = [run for run in result["runs"] if run["task"] == task]
    dense = [run["error"] for run in runs if run["regime"] == "dense"]
    seeds = len({run["seed"] for run in runs})
    parts = [
        f"Not pruned: {format_error(dense)}% errors. {'One seed' if seeds == 1 else f'Means of up to {seeds} seeds'}."
    ]
    for regime in dict.fromkeys(run["regime"] for run in runs if run["regime"] != "dense"):
        header = ("score", "allocation", *(f"{sparsity:.0%}" for sparsity in find_sparsities(runs)))
        parts.append(f"Pruned once, {regime}:" if regime != "once" else "Pruned once:")
        parts.append(format_rows(header, list_rows(runs, task, regime)))
    return "\n\n".join(parts)


def format_best(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """For each network and way to prune it the least mean error over scores and allocations, and which had it."""
    runs = result["runs"]
    rows = []
    for task in dict.fromkeys(run["task"] for run in runs):
        dense = format_error([run["error"] for run in runs if run["task"] == task and run["regime"] == "dense"])
        regimes = dict.fromkeys(run["regime"] for run in runs if run["task"] == task and run["regime"] != "dense")
        for regime in regimes:
            cells = []
            for place in range(len(find_sparsities(runs))):
                by_error = {}
                for score, allocation, *errors in list_rows(runs, task, regime):
                    if errors[place]:
                        by_error[float(errors[place].strip("*"))] = f"{score} {allocation}"
                cells.append(f"{min(by_error):.1f} ({by_error[min(by_error)]})" if by_error else "")
            rows.append((f"{task}, {dense}", regime, *cells))
    return format_rows(("network, errors dense", "pruned", *(f"{s:.0%}" for s in find_sparsities(runs))), rows)


def format_gradual(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """Errors after gradual training, by sparsity and recipe."""
    runs = result["runs"]
    recipes = list(dict.fromkeys(run["recipe"] for run in runs))
    rows = []
    for sparsity in sorted({run["sparsity"] for run in runs}):
        cells = []
        for recipe in recipes:
            errors = [run["error"] for run in runs if run["sparsity"] == sparsity and run["recipe"] == recipe]
            cells.append(f"{statistics.mean(errors):.1f} ({min(errors):.1f} to {max(errors):.1f})" if errors else "")
        rows.append((f"{sparsity:.0%}", *cells))
    return format_rows(("zeros", *recipes), rows)


_COMPARED = (
    ("magnitude, each kernel alike", "once", "magnitude", "uniform"),
    ("default", "once", "lookahead", "lamp"),
    ("default, repaired without data", "repaired without data", "lookahead", "lamp"),
    ("`obs_lookahead`, repaired with 256 samples", "repaired with 256 samples", "obs_lookahead", "lamp"),
)
"""Headings of `format_repaired`, and what stands below each: a regime, a score and an allocation."""


def format_repaired(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """Errors of each network at 80% and 90% zeros, pruned once: plainly, by the default, and repaired."""
    runs = result["runs"]
    rows = []
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == task]
        dense = format_error([run["error"] for run in of_task if run["regime"] == "dense"])
        for sparsity in (0.8, 0.9):
            cells = []
            for _, *place in _COMPARED:
                errors = [
                    run["error"]
                    for run in of_task
                    if [run["regime"], run.get("score"), run.get("allocation")] == place and run["sparsity"] == sparsity
                ]
                cells.append(format_error(errors))
            rows.append((task, dense, f"{sparsity:.0%}", *cells))
    return format_rows(("network", "not pruned", "zeros", *(heading for heading, *_ in _COMPARED)), rows)


def format_steps(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """Errors of each network at each sparsity, a column for each number of steps."""
    runs = result["runs"]
    numbers = sorted({run["steps"] for run in runs if run["steps"]})
    rows = []
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == task]
        dense = format_error([run["error"] for run in of_task if not run["steps"]])
        for sparsity in sorted({run["sparsity"] for run in of_task if run["steps"]}):
            cells = []
            for steps in numbers:
                errors = [run["error"] for run in of_task if (run["sparsity"], run["steps"]) == (sparsity, steps)]
                cells.append(f"{format_error(errors)} ({min(errors):.1f} to {max(errors):.1f})" if errors else "")
            rows.append((task, dense, f"{sparsity:.0%}", *cells))
    header = ("network", "not pruned", "zeros", *(f"{steps} step{'s' * (steps > 1)}" for steps in numbers))
    return f"`{result['command']}`: {result['what']}; means (least to most).\n\n" + format_rows(header, rows)


def make_tables(format_rows: FormatRows) -> dict[str, tuple[str, FormatTable]]:
    """The tables by name: the benchmark that each shows, and the function that writes it."""
    formats = {
        "choosing_best": ("choosing", format_best),
        "repaired": ("choosing", format_repaired),
        "gradual": ("gradual", format_gradual),
        "steps": ("steps", format_steps),
    }
    tables: dict[str, tuple[str, FormatTable]] = {
        name: (benchmark, functools.partial(format_table, format_rows=format_rows))
        for name, (benchmark, format_table) in formats.items()
    }
    for task in TASKS:
        tables[f"choosing_{task}"] = "choosing", functools.partial(format_task, task, format_rows=format_rows)
    return tables
