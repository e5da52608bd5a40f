"""The command lines of what is done to a model."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from tf_lap.cli import options, values
from tf_lap.cli.parsing import add_command


def add_inspect(commands: Any) -> None:
    """Adds `inspect`."""
    parser = add_command(
        commands,
        "inspect",
        "inspecting",
        "what a model is to the pruner: kernels, neighbours, channels, cost",
        "Shows which kernels would be pruned and which not, and why; what lies before and behind each; which channels "
        "go together; and what the model costs. The model is not changed.",
        "tf-lap inspect model.keras",
        "tf-lap inspect model.keras --sparsity 0.9 --plot graph.png",
    )
    options.add_model(parser)
    parser.add_argument(
        "--sparsity",
        type=values.sparsity,
        action="append",
        metavar="[LAYERS=]S",
        help="also show how many weights each kernel would keep at this fraction of zeros",
    )
    options.add_choices(parser)
    options.add_input_shape(parser, "for the cost of a model with open axes")
    options.add_all(parser)
    options.add_plot(parser, "the graph of kernels as the pruner sees it")
    options.add_common(parser)


def add_prune(commands: Any) -> None:
    """Adds `prune`."""
    parser = add_command(
        commands,
        "prune",
        "pruning",
        "prune a model once, without training",
        "Prunes a model and writes it as a plain Keras model. A .keras file is the same for all backends of Keras: it "
        "may have been trained with JAX or torch, and goes on there. Fine-tune it afterwards; with TensorFlow, "
        "tf_lap.PreserveSparsity() keeps the zeros.",
        "tf-lap prune model.keras -o sparse.keras --sparsity 0.9",
        "tf-lap prune model.keras -o sparse.keras --sparsity 'conv.*=0.8' --sparsity dense=0.95",
        "tf-lap prune model.keras -o sparse.keras --sparsity 0.8 --score obs_lookahead --repair --data x.npz",
        "tf-lap prune model.keras -o narrow.keras --pattern channels --budget macs=0.5",
    )
    options.add_model(parser)
    options.add_output(parser)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument(
        "--sparsity",
        type=values.sparsity,
        action="append",
        metavar="[LAYERS=]S",
        help="the fraction of zeros, such as 0.9; or, once or several times, a layer's path or a regular expression "
        "and its fraction, such as 'conv.*=0.8'",
    )
    amount.add_argument(
        "--budget",
        type=values.budget,
        action="append",
        metavar="NAME=X",
        help="with --pattern channels, what the model may cost: macs, weights or bytes, as a fraction of the present "
        "cost or a number",
    )
    options.add_choices(parser)
    options.add_input_shape(parser, "for --pattern channels of a model with open axes")
    parser.add_argument(
        "--order",
        choices=values.ORDERS,
        default="simultaneous",
        help="whether kernels are pruned all at once or one after another (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=values.count,
        default=1,
        metavar="N",
        help="in how many parts, each with new scores (default: 1)",
    )
    options.add_repair(parser)
    options.add_data(parser, "typical inputs, for scores that need them and for --repair", required=False)
    options.add_all(parser)
    options.add_plot(parser, "the sparsity of each layer")
    options.add_common(parser)


def add_report(commands: Any) -> None:
    """Adds `report`."""
    parser = add_command(
        commands,
        "report",
        "reporting",
        "how sparse a model is, layer by layer",
        "Counts the zeros of a model, whoever pruned it, and the zeros of all its weights.",
        "tf-lap report sparse.keras --plot sparsity.png",
    )
    options.add_model(parser)
    options.add_all(parser)
    options.add_plot(parser, "the sparsity of each layer")
    options.add_common(parser)


def add_shrink(commands: Any) -> None:
    """Adds `shrink`."""
    parser = add_command(
        commands,
        "shrink",
        "shrinking",
        "leave out the channels that compute nothing",
        "Writes a smaller model that computes the same: without channels that nothing reads, or that are constant. "
        "Prune with --pattern channels first, or very sparsely.",
        "tf-lap shrink sparse.keras -o small.keras",
    )
    options.add_model(parser)
    options.add_output(parser)
    parser.add_argument(
        "--functional",
        action="store_true",
        help="accept a subclassed model; what is written is the Functional model of its call",
    )
    options.add_data(parser, "inputs for the comparison of both models (default: random ones)", required=False)
    options.add_all(parser)
    options.add_common(parser)


def add_repair(commands: Any) -> None:
    """Adds `repair`."""
    parser = add_command(
        commands,
        "repair",
        "repairing",
        "fit what is left of a pruned model to what it was",
        "Changes the weights that are left of a pruned model so that its layers put out what those of the dense model "
        "do. Zeros stay zeros. Labels are not needed.",
        "tf-lap repair sparse.keras --dense model.keras --data x.npz -o repaired.keras",
    )
    options.add_model(parser)
    options.add_output(parser)
    parser.add_argument(
        "--dense", type=values.model_path, metavar="MODEL", help="the model as it was before it was pruned"
    )
    parser.add_argument(
        "--method",
        type=values.repair,
        metavar="METHODS",
        help=f"of {','.join(values.REPAIRS)} (default: all that data and dense model allow)",
    )
    options.add_data(parser, "typical inputs, a few hundred of them", required=False)
    options.add_all(parser)
    options.add_common(parser)


def add_export(commands: Any) -> None:
    """Adds `export`."""
    parser = add_command(
        commands,
        "export",
        "exporting",
        "write a TFLite file, and check it against the model",
        "Writes a TFLite file, stores tensors without their zeros where that pays, and runs it beside the model before "
        "it is kept.",
        "tf-lap export sparse.keras -o sparse.tflite",
        "tf-lap export sparse.keras -o sparse.tflite --quantization int8 --data x.npz",
    )
    options.add_model(parser)
    parser.add_argument(
        "-o", "--output", type=values.tflite_target, required=True, metavar="FILE.tflite", help="the file to write"
    )
    parser.add_argument("--quantization", choices=values.QUANTIZATIONS, help="(default: float32)")
    parser.add_argument(
        "--sparse",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether tensors are stored without zeros; auto: where the file is smaller, right and not slower "
        "(default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=values.count, metavar="N", help="the batch of the file (default: open)")
    options.add_data(parser, "typical inputs, which int8 needs", required=False)
    options.add_common(parser)


def add_compare(commands: Any) -> None:
    """Adds `compare`."""
    parser = add_command(
        commands,
        "compare",
        "comparing",
        "two models side by side: accuracy, bytes, latency",
        "Shows what two models get right, how large they are and how long a call takes. Each is a Keras model or a "
        "TFLite file. Without labels in the data, it says how often both answer alike.",
        "tf-lap compare model.keras sparse.keras --data test.npz",
        "tf-lap compare model.keras sparse.tflite --data test.npz",
    )
    parser.add_argument("model", type=values.model_path, metavar="A", help="a model, or a .tflite file")
    parser.add_argument("other", type=values.model_path, metavar="B", help="another one")
    options.add_data(parser, "x and y to measure with", required=True)
    parser.add_argument("--no-latency", action="store_true", help="do not measure how long a call takes")
    options.add_common(parser)


def add_sweep(commands: Any) -> None:
    """Adds `sweep`."""
    parser = add_command(
        commands,
        "sweep",
        "sweeping",
        "how much sparsity each layer bears, and the whole model",
        "Prunes each layer by itself and all together at several sparsities, and measures each time. With --max-drop "
        "it also looks for the sparsest model that is worse by no more than that. The model is not changed.",
        "tf-lap sweep model.keras --data val.npz --plot layers.png",
        "tf-lap sweep model.keras --data val.npz --max-drop 0.01 --record sweep.json",
        "tf-lap sweep model.keras --data val.npz --max-drop 0.01 --score obs_lookahead --repair",
    )
    options.add_model(parser)
    options.add_data(parser, "x and y to measure with; without y, how often answers stay as they were", required=True)
    parser.add_argument(
        "--sparsities",
        type=values.fraction,
        nargs="+",
        metavar="S",
        help="where to measure (default: 0.5 0.7 0.8 0.9 0.95)",
    )
    parser.add_argument(
        "--max-drop",
        type=values.drop,
        metavar="D",
        help="find the sparsest model whose value is worse by no more than this, such as 0.01",
    )
    options.add_choices(parser)
    options.add_repair(parser)
    parser.add_argument(
        "--record",
        type=values.record_target,
        metavar="FILE.json",
        help="keep each measurement, so that the same command goes on where it was stopped",
    )
    options.add_all(parser)
    options.add_plot(parser, "values against sparsity; with --max-drop a second file, with _search behind its name,")
    options.add_common(parser)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses combinations of options that cannot be, before anything heavy is imported.

    Raises:
        SystemExit: with code 2.
    """
    if not vars(args).get("custom"):  # a module of the user's may register others
        for option, accepted in (("score", values.SCORES), ("allocation", values.ALLOCATIONS)):
            name = vars(args).get(option)
            if name is not None and name not in accepted:
                parser.error(f"--{option} {name!r} is not known: use one of {', '.join(accepted)}")
    if vars(args).get("plot") and importlib.util.find_spec("matplotlib") is None:
        parser.error('--plot needs matplotlib: pip install "tf_lap[plot]"')
    sparsity = vars(args).get("sparsity") or []
    if len(sparsity) > 1 and any(layers is None for layers, _ in sparsity):
        parser.error(
            "--sparsity: pass one fraction for all layers, or LAYERS=FRACTION for each; '.*=0.9' is all layers"
        )
    if vars(args).get("budget") and args.pattern != "channels":
        parser.error("--budget is reached by whole channels: add --pattern channels")
    if args.command == "prune" and args.input_shape is not None and args.pattern != "channels":
        parser.error("--input-shape is of use with --pattern channels alone")
    if args.command == "repair" and args.dense is None and args.data is None:
        parser.error("--dense and --data: pass one of them or both")
    if args.command == "export" and args.quantization == "int8" and args.data is None:
        parser.error("--quantization int8 is calibrated with typical inputs: add --data X.npz")
