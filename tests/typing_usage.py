"""The public API as README and guide use it: mypy reads this file, and `tests/test_typing_usage.py` runs it."""
