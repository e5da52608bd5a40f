"""`tf-lap prune`."""

from __future__ import annotations

import argparse

from tf_lap import scores
from tf_lap.cli import output
from tf_lap.cli.choices import read_choices, read_sparsity, read_typical_inputs
from tf_lap.cli.model_input import read_model, write_model
from tf_lap.plotting import plot_sparsity
from tf_lap.pruning.one_shot import prune_with
from tf_lap.pruning.pruner import Pruner


def run(args: argparse.Namespace) -> None:
    """Prunes a model, writes it and prints the report.

    Raises:
        CommandError: the model or the data cannot be read. TypeError, ValueError: as `tf_lap.prune`.
    """
    model, _ = read_model(args)
    data = read_typical_inputs(args, model)
    scored_data = data if scores.get(args.score).needs_data or not args.repair else None
    with output.progress() as verbose:
        pruner = Pruner(model, order=args.order, data=scored_data, **read_choices(args))
        budget = dict(args.budget) if args.budget else None
        report = prune_with(pruner, read_sparsity(args), budget, args.steps, args.repair, data, verbose)
    line, written = write_model(model, args.output)
    lines = [output.render(args, report), line]
    if args.plot is not None:
        lines.append(output.draw(args, plot_sparsity(report)))
    output.show(args, "\n".join(lines), {"model": str(args.model), **written, "report": report.to_dict()})
