"""For tools that look for this file. What there is to say is in pyproject.toml."""

from setuptools import setup

setup()
