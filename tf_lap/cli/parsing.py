"""Parsers of the commands: one form of help, and errors of one line."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and leaves with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_command(commands: Any, name: str, module: str, summary: str, description: str, *examples: str) -> Parser:
    """Adds a command.

    Args:
        commands: what `add_subparsers` returns.
        name: the command.
        module: the module of this room whose `run` does it.
        summary: a line for the list of commands.
        description: what it does.
        examples: command lines.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 80),
        epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=module)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
