"""The reason in an error of TensorFlow's converter or of a model's code, in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MAX_LENGTH = 600


def explain(error: Exception, readers: Mapping[str, str] | None = None) -> str:
    """The reason that an error gives, without the dump of the model and the stack that its text also holds.

    Args:
        error: raised by the converter, or by the model's own code.
        readers: paths of layers by the operations that read their weights, to name the layer at fault.

    Returns:
        One line of text; the name of the error's class where it has no text.
    """
    text = _COLOURS.sub("", str(error))
    if not text.strip():
        return type(error).__name__
    first = _DIAGNOSTIC.search(text)
    return _strip_stack(text) if first is None else _read_diagnostic(first, text, readers or {})


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# MLIR writes the place in a file, "error:", and the message. Where it knows the place in the model, a `loc(...)` stands
# before the message.
_DIAGNOSTIC = re.compile(r":\d+(?::\d+)?: error: (.*)")
_OPERATION = re.compile(r'fused\["(\w+):", "([^"@]+)')
OPS_LIST = " ops: "
"""The text before the list of operations that TFLite lacks."""
_LISTS = re.compile(rf"^(?:Custom|TF Select|Flex){OPS_LIST}.*$", re.MULTILINE)


def _read_diagnostic(first: re.Match[str], text: str, readers: Mapping[str, str]) -> str:
    """The converter's reason. Its first error is the cause, the others follow from it.

    Args:
        first: the match of the first error.
        text: the whole text.
        readers: as in `explain`.
    """
    location, message = _split_location(first[1])
    match = _OPERATION.search(location)
    if match is not None:
        kind, operation = match.groups()
        layer = readers.get(operation)
        message = f"{kind} in {operation if layer is None else f'layer {layer!r}'}: {message}"
    return "; ".join([message[:_MAX_LENGTH], *dict.fromkeys(_LISTS.findall(text))])


def _split_location(diagnostic: str) -> tuple[str, str]:
    """The `loc(...)` at the beginning, whose parentheses may be nested, and the message behind it."""
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


def _strip_stack(text: str) -> str:
    """The message of a Python error, in one line, without the stack and the arguments that Keras adds."""
    text = _ARGUMENTS.sub("", _STACK.sub("", text.replace("in user code:", "", 1)))
    return " ".join(text.split())[:_MAX_LENGTH]
