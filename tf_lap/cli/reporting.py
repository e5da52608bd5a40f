"""`tf-lap report`."""

from __future__ import annotations

import argparse
import dataclasses

from tf_lap.cli import output
from tf_lap.cli.model_input import measure_bytes, read_model
from tf_lap.plotting import plot_sparsity
from tf_lap.pruning.pruner import Pruner
from tf_lap.report import PruningReport


def run(args: argparse.Namespace) -> None:
    """Prints how sparse a model is.

    Raises:
        CommandError: the model cannot be read. TypeError, ValueError: it has no kernel that can be pruned.
    """
    model, file = read_model(args)
    report = _count_zeros(Pruner(model).report())
    size, packed = measure_bytes(args.model)
    lines = [
        f"{args.model}: {file.flavour}, {type(model).__name__} {model.name!r}, {size:,} bytes, gzipped {packed:,}",
        output.render(args, report),
    ]
    if args.plot is not None:
        lines.append(output.draw(args, plot_sparsity(report)))
    data = {"model": str(args.model), "keras": file.flavour, "bytes": size, "gzip_bytes": packed}
    output.show(args, "\n".join(lines), {**data, "report": report.to_dict()})


def _count_zeros(report: PruningReport) -> PruningReport:
    """The report as if masks had made the zeros that are there, whoever did it."""
    layers = tuple(
        dataclasses.replace(layer, kept=layer.weights - layer.zeros, zero=0) if layer.skipped is None else layer
        for layer in report.layers
    )
    return dataclasses.replace(report, layers=layers, allocation_note="")
