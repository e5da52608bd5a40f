"""Tables of models whose channels were pruned and removed."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FormatRows = Callable[[Sequence[str], list[Sequence[str]]], str]


def make_tables(
    format_rows: FormatRows, aims: Mapping[str, str]
) -> dict[str, tuple[str, Callable[[str, Mapping[str, Any]], str]]]:
    """The tables by name: the benchmark that each shows, and the function that writes it."""
    return {
        "shrunk": ("shrink", functools.partial(format_models, format_rows=format_rows)),
        "shrunk_latency": ("shrink", functools.partial(format_latency, format_rows=format_rows, aims=aims)),
        "channels": ("channels", functools.partial(format_channels, format_rows=format_rows)),
    }


def format_models(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """A row for each model of keras.applications, with and without its top."""
    rows: list[Sequence[str]] = []
    for run in sorted(_list_small(result), key=lambda run: (run["model"], run["top"])):
        blocked = "; ".join(f"{reason} ({count})" for reason, count in run["blocks"].items())
        rows.append(
            (
                run["model"] + ("" if run["top"] else ", no top"),
                str(run["size"]),
                f"{run['groups']}; {blocked}",
                _format_change(run["weights"], 1e6),
                _format_change(run["macs"], 1e6),
                _format_change([statistics.median(times) for times in run["latency"]], 1),
                f"{max(run['difference'], run['difference when loaded']):.0e}",
            )
        )
    header = ("model", "image", "groups; blocked", "weights, M", "MACs, M", "latency, ms", "difference")
    return f"`{result['command']}`: {result['what']}.\n\n" + format_rows(header, rows)


def format_latency(name: str, result: Mapping[str, Any], format_rows: FormatRows, aims: Mapping[str, str]) -> str:
    """What is left of the latency of models at full size and half the channels."""
    rows: list[Sequence[str]] = []
    for run in (run for run in result["runs"] if "full size" in run):
        for kind, (dense, small) in run["latency"].items():
            row = f"{run['model']}, {kind}: latency at half the channels"
            spread = result["ratios"][row]
            rows.append(
                (
                    f"{run['model']}, {kind}",
                    _format_change(run["macs"], 1e6),
                    _format_change(run["bytes"][kind], 1e6),
                    f"{statistics.median(dense):.3g}",
                    f"{statistics.median(small):.3g}",
                    f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['most']:.2f})",
                    aims.get(row, "-"),
                )
            )
    header = ("model, file", "MACs, M", "megabytes", "dense, ms", "half, ms", "ratio (least to most)", "aim")
    return f"`{result['command']}`.\n\n" + format_rows(header, rows)


def _list_small(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [run for run in result["runs"] if "full size" not in run]


def _format_change(figures: Sequence[float], unit: float) -> str:
    """A figure before and after, and what is left of it."""
    before, after = figures
    return f"{before / unit:.3g} to {after / unit:.3g} ({after / before:.2f})"


def format_channels(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """Errors of networks without some of their channels, by score, before and after training on."""
    runs = result["runs"]
    rows: list[Sequence[str]] = []
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    errors: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        errors.setdefault((run["task"], run["score"]), []).append(run["fine-tuned error"])
    for task, score in sorted(errors, key=lambda row: (tasks.index(row[0]), statistics.mean(errors[row]))):
        these = [run for run in runs if (run["task"], run["score"]) == (task, score)]
        cells = [
            _format_spread([run[field] for run in these]) for field in ("dense error", "error", "fine-tuned error")
        ]
        macs = statistics.mean(run["macs"] for run in these)
        rows.append((task, score, str(len(these)), f"{macs:.0%}", *cells))
    header = ("network", "score", "seeds", "MACs left", "not pruned", "pruned", "trained on")
    return f"`{result['command']}`: {result['what']}; means (least to most).\n\n" + format_rows(header, rows)


def _format_spread(errors: Sequence[float]) -> str:
    return f"{statistics.mean(errors):.1f} ({min(errors):.1f} to {max(errors):.1f})"
