"""The `tf-lap` command.

TensorFlow takes seconds to import. So the command line is read, and mistakes in it are found, before that.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType

from tf_lap import __version__
from tf_lap.cli import experiment_parsers, model_parsers, output
from tf_lap.cli.errors import CommandError
from tf_lap.cli.parsing import Parser

FAILED, MISUSE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments behind the command's name; those of the process by default.

    Returns:
        The exit code: 0, 1 where something failed, 2 after a mistake of the user's, or 130 after Ctrl-C.

    Raises:
        SystemExit: `--help` and `--version`, with code 0, and arguments that cannot be read, with code 2.
    """
    parser, commands = _make_parser()
    args = parser.parse_args(argv)
    model_parsers.check(commands.choices[args.command], args)
    try:
        _run(args)
    except KeyboardInterrupt:
        print("\ntf-lap: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        code, message = _describe(error)
        print(f"tf-lap {args.command}: {message}", file=sys.stderr)
        return code
    return 0


def _make_parser() -> tuple[Parser, argparse._SubParsersAction[Parser]]:
    parser = Parser(
        prog="tf-lap",
        description="Lookahead pruning of Keras models.",
        epilog="example:\n  tf-lap prune model.keras -o sparse.keras --sparsity 0.9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tf_lap {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        model_parsers.add_inspect,
        model_parsers.add_prune,
        model_parsers.add_report,
        model_parsers.add_shrink,
        model_parsers.add_repair,
        model_parsers.add_export,
        model_parsers.add_compare,
        model_parsers.add_sweep,
        experiment_parsers.add_demo,
        experiment_parsers.add_reproduce,
    ):
        add(commands)
    return parser, commands


def _run(args: argparse.Namespace) -> None:
    # The command needs TensorFlow, whichever backend the user has set for Keras.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _quiet_tensorflow():
        module = importlib.import_module(f"tf_lap.cli.{args.module}")
    with output.plain_warnings(args):
        module.run(args)


def _describe(error: Exception) -> tuple[int, str]:
    """The exit code and the line for an error.

    Mistakes are what commands say are such, and what the package's own checks refuse. Anything else has failed.
    """
    text = " ".join(str(error).split())
    if isinstance(error, CommandError):
        return MISUSE, text
    if isinstance(error, OSError) and error.strerror:
        return FAILED, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if _is_own(error.__traceback__) and isinstance(error, (TypeError, ValueError)):
        return MISUSE, text
    if _is_own(error.__traceback__) and text:
        return FAILED, text
    return FAILED, f"{type(error).__name__}: {text} (--debug shows where)"


def _is_own(at: TracebackType | None) -> bool:
    """Whether the code that raised is of this package."""
    name = ""
    while at is not None:
        name, at = at.tb_frame.f_globals.get("__name__", ""), at.tb_next
    return name.partition(".")[0] == "tf_lap"


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
