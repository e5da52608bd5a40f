"""`tf-lap repair`."""

from __future__ import annotations

import argparse

from tf_lap.cli import output
from tf_lap.cli.choices import read_typical_inputs
from tf_lap.cli.model_input import read_model, write_model
from tf_lap.pruning.repairing import repair


def run(args: argparse.Namespace) -> None:
    """Repairs a pruned model, writes it and prints what was lost before and after.

    Raises:
        CommandError: a model or the data cannot be read. TypeError, ValueError: as `tf_lap.repair`.
    """
    model, _ = read_model(args)
    dense = None if args.dense is None else read_model(args, args.dense)[0]
    samples = read_typical_inputs(args, model)
    with output.progress() as verbose:
        report = repair(model, samples, True if args.method is None else args.method, dense=dense, verbose=verbose)
    line, written = write_model(model, args.output)
    output.show(
        args,
        f"{output.render(args, report)}\n{line}",
        {"model": str(args.model), **written, "report": report.to_dict()},
    )
