"""Tables of models whose channels were pruned and removed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FormatRows = Callable[[Sequence[str], list[Sequence[str]]], str]


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
