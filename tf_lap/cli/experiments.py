"""`tf-lap demo` and `tf-lap reproduce`."""

from __future__ import annotations

import argparse

from tf_lap.cli import demo
from tf_lap.reproduce import reproduce


def run(args: argparse.Namespace) -> None:
    """Runs the experiment that the command line names.

    Raises:
        CommandError: a package, a file or the data is missing, or not as it should be.
    """
    if args.command == "demo":
        demo.run(args.data, args.output, args.seeds, args.steps)
        return
    reproduce(
        args.experiment,
        network=args.network,
        width=args.width,
        data=args.data,
        output=args.output,
        seeds=args.seeds,
        rounds=args.rounds,
        methods=args.methods,
        steps=args.steps,
    )
