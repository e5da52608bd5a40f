"""`tf-lap sweep`."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from tf_lap import scores
from tf_lap.cli import output
from tf_lap.cli.choices import read_choices, read_typical_inputs
from tf_lap.cli.data_files import TO_MEASURE, read_data
from tf_lap.cli.errors import CommandError
from tf_lap.cli.measures import Measure, find_measure, predict
from tf_lap.cli.model_input import read_model
from tf_lap.compat import exporting
from tf_lap.compat.types import Model
from tf_lap.files import remove_unfinished, replaced
from tf_lap.plotting import plot_tradeoff
from tf_lap.search.find import find_sparsity
from tf_lap.search.layer_values import sensitivity
from tf_lap.search.record import fingerprint_data, fingerprint_weights
from tf_lap.search.search_report import SearchReport

_FORMAT = "tf_lap sweep 1"
_ALLOCATIONS = ("global", "lamp", "uniform")


class RememberedValues:
    """Values of models, by their weights; kept in a file, where one is named, after each measurement.

    Args:
        path: the file, which need not be there yet; None to keep nothing on disk.
        measure: the name of what is measured, and the data's fingerprint.

    Raises:
        CommandError: the file is of another kind, or of other data.
    """

    def __init__(self, path: Path | None, measure: list[str | None]) -> None:
        self._path, self._measure = path, measure
        self._values: dict[str, float] = {}
        if path is None:
            return
        remove_unfinished(path)
        if path.exists():
            self._load(path)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> float | None:
        """The value of a model that was measured before; None of another one."""
        return self._values.get(key)

    def add(self, key: str, value: float) -> None:
        """Keeps a value."""
        self._values[key] = value
        if self._path is not None:
            content = {"format": _FORMAT, "measure": self._measure, "values": self._values}
            with replaced(self._path) as file:
                file.write(json.dumps(content, indent=1).encode())

    def _load(self, path: Path) -> None:
        remedy = "name another file, or delete it to begin anew"
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            measure, values = content["measure"], dict(content["values"])
        except (KeyError, TypeError, ValueError) as error:
            raise CommandError(f"--record {path}: damaged, or not of this command ({error}): {remedy}") from error
        if measure != self._measure:
            raise CommandError(f"--record {path}: it is of other data, or of another measure: {remedy}")
        self._values = values


def run(args: argparse.Namespace) -> None:
    """Measures what sparsity costs, and finds the sparsest model within a drop.

    Raises:
        CommandError: the model, the data or the record cannot be read. TypeError, ValueError: as `tf_lap.sensitivity`
            and `tf_lap.find_sparsity`.
    """
    model, _ = read_model(args)
    inputs = exporting.inputs(model)
    data = read_data(args.data, inputs, TO_MEASURE)
    measure = find_measure(predict(model, data.columns), data.labels)
    arrays = [*data.columns] if data.labels is None else [*data.columns, data.labels]
    remembered = RememberedValues(args.record, [measure.name, fingerprint_data(arrays)])

    def evaluate(candidate: Model) -> float:
        key = fingerprint_weights(candidate)
        value = remembered.get(key)
        if value is None:
            value = measure.compute(predict(candidate, data.columns))
            remembered.add(key, value)
        return value

    typical = read_typical_inputs(args, model) if scores.get(args.score).needs_data or args.repair else None
    options: dict[str, Any] = {
        "data": typical,
        "repair": args.repair,
        "higher_is_better": measure.higher_is_better,
    }
    with output.progress() as verbose:
        layers = sensitivity(
            model, evaluate, sparsities=args.sparsities, **read_choices(args), **options, verbose=verbose
        )
        search = None
        if args.max_drop is not None:
            search = find_sparsity(model, evaluate, args.max_drop, **_read_search(args), **options, verbose=verbose)
    lines = [f"value: {measure.name} on {len(data.columns[0]):,} samples ({data.names})", output.render(args, layers)]
    if search is not None:
        lines += ["", output.render(args, search), *_suggest(args, search)]
    if args.plot is not None:
        lines.append(output.draw(args, layers.plot()))
        if search is not None:
            path = args.plot.with_name(f"{args.plot.stem}_search{args.plot.suffix}")
            lines.append(output.draw(args, plot_tradeoff(search), path))
    output.show(args, "\n".join(lines), _as_json(args, measure, layers.to_dict(), search))


def _read_search(args: argparse.Namespace) -> dict[str, Any]:
    """The choices that are tried: those of the command line, and three allocations where it names none."""
    tries_several = args.allocation == "auto" and args.pattern == "unstructured"
    return {
        "scores": args.score,
        "allocations": _ALLOCATIONS if tries_several else args.allocation,
        "patterns": args.pattern,
        "filters": args.filters,
    }


def _suggest(args: argparse.Namespace, search: SearchReport) -> list[str]:
    """The command that makes the model that was found."""
    if search.best_evaluation is None:
        return []
    score, allocation, pattern = search.combinations[search.best_evaluation.combination]
    command = ["tf-lap", "prune", str(args.model), "-o", f"sparse{args.model.suffix}"]
    command += ["--sparsity", f"{search.best_evaluation.target:.6g}", "--score", score, "--allocation", allocation]
    command += ["--pattern", pattern, *(part for layers in args.filters or () for part in ("--filters", layers))]
    if args.repair:
        command += ["--repair", *([] if args.repair is True else [",".join(args.repair)])]
    if args.repair or scores.get(score).needs_data:
        command += ["--data", str(args.data)]
    return [f"to make it: {shlex.join(command)}"]


def _as_json(args: argparse.Namespace, measure: Measure, layers: Any, search: SearchReport | None) -> dict[str, Any]:
    return {
        "model": str(args.model),
        "measure": measure.name,
        "sensitivity": layers,
        "search": None if search is None else search.to_dict(),
    }
