"""`python -m benchmarks.tables [--check]`: writes the tables of the documents from benchmarks/results.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. With `--check` nothing is written, and the exit status
is 1 where a document has a table that is not that of the committed run.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import choosing_tables, device_tables, shrink_tables

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
ACCURACY_TOOLS: Mapping[str, str] = {
    "tf_lap lookahead lamp": "tf_lap, by default",
    "tf_lap magnitude lamp": 'tf_lap, `score="magnitude"`',
    "tf_lap lookahead uniform": 'tf_lap, `allocation="uniform"`',
    "tfmot": "tfmot 0.8.1",
    "PQuantML PDP": "PQuantML 0.1.0, PDP",
    "PQuantML Wanda": "PQuantML 0.1.0, Wanda",
}
"""The tools in README's table and picture, and what they are called there."""
DOCUMENTS = (
    "README.md",
    "docs/performance.md",
    "docs/export.md",
    "docs/devices.md",
    "docs/tfmot.md",
    "docs/models.md",
    "docs/shrinking.md",
    "docs/results.md",
    "docs/choosing.md",
)
_TABLE = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)

AIMS: Mapping[str, Mapping[str, str]] = {
    "browser": {
        "separable, 90%, fastest round": "at most 0.5",
        "mobilenet_v2, 80%, fastest round": "at most 0.6",
        "mobilenet_v2, 90%, fastest round": "at most 0.5",
    },
    "first_updates": {
        "ResNet50: first update, seconds": "at most 1",
        "ResNet50: longest of a hundred, first updates": "at most 2",
        "ResNet50: a hundred updates, seconds": "at most 12",
        'ResNet50, order "forward": first update, seconds': "at most 5",
        "MobileNetV2: first update, seconds": "at most 0.5",
        "MobileNetV2: longest of a hundred, first updates": "at most 2",
        "MobileNetV2: a hundred updates, seconds": "at most 5",
        "NASNetMobile: first update, seconds": "at most 1.5",
        "NASNetMobile: longest of a hundred, first updates": "at most 2",
        "NASNetMobile: a hundred updates, seconds": "at most 20",
        "EfficientNetB7: first update, seconds": "at most 3",
        "EfficientNetB7: longest of a hundred, first updates": "at most 2",
        "EfficientNetB7: a hundred updates, seconds": "at most 40",
    },
    "mask_update": {
        "update, reads": "at most 12",
        "energies, reads": "at most 4",
        "tfmot magnitude, updates": "at least 100",
        "np.partition magnitude, updates": "at least 0.83",
    },
    "growth": {
        "1e+07 weights, time over that of 9.99e+05, in proportion": "at most 1.3",
        "1e+08 weights, time over that of 1e+07, in proportion": "at most 1.3",
        "memory of masks": "at most 0.25",
        "memory beyond them at the peak": "at most 0.6",
    },
    "training_steps": {"LAPCallback, every 100 steps": "at most 1.04", "LAPCallback, every step": "at most 1.7"},
    "wrapped_steps": {"tf_lap, frequency=1": "at most 1.8", "tf_lap, frequency=100": "at most 1.1"},
    "wrapped_tracing": {"tf_lap, of tfmot": "at most 1.5"},
    "graphs": dict.fromkeys(("NASNetLarge", "EfficientNetB7", "DenseNet201"), "at most 0.2"),
    "models": {"BERT base: peak memory in GB": "at most 8"},
    "imports": dict.fromkeys(
        ("import tf_lap", "import tf_lap, and its callback, pruner, schedule and report"), "at most 1.1"
    ),
    "export": {
        "float32, sparse=False": "at most 1.5",
        "float32, sparse='auto'": "at most 2.5",
        "int8, sparse=False": "at most 1.5",
        "int8, sparse='auto'": "at most 2.5",
    },
    "shrink": {
        "ResNet50, float32: latency at half the channels": "at most 0.4",
        "ResNet50, int8: latency at half the channels": "at most 0.4",
        "MobileNetV2, float32: latency at half the channels": "at most 0.5",
        "MobileNetV2, int8: latency at half the channels": "at most 0.5",
    },
}
"""The aims of the project, by benchmark and row. Other rows have "-"."""


def format_spread(spread: Mapping[str, float], digits: str = ".3g") -> str:
    """A median, and the least and the most where these differ."""
    median, least, most = (format(spread[key], digits) for key in ("median", "least", "most"))
    return median if least == most else f"{median} ({least} to {most})"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _format_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format_ratios(name: str, result: Mapping[str, Any]) -> str:
    """A benchmark's ratios, with the aim of each."""
    aims = AIMS.get(name, {})
    rows = [(row, format_spread(spread), aims.get(row, "-")) for row, spread in result["ratios"].items()]
    return f"`{result['command']}`: {result['what']}.\n\n" + _format_rows(
        ("what", "median (least to most)", "aim"), rows
    )


