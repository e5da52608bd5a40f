"""What the command line says of how to prune, as `tf_lap.prune` takes it."""

from __future__ import annotations

import argparse
from typing import Any

from tf_lap.allocation import Sparsity
from tf_lap.cli.data_files import TO_FIT, read_data
from tf_lap.compat import exporting
from tf_lap.compat.types import Model
from tf_lap.patterns import Channels


def read_sparsity(args: argparse.Namespace) -> Sparsity | None:
    """One fraction of zeros, or fractions by layers; None where the command line has none."""
    if not args.sparsity:
        return None
    (layers, fraction), *_ = args.sparsity
    return fraction if layers is None else dict(args.sparsity)


def read_choices(args: argparse.Namespace) -> dict[str, Any]:
    """Score, allocation, pattern and filters."""
    input_shape = vars(args).get("input_shape") if args.pattern == "channels" else None
    return {
        "score": args.score,
        "allocation": args.allocation,
        "pattern": args.pattern if input_shape is None else Channels(input_shape=input_shape),
        "filters": args.filters,
    }


def read_typical_inputs(args: argparse.Namespace, model: Model) -> Any:
    """The typical inputs of the file that the command line names; None without one.

    Raises:
        CommandError: the file cannot be read, or does not fit the model.
    """
    if args.data is None:
        return None
    columns = read_data(args.data, exporting.inputs(model), TO_FIT).columns
    return columns if len(columns) > 1 else columns[0]
