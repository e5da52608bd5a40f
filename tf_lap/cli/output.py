"""What commands print: results on standard output; warnings, and progress on a terminal, on standard error."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tf_lap.files import replaced
from tf_lap.warn import PruningWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def plain_warnings(args: argparse.Namespace) -> Iterator[None]:
    """Shows warnings of this package in a line each, and none of the libraries, unless `--debug` is on."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if args.debug or issubclass(category, PruningWarning):
            print(f"tf-lap {args.command}: warning: {' '.join(str(message).split())}", file=sys.stderr)

    absl = logging.getLogger("absl")
    level = absl.level
    with warnings.catch_warnings():
        warnings.simplefilter("always", PruningWarning)
        warnings.showwarning = show
        if not args.debug:
            absl.setLevel(logging.ERROR)
        try:
            yield
        finally:
            absl.setLevel(level)


@contextlib.contextmanager
def progress() -> Iterator[int]:
    """Gives `verbose`, and sends what is printed meanwhile to standard error: 1 on a terminal, else 0."""
    if not sys.stderr.isatty():
        yield 0
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield 1


class Report(Protocol):
    """What a function of the package reports."""

    def render(self, *, all: bool = False) -> str:
        """The report as text, with all rows of long tables or the first."""


def render(args: argparse.Namespace, report: Report) -> str:
    """A report as text. Where it says how to see more, it names the option in place of the argument."""
    text = report.render(all=args.all)
    return text.replace("render(all=True)", "--all").replace("render(width=...)", "a wider terminal")


def show(args: argparse.Namespace, text: str, data: Mapping[str, Any]) -> None:
    """Prints a result, as text or as JSON."""
    print(json.dumps(data, indent=2) if args.json else text)


def draw(args: argparse.Namespace, figure: Figure, path: Path | None = None) -> str:
    """Writes a picture, and returns a line about it."""
    target = args.plot if path is None else path
    with replaced(target) as file:
        figure.savefig(file, dpi=150, format=target.suffix[1:])
    return f"picture: {target}"