def _format_first_updates(name: str, result: Mapping[str, Any]) -> str:
    """The same, beside the figures of a pruner that traced its updates."""
    before, aims = _read(f"{name}_traced")["ratios"], AIMS[name]
    rows = [
        (row, format_spread(spread), format_spread(before[row]) if row in before else "not measured", aims[row])
        for row, spread in result["ratios"].items()
    ]
    header = ("what", "median (least to most)", "when updates were traced", "aim")
    return f"`{result['command']}`: {result['what']}.\n\n" + _format_rows(header, rows)


def _format_files(name: str, result: Mapping[str, Any]) -> str:
    """Sizes and times of TFLite files, one line for each pattern."""
    ratios = result["ratios"]
    patterns = dict.fromkeys(row.partition(",")[0] for row in ratios)
    rows = [
        (
            pattern,
            f"{ratios[f'{pattern}, bytes']['median']:.3f}",
            f"{ratios[f'{pattern}, gzipped bytes']['median']:.3f}",
            format_spread(ratios[f"{pattern}, latency"], ".2f"),
        )
        for pattern in patterns
    ]
    return _format_rows(("pattern and sparsity", "bytes", "gzipped bytes", "latency (least to most)"), rows)


def _format_steps(name: str, result: Mapping[str, Any]) -> str:
    """What a step costs under wrappers."""
    rows = [(row, format_spread(spread, ".2f")) for row, spread in result["ratios"].items()]
    return _format_rows(("wrapper, steps between updates", "median (least to most)"), rows)


def _format_transformer(name: str, result: Mapping[str, Any]) -> str:
    """Test errors of a transformer that two methods pruned, over seeds."""
    runs = result["runs"]
    methods = list(dict.fromkeys(row["method"] for row in runs[0]["pruned"]))
    errors: dict[float, dict[str, list[float]]] = {}
    for row in (row for run in runs for row in run["pruned"]):
        errors.setdefault(row["sparsity"], {}).setdefault(row["method"], []).append(row["error"])
    rows = [("none", _format_errors([run["dense"] for run in runs]), *[""] * (len(methods) - 1))]
    rows += [
        (f"{sparsity:.1%}", *(_format_errors(by_method[method]) for method in methods))
        for sparsity, by_method in errors.items()
    ]
    return _format_rows(("sparsity", *methods), rows)


def _format_errors(errors: Sequence[float]) -> str:
    """A mean in percent, and the least and the most."""
    return f"{statistics.mean(errors):.2%} ({min(errors):.2%} to {max(errors):.2%})"


def _format_accuracy(name: str, result: Mapping[str, Any]) -> str:
    """How many images are right, a row for each tool, a column for each sparsity."""
    right: dict[str, dict[float, list[float]]] = {}
    for fit in result["runs"]:
        right.setdefault(fit["tool"], {}).setdefault(fit["sparsity"], []).append(fit["right"])
    sparsities = sorted({fit["sparsity"] for fit in result["runs"] if fit["sparsity"]})
    rows = [
        (tool, *(_format_right(by_sparsity[s]) for s in sparsities))
        for tool, by_sparsity in right.items()
        if tool != "unpruned"
    ]
    rows += [("unpruned", *[_format_right(right["unpruned"][0.0])] * len(sparsities))]
    return f"`{result['command']}`: {result['what']}; {_count_seeds(result)} (least to most).\n\n" + _format_rows(
        ("tool", *(f"{sparsity:.0%} zeros" for sparsity in sparsities)), rows
    )


def _format_drawn_accuracy(name: str, result: Mapping[str, Any]) -> str:
    """The means that docs/accuracy.png shows."""
    runs = result["runs"]
    sparsities = sorted({fit["sparsity"] for fit in runs if fit["sparsity"]})
    rows = []
    for tool, label in ACCURACY_TOOLS.items():
        right = [[fit["right"] for fit in runs if (fit["tool"], fit["sparsity"]) == (tool, s)] for s in sparsities]
        rows.append((label, *(f"{statistics.mean(fractions):.1%}" for fractions in right)))
    return _format_rows(
        (f"test images that are right, {_count_seeds(result)}", *(f"{sparsity:.0%} zeros" for sparsity in sparsities)),
        rows,
    )


