"""What options of the command line take, read and checked before anything heavy is imported."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

SCORES = (
    "lookahead",
    "magnitude",
    "random",
    "wanda",
    "lookahead_wanda",
    "obs",
    "obs_lookahead",
    "obd",
    "obd_lookahead",
    "lookahead_activation",
)
ALLOCATIONS = ("auto", "uniform", "global", "erk", "lamp")
PATTERNS = ("unstructured", "channels")
PATTERN_FORMS = (r"\d+:\d+", r"block:\d+x\d+")
ORDERS = ("simultaneous", "forward", "backward")
REPAIRS = ("weights", "bias", "batchnorm")
QUANTIZATIONS = ("dynamic_range", "float16", "int8")
BUDGETS = ("macs", "weights", "bytes")
MODEL_ENDINGS = (".keras", ".h5", ".hdf5")
PICTURE_ENDINGS = (".png", ".svg", ".pdf", ".jpg")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def factor(text: str) -> float:
    """A number above 0."""
    number = _number(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def drop(text: str) -> float:
    """A number of at least 0."""
    number = _number(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0, such as 0.01")
    return number


def fraction(text: str) -> float:
    """A fraction of zeros."""
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction of zeros in [0, 1), such as 0.9")
    return number


def _number(text: str) -> float:
    """A number; one that no test of a range accepts where the text is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def sparsity(text: str) -> tuple[str | None, float]:
    """A fraction of zeros for all layers, or `LAYERS=FRACTION` with a path or a regular expression."""
    layers, separator, number = text.rpartition("=")
    if separator:
        _check_expression(layers)
    return (layers if separator else None), fraction(number)


def budget(text: str) -> tuple[str, float]:
    """`macs=0.5` and its like."""
    name, _, number = text.partition("=")
    if name not in BUDGETS or not 0 < _number(number) < float("inf"):
        names = ", ".join(BUDGETS)
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER with a name of {names}, such as macs=0.5")
    return name, _number(number)


def expression(text: str) -> str:
    """A regular expression of layer paths."""
    _check_expression(text)
    return text


def _check_expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression ({error})") from error


def pattern(text: str) -> str:
    """The name of a pattern, or one of the forms N:M and block:OxI."""
    if text not in PATTERNS and not any(re.fullmatch(form, text) for form in PATTERN_FORMS):
        raise argparse.ArgumentTypeError(f"{text!r} is not known: use {', '.join(PATTERNS)}, 2:4 or block:1x4")
    return text


def repair(text: str) -> list[str]:
    """Methods of repair, with commas between them."""
    methods = text.split(",")
    if not set(methods) <= set(REPAIRS):
        raise argparse.ArgumentTypeError(f"{text!r} is not known: use one or several of {','.join(REPAIRS)}")
    return methods


def shape(text: str) -> tuple[int, ...]:
    """The shape of an input without the batch axis, as `224,224,3`."""
    sizes = text.split(",")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape, such as 224,224,3 (without the batch axis)")
    return tuple(map(int, sizes))


def custom(text: str) -> tuple[str, str]:
    """`module:Class`, or a module that registers its classes."""
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *filter(None, [name]))):
        raise argparse.ArgumentTypeError(f"{text!r} is not module:Class, such as my_layers:Gate")
    return module, name


def model_path(text: str) -> Path:
    """A model that is there."""
    return _existing(text)


def data_path(text: str) -> Path:
    """A file of arrays that is there."""
    path = _existing(text)
    if path.suffix != ".npz":
        raise argparse.ArgumentTypeError(
            f"{text}: expected an npz file, as numpy.savez('data.npz', x=x, y=y) writes it"
        )
    return path


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return path


def model_target(text: str) -> Path:
    """Where a model is written."""
    return _target(text, (*MODEL_ENDINGS, ""))


def tflite_target(text: str) -> Path:
    """Where a TFLite file is written."""
    return _target(text, (".tflite",))


def picture_target(text: str) -> Path:
    """Where a picture is written."""
    return _target(text, PICTURE_ENDINGS)


def record_target(text: str) -> Path:
    """Where values are kept, so that a search goes on."""
    return _target(text, (".json",))


def _target(text: str, endings: tuple[str, ...]) -> Path:
    path = Path(text)
    if path.suffix not in endings:
        accepted = ", ".join(filter(None, endings))
        raise argparse.ArgumentTypeError(f"{text}: its name ends in {path.suffix or 'nothing'}; expected {accepted}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}")
    return path
