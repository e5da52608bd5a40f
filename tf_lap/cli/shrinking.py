"""`tf-lap shrink`."""

from __future__ import annotations

import argparse

from tf_lap.cli import output
from tf_lap.cli.choices import read_typical_inputs
from tf_lap.cli.model_input import measure_bytes, read_model, write_model
from tf_lap.shrinking import shrink


def run(args: argparse.Namespace) -> None:
    """Writes the smaller copy of a model and prints what went.

    Raises:
        CommandError: the model or the data cannot be read. TypeError, ValueError, ShrinkError: as `tf_lap.shrink`.
    """
    model, _ = read_model(args)
    before, _ = measure_bytes(args.model)
    with output.progress():
        small, report = shrink(model, read_typical_inputs(args, model), functional=args.functional, return_report=True)
    line, written = write_model(small, args.output)
    text = f"{output.render(args, report)}\n{line}, before {before:,} bytes"
    data = {"model": str(args.model), "bytes_before": before, **written, "report": report.to_dict()}
    output.show(args, text, data)