def _count_seeds(result: Mapping[str, Any]) -> str:
    seeds = len({fit["seed"] for fit in result["runs"]})
    return f"means of {seeds} seeds" if seeds > 1 else "one seed"


def _format_right(fractions: Sequence[float]) -> str:
    """A mean in percent, and the least and the most."""
    mean, least, most = (f"{100 * value:.1f}" for value in (statistics.mean(fractions), min(fractions), max(fractions)))
    return mean if least == most else f"{mean} ({least} to {most})"


def _format_means(name: str, result: Mapping[str, Any]) -> str:
    """A benchmark's figures as means."""
    rows = [
        (row, f"{spread['mean']:.3g} ({spread['least']:.3g} to {spread['most']:.3g})")
        for row, spread in result["ratios"].items()
    ]
    return f"`{result['command']}`: {result['what']}.\n\n" + _format_rows(("what", "mean (least to most)"), rows)


def _format_device(name: str, result: Mapping[str, Any]) -> str:
    """An update on an accelerator."""
    rows = [
        ("update, milliseconds", format_spread(result["update_milliseconds"])),
        ("a copy of the weights, milliseconds", format_spread(result["copy_milliseconds"])),
        ("update, copies", f"{result['update_over_copy']:.3g}"),
        ("compilation, seconds", f"{result['compilation_seconds']:.3g}"),
        ("mask bits that differ from the CPU's", f"{result['differing_mask_bits']} of {result['weights']:,}"),
    ]
    return _format_rows((f"{result['device']}, JAX {result['jax']}", "median (least to most)"), rows)


def _format_models(table: str, name: str, result: Mapping[str, Any]) -> str:
    """How much look-ahead the kernels of models have.

    Args:
        table: which models: a key of the result.
        name: the name of the benchmark.
        result: what it wrote.
    """
    header = (
        "model",
        "kernels",
        "both sides",
        "one side",
        "neither",
        "by name",
        "seconds",
        "other boundaries (kernels)",
    )
    counts = ("kernels", "both sides", "one side", "neither side", "by name")
    rows = [
        (
            model,
            *(str(described[count]) for count in counts),
            f"{described['seconds']:.2g}",
            "; ".join(f"{reason} ({kernels})" for reason, kernels in described["boundaries"].items()) or "-",
        )
        for model, described in result[table].items()
    ]
    return f"`{result['command']}`: {result['what']}.\n\n" + _format_rows(header, rows)


def _format_bert_base(name: str, result: Mapping[str, Any]) -> str:
    """What a BERT of full size takes."""
    return _format_rows(("what", "figure"), [(what, f"{figure:.3g}") for what, figure in result["bert_base"].items()])


_SHAPES: Mapping[str, tuple[str, Callable[[str, Mapping[str, Any]], str]]] = {
    "accuracy": ("accuracy", _format_accuracy),
    "drawn_accuracy": ("accuracy", _format_drawn_accuracy),
    "one_shot": ("one_shot", _format_means),
    "first_updates": ("first_updates", _format_first_updates),
    "files": ("tflite", _format_files),
    "steps_inside_tfmot": ("wrapped_steps", _format_steps),
    "device": ("device", _format_device),
    "applications": ("models", functools.partial(_format_models, "applications")),
    "backbones": ("models", functools.partial(_format_models, "backbones")),
    "bert_base": ("models", _format_bert_base),
    "transformer": ("transformer", _format_transformer),
    **choosing_tables.make_tables(_format_rows),
    **shrink_tables.make_tables(_format_rows, AIMS["shrink"]),
    **device_tables.make_tables(_format_rows),
}
"""Tables of another form: by name, the benchmark that each shows, and the function that writes it."""


def update_tables(text: str) -> str:
    """A document with new tables.

    Args:
        text: the document.

    Raises:
        FileNotFoundError: a table names a benchmark that has no committed run.
    """

    def write_table(match: re.Match[str]) -> str:
        benchmark, write = _SHAPES.get(match[1], (match[1], _format_ratios))
        return f"<!-- table: {match[1]} -->\n\n{write(benchmark, _read(benchmark))}\n\n<!-- end -->"

    return _TABLE.sub(write_table, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks all documents, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is not up to date")
    check = parser.parse_args(arguments).check
    stale = []
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text(encoding="utf-8")
        updated = update_tables(text)
        if updated == text:
            continue
        stale.append(document)
        if not check:
            path.write_text(updated, encoding="utf-8")
    if check and stale:
        print(f"not as in benchmarks/results: {', '.join(stale)}. Run python -m benchmarks.tables", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
