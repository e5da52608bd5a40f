"""Options that several commands have."""

from __future__ import annotations

from tf_lap.cli import values
from tf_lap.cli.parsing import Parser


def add_model(parser: Parser) -> None:
    """The model that is read."""
    parser.add_argument(
        "model",
        type=values.model_path,
        metavar="MODEL",
        help="a .keras or .h5 file, or the folder of a SavedModel of tf_keras",
    )


def add_output(parser: Parser) -> None:
    """The model that is written."""
    parser.add_argument(
        "-o",
        "--output",
        type=values.model_target,
        required=True,
        metavar="OUT",
        help="the model to write: .keras or .h5; for tf_keras also a name without ending, for a SavedModel. What is "
        "there is replaced whole or not at all",
    )


def add_data(parser: Parser, text: str, required: bool) -> None:
    """Arrays to measure or fit with."""
    parser.add_argument(
        "--data",
        type=values.data_path,
        required=required,
        metavar="X.npz",
        help=f"{text}; arrays x and y, or x_test, y_test and so on, or the model's inputs by name",
    )


def add_choices(parser: Parser) -> None:
    """How a model is pruned."""
    parser.add_argument(
        "--score",
        metavar="NAME",
        default="lookahead",
        help=f"how much a weight matters: {', '.join(values.SCORES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--allocation",
        metavar="NAME",
        default="auto",
        help=f"how many weights each kernel keeps: {', '.join(values.ALLOCATIONS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--pattern",
        type=values.pattern,
        metavar="NAME",
        default="unstructured",
        help="in what shape weights go: unstructured, channels, 2:4, block:1x4 and their like (default: %(default)s)",
    )
    parser.add_argument(
        "--filters",
        type=values.expression,
        action="append",
        metavar="REGEX",
        help="which layers are pruned: a regular expression searched in their paths, once or several times",
    )


def add_all(parser: Parser) -> None:
    """Whole tables."""
    parser.add_argument("--all", action="store_true", help="every row of long tables")


def add_repair(parser: Parser) -> None:
    """What is done to the weights that stay."""
    parser.add_argument(
        "--repair",
        type=values.repair,
        nargs="?",
        const=True,
        metavar="METHODS",
        help="fit the kept weights to what the whole kernels put out: all that is possible, or of "
        f"{','.join(values.REPAIRS)}",
    )


def add_input_shape(parser: Parser, purpose: str) -> None:
    """The size of inputs."""
    parser.add_argument(
        "--input-shape",
        type=values.shape,
        metavar="N,N,N",
        help=f"the input's shape without the batch axis, {purpose}",
    )


def add_plot(parser: Parser, picture: str) -> None:
    """A picture."""
    parser.add_argument(
        "--plot", type=values.picture_target, metavar="FILE.png", help=f"draw {picture} (needs matplotlib)"
    )


def add_common(parser: Parser) -> None:
    """What may be made of a file, and how results are printed."""
    parser.add_argument(
        "--custom",
        type=values.custom,
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="a class or function that is not Keras's own, or a module that registers some; once or several times",
    )
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="run code that is stored in the file (Lambda layers), and import what it names; for files you trust",
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
