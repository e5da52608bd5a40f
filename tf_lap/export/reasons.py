"""What an error on the way to a TFLite file says, in a few words."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LONGEST = 600


def explain(error: Exception, readers: Mapping[str, str] | None = None) -> str:
    """The reason that an error gives, without the model's whole text or the way through Keras that it shows too.

    Args:
        error: of the converter, or of the model's own code.
        readers: paths of layers by the operations that read their weights, to name the layer at fault.
    """
    text = _COLOURS.sub("", str(error))
    if not text.strip():
        return type(error).__name__
    first = _DIAGNOSTIC.search(text)
    return _spoken(text) if first is None else _diagnosed(first, text, readers or {})


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# As MLIR writes them: the place in a file, "error:", and what is wrong; where a place in the model is known, it is a
# `loc(...)` before what is wrong.
_DIAGNOSTIC = re.compile(r":\d+(?::\d+)?: error: (.*)")
_NAMED = re.compile(r'fused\["(\w+):", "([^"@]+)')
LISTED = " ops: "
"""What stands before the operations that TFLite lacks."""
_LISTED = re.compile(rf"^(?:Custom|TF Select|Flex){LISTED}.*$", re.MULTILINE)


def _diagnosed(first: re.Match[str], text: str, readers: Mapping[str, str]) -> str:
    """What the converter says. Its first error is the cause, the others follow from it."""
    place, said = _split(first[1])
    named = _NAMED.search(place)
    if named is not None:
        kind, operation = named.groups()
        layer = readers.get(operation)
        said = f"{kind} in {operation if layer is None else f'layer {layer!r}'}: {said}"
    return "; ".join([said[:_LONGEST], *dict.fromkeys(_LISTED.findall(text))])


def _split(diagnostic: str) -> tuple[str, str]:
    """A place in the model, whose parentheses may be nested, and what is said of it."""
    if not diagnostic.startswith("loc("):
        return "", diagnostic
    depth = 0
    for i, character in enumerate(diagnostic):
        depth += (character == "(") - (character == ")")
        if character == ")" and not depth:
            return diagnostic[: i + 1], diagnostic[i + 1 :].removeprefix(":").strip()
    return "", diagnostic


# A stack that AutoGraph wrote into the text: each place, and the line of code there.
_STACK = re.compile(r'^( *)File ".*", line \d+, in .*\n(?:\1    .*\n)?', re.MULTILINE)
_ARGUMENTS = re.compile(r"^(?:Call arguments|Arguments) received by .*", re.MULTILINE | re.DOTALL)


def _spoken(text: str) -> str:
    """What Python code says, in one line, without the stack and the arguments that Keras adds."""
    text = _ARGUMENTS.sub("", _STACK.sub("", text.replace("in user code:", "", 1)))
    return " ".join(text.split())[:_LONGEST]
