"""Names in the package say what they hold: none is a pronoun or a participle. Files, also those of tests, are short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tf_lap"
EMPTY_NAMES = {
    "asked",
    "each",
    "few",
    "found",
    "given",
    "here",
    "known",
    "now",
    "own",
    "ours",
    "some",
    "taken",
    "theirs",
    "wanted",
    "whole",
}


def assigned_names(tree):
    """The names of a module's variables, parameters, attributes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_names_say_what_they_hold(path):
    names = set(assigned_names(ast.parse(path.read_text(encoding="utf-8"))))
    assert not {name for name in names if name.strip("_") in EMPTY_NAMES}


@pytest.mark.parametrize("folder", [PACKAGE, Path(__file__).parent], ids=["tf_lap", "tests"])
def test_no_file_is_longer_than_a_reader_wants(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py")}
    assert len(lengths) > 100
    assert not {path.relative_to(folder).as_posix() for path, lines in lengths.items() if lines > 350}
