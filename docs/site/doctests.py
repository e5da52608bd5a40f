"""Examples in docstrings, `>>> ...` up to the next empty line, become blocks of code on the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?m)^( *)>>> (?:.*\n?)(?:(?! *$).*\n?)*")


def fence_examples(text: str) -> str:
    """Puts fences around the examples of a docstring."""
    return _EXAMPLE.sub(lambda match: f"{match[1]}```pycon\n{match[0].rstrip()}\n{match[1]}```\n", text)


class FencedExamples(griffe.Extension):
    """Changes docstrings as they are read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fences the examples of one function, class or module."""
        if obj.docstring:
            obj.docstring.value = fence_examples(obj.docstring.value)
