"""`tf-lap export`."""

from __future__ import annotations

import argparse
import sys

from tf_lap.cli import output
from tf_lap.cli.choices import read_typical_inputs
from tf_lap.cli.model_input import read_model
from tf_lap.export import export_tflite


def run(args: argparse.Namespace) -> None:
    """Writes a TFLite file and prints what is in it.

    Raises:
        CommandError: the model or the data cannot be read. TypeError, ValueError, ExportError: as
            `tf_lap.export_tflite`.
    """
    model, _ = read_model(args)
    report = export_tflite(
        model,
        args.output,
        quantization=args.quantization,
        representative_dataset=read_typical_inputs(args, model),
        sparse="auto" if args.sparse == "auto" else args.sparse == "yes",
        batch_size=args.batch_size,
        verbose=sys.stderr.isatty(),
    )
    output.show(args, str(report), {"model": str(args.model), **report.to_dict()})
