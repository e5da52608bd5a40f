"""What a command stops for."""

from __future__ import annotations


class CommandError(Exception):
    """A mistake of the user's, or something missing on the machine, with what to do about it."""
