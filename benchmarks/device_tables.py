"""Tables of what runs where: files on x86, in a browser and on ARM."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FormatRows = Callable[[Sequence[str], Iterable[Sequence[str]]], str]
Table = tuple[str, Callable[[str, Mapping[str, Any]], str]]
RESULTS = Path(__file__).parent / "results"
_NAMES = re.compile(r", (?:as of|which) '.*")
"""What a reason says of layers by name."""


def make_tables(format_rows: FormatRows) -> dict[str, Table]:
    """By table, the benchmark that it shows and the function that writes it."""
    return {
        "device_rules": ("device_rules", functools.partial(format_rules, format_rows=format_rows)),
        "runtimes": ("runtimes", functools.partial(format_runtimes, format_rows=format_rows)),
        "gains": ("browser", functools.partial(format_gains, format_rows=format_rows)),
        "arm64": ("arm64", functools.partial(format_arm64, format_rows=format_rows)),
    }


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def format_gains(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """What zeros gain in time, by processor."""
    blocks = _read("tflite")["ratios"]["block:1x4 at 90%, latency"]["median"]
    rows = [("Dense layers in blocks of 1x4, 90%", f"{blocks:.2f}", "not measured", "not measured")]
    for network, words in (("mobilenet_v2", "MobileNetV2"), ("separable", "a smaller network")):
        label = f"{network}, 90%, fastest round"
        on_x86, in_browser = (result["ratios"][key]["median"] for key in (f"{label} on x86_64", label))
        what = f"1x1 convolutions of {words}, any zeros, 90%"
        rows.append((what, f"{on_x86:.2f}", f"{in_browser:.2f}", "not measured"))
    return format_rows(("time to the dense file's, float32, one thread", "x86", "browser", "ARM"), rows)


def format_rules(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """For each rule what the report says, and what was seen."""
    on_arm = _read("arm64")["rules"]
    rows = [
        (
            rule,
            outcome["report"],
            _describe(outcome),
            f"{outcome['ratio']:.2f}" if "ratio" in outcome else "-",
            _describe(on_arm[rule]) if rule in on_arm else "not run",
        )
        for rule, outcome in result["cases"].items()
    ]
    header = ("network", "report", "browser", "time to the dense file's", "ARM64, emulated")
    return f"`{result['command']}`: {result['what']}.\n\n" + format_rows(header, rows)


def _describe(outcome: Mapping[str, Any]) -> str:
    """What was seen of a sparse file."""
    if outcome["seen"] == "wrong" or (outcome["seen"] == "fails" and "error" not in outcome):
        return f"wrong by {outcome['difference']:.1g}"
    return str(outcome["seen"])


def format_runtimes(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """Which files are sparse, and how far each is from Keras, a row for each network and pattern."""
    on_arm = _read("arm64")["files"]
    letters: dict[str, str] = {}
    cells: dict[tuple[str, str], list[str]] = {}
    quantizations: list[str] = []
    for label, outcome in result["cases"].items():
        network, quantization, pattern = label.rsplit(", ", 2)
        if quantization not in quantizations:
            quantizations.append(quantization)
        kind = "sparse"
        if not outcome["sparse"]:
            reason = _NAMES.sub("", outcome["reason"].partition(";")[0].partition(". Use")[0])
            kind = f"dense ({letters.setdefault(reason, chr(ord('a') + len(letters)))})"
        apart = [outcome["x86"], outcome["browser"], on_arm.get(label, {}).get("difference")]
        figures = ", ".join("fails" if figure is None else f"{figure:.0e}" for figure in apart)
        cells.setdefault((network, pattern), []).append(f"{kind} {figures}")
    rows = [(network, f"`{pattern}`", *row) for (network, pattern), row in cells.items()]
    reasons = "\n".join(f"- ({letter}) {reason}." for reason, letter in letters.items())
    command = f"`{result['command']}` and `{_read('arm64')['command']}`"
    return f"{command}.\n\n{format_rows(('pruned', 'pattern', *quantizations), rows)}\n\n{reasons}"


def format_arm64(name: str, result: Mapping[str, Any], format_rows: FormatRows) -> str:
    """How many files ran on ARM, and how many of them right."""
    groups = {
        "files that the export writes": list(result["files"].values()),
        "networks of the rules, dense": [{"seen": rule["dense"]} for rule in result["rules"].values()],
    }
    for said in ("sparse", "dense", "fails"):
        groups[f'networks of the rules, sparse, where the report says "{said}"'] = [
            rule for rule in result["rules"].values() if rule["report"] == said
        ]
    rows = [
        (
            group,
            str(len(members)),
            *(str(sum(m["seen"] == seen for m in members)) for seen in ("right", "wrong", "fails")),
        )
        for group, members in groups.items()
    ]
    return f"`{result['command']}`: {result['what']}.\n\n" + format_rows(
        ("files", "how many", "right", "wrong numbers", "an error"), rows
    )
