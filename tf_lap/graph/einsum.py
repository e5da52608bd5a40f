"""Equations of `einsum`: which axes of the operands and of the output belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Equation(NamedTuple):
    """What each axis is called. Axes with one label belong together.

    Attributes:
        operands: for each operand the labels of its axes.
        output: the labels of the output's axes.
    """

    operands: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]


def read_equation(equation: str, ranks: Sequence[int]) -> Equation:
    """Reads an equation such as "abc,cd->abd". An ellipsis stands for the axes that no letter names.

    Args:
        equation: the equation, with or without an output.
        ranks: how many axes each operand has.

    Raises:
        ValueError: it cannot be read, or names other operands, or an axis twice in one of them.
    """
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    operands = tuple(
        _read_labels(part, rank, equation)
        for part, rank in zip(_split_operands(inputs, ranks, equation), ranks, strict=True)
    )
    if not arrow:
        result = "..." + "".join(letter for letter in sorted(set(inputs) - set(",.")) if inputs.count(letter) == 1)
    else:
        _check_output(result, operands, equation)
    widest = max((label for labels in operands for label in labels if label.startswith("...")), default="", key=_place)
    return Equation(operands, _expand(result, _place(widest) + 1 if widest else 0))


def _split_operands(inputs: str, ranks: Sequence[int], equation: str) -> list[str]:
    parts = inputs.split(",")
    if len(parts) != len(ranks):
        raise ValueError(f"the equation {equation!r} names {len(parts)} operands, and there are {len(ranks)}")
    return parts


def _check_output(result: str, operands: Sequence[Sequence[str]], equation: str) -> None:
    letters = result.replace("...", "", 1)
    labels_read = {label for labels in operands for label in labels}
    if len(set(letters)) < len(letters) or not labels_read.issuperset(letters):
        raise ValueError(f"the equation {equation!r} puts out {result!r}, expected axes of the operands, each once")


def _read_labels(part: str, rank: int, equation: str) -> tuple[str, ...]:
    letters = part.replace("...", "", 1)
    if letters and not letters.isalpha():
        raise ValueError(
            f"the equation {equation!r} has {part!r}, expected a letter for each axis and at most one '...'"
        )
    if len(set(letters)) < len(letters):
        raise ValueError(f"the equation {equation!r} names an axis of {part!r} twice, which takes a diagonal")
    hidden = rank - len(letters)
    if hidden < 0 or (hidden and "..." not in part):
        raise ValueError(f"the equation {equation!r} names {len(letters)} axes in {part!r}, and there are {rank}")
    return _expand(part, hidden)


def _expand(part: str, hidden: int) -> tuple[str, ...]:
    """The labels of an operand, where an ellipsis stands for `hidden` axes, numbered from the last."""
    before, ellipsis, after = part.partition("...")
    places = [f"...{place}" for place in range(hidden - 1, -1, -1)] if ellipsis else []
    return (*before, *places, *after)


def _place(label: str) -> int:
    """The number of an axis that an ellipsis stands for, counted from the last."""
    return int(label.removeprefix("..."))
