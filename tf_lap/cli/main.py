"""The `tf-lap` command.

TensorFlow takes seconds to import. So only the functions that compute import it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_lap import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments behind the command's name; those of the process by default.

    Returns:
        The exit code: 0, 2 after a mistake of the user's, or 130 after Ctrl-C.

    Raises:
        SystemExit: `--help` and `--version`, with code 0, and arguments that cannot be read, with code 2.
    """
    args = _make_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\ntf-lap: interrupted", file=sys.stderr)
        return 130


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tf-lap", description="Lookahead pruning of Keras models.")
    parser.add_argument("--version", action="version", version=f"tf_lap {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_reproduce(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="prune a small network by magnitude and by lookahead, and compare",
        description="Trains a five-layer perceptron, prunes the same trained weights to several high sparsities by "
        "magnitude and by lookahead, retrains each with the same budget, and compares their test errors.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.set_defaults(run=_run_demo)
    demo.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="an npz file laid out as that of keras.datasets.mnist (default: scikit-learn's digits)",
    )
    demo.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("lap_demo"),
        help="where to write the sparse model, the chart and the results; files of an earlier run are overwritten",
    )
    demo.add_argument("--seeds", type=_parse_count, metavar="N", default=3, help="how many networks to train")
    demo.add_argument(
        "--steps",
        type=_parse_count,
        metavar="N",
        default=1500,
        help="training steps before pruning, and again after it",
    )


def _add_reproduce(commands: Any) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="run an experiment of the paper",
        description="Trains a network of Park et al. (ICLR 2020), prunes it by several methods, retrains each as long "
        "as the authors do, and compares. A command that was stopped goes on where it was when it is run again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    reproduce.set_defaults(run=_run_reproduce)
    _add_experiment_options(reproduce)
    _add_training_options(reproduce)


def _add_experiment_options(reproduce: argparse.ArgumentParser) -> None:
    """The data, the network, and where results are written."""
    reproduce.add_argument("experiment", choices=("mnist", "cifar10"), help="the data")
    reproduce.add_argument(
        "--network",
        choices=("conv6", "vgg11", "vgg16", "vgg19", "resnet18"),
        default="conv6",
        help="the network for cifar10; mnist has the five-layer perceptron",
    )
    reproduce.add_argument("--width", type=_parse_width, default=1.0, help="scales the channels of cifar10's network")
    reproduce.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="an npz file laid out as that of keras.datasets.mnist or cifar10 (default: downloaded)",
    )
    reproduce.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="where to write the cells, results and the chart (default: lap_reproduce_ and the experiment)",
    )


def _add_training_options(reproduce: argparse.ArgumentParser) -> None:
    """Which networks are trained, and how they are pruned."""
    reproduce.add_argument(
        "--seeds", type=_parse_seed, nargs="+", metavar="N", default=[0], help="one network for each"
    )
    reproduce.add_argument(
        "--rounds",
        type=_parse_count,
        nargs="+",
        metavar="T",
        default=argparse.SUPPRESS,
        help="how far to prune: a layer keeps (1 - rate)^T of its weights (default: 4 to 10; cifar10: 10 to 24 by 2)",
    )
    reproduce.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        default=["magnitude", "lookahead"],
        help="scores by name, or forward or backward: lookahead in that order",
    )
    reproduce.add_argument(
        "--steps",
        type=_parse_count,
        metavar="N",
        default=argparse.SUPPRESS,
        help="training steps before pruning, those after it in proportion (default: the paper's)",
    )


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _parse_seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _parse_width(text: str) -> float:
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 0 < width < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return width


def _run_demo(args: argparse.Namespace) -> int:
    # The command needs TensorFlow, whichever backend the user has set for Keras.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _quiet_tensorflow():
        from tf_lap.cli import demo
        from tf_lap.reproduce.datasets import CommandError
    try:
        demo.run(getattr(args, "data", None), args.output, args.seeds, args.steps)
    except CommandError as error:
        print(f"tf-lap demo: {error}", file=sys.stderr)
        return 2
    return 0


def _run_reproduce(args: argparse.Namespace) -> int:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _quiet_tensorflow():
        from tf_lap.reproduce import reproduce
        from tf_lap.reproduce.datasets import CommandError
    options = vars(args)  # those without a default only where they were used
    try:
        reproduce(
            args.experiment,
            network=args.network,
            width=args.width,
            data=options.get("data"),
            output=options.get("output"),
            seeds=args.seeds,
            rounds=options.get("rounds"),
            methods=args.methods,
            steps=options.get("steps"),
        )
    except CommandError as error:
        print(f"tf-lap reproduce: {error}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's start-up messages off standard error, unless the user set a log level or the import fails."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # at 2 a machine without a GPU reports an error
    # The level does not reach the messages that TensorFlow's libraries write straight to the file while they load.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except Exception:
            messages.seek(0)
            with os.fdopen(os.dup(stderr), "wb") as out:
                shutil.copyfileobj(messages, out)
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


if __name__ == "__main__":
    sys.exit(main())
