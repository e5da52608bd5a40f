"""Running a TFLite file: in the LiteRT interpreter, or in TensorFlow's where that is not installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap.compat import exporting
from tf_lap.compat.exporting import SIGNATURE, Input

# A single call of a small model is too short to time.
_SHORTEST = 5e-3


class Runtime(NamedTuple):
    """An interpreter of TFLite files.

    Attributes:
        name: its package and version.
        interpreter: its class.
    """

    name: str
    interpreter: type

    def load(self, file: bytes, threads: int | None = None) -> Any:
        """An interpreter of a file.

        Raises:
            RuntimeError, ValueError: it cannot run the file.
        """
        with exporting.expected_warnings():
            return self.interpreter(model_content=file, num_threads=threads)


class Timing(NamedTuple):
    """Milliseconds of one call.

    Attributes:
        median: of all rounds.
        least: of the fastest round.
        most: of the slowest one.
    """

    median: float
    least: float
    most: float


def installed() -> Runtime:
    """LiteRT where it is installed, else TensorFlow's own interpreter."""
    try:
        litert = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        return Runtime(f"tf.lite.Interpreter of tensorflow {tf.__version__}", tf.lite.Interpreter)
    return Runtime(f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}", litert.Interpreter)


def inputs(interpreter: Any) -> list[Input]:
    """The inputs of a file, in an order that does not depend on it."""
    details = interpreter.get_signature_runner(SIGNATURE).get_input_details()
    return [
        Input(
            name,
            name,
            tuple(int(extent) if extent > 0 else None for extent in details[name]["shape_signature"]),
            np.dtype(details[name]["dtype"]),
        )
        for name in sorted(details, key=_natural)
    ]


def run(interpreter: Any, samples: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """What the file answers to each sample, by the outputs' names.

    Raises:
        RuntimeError, ValueError: the interpreter cannot run the file.
    """
    answers = []
    for sample in samples:
        answers.append(_answer(interpreter, sample))
        interpreter.reset_all_variables()  # or a recurrent layer's state would stay from call to call
    return answers


def _answer(interpreter: Any, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # Nothing can be reset while a runner is about: it goes when this returns.
    runner = interpreter.get_signature_runner(SIGNATURE)
    return {name: np.array(value) for name, value in runner(**sample).items()}


def in_turn(interpreters: Sequence[Any], sample: dict[str, np.ndarray], rounds: int) -> list[Timing]:
    """How long a call of each takes, one after another in each round, so that what disturbs one disturbs all."""
    for interpreter in interpreters:
        run(interpreter, [sample])  # sets the inputs' shapes and values
    repeats = [max(1, round(_SHORTEST / _seconds(interpreter, 3))) for interpreter in interpreters]
    milliseconds: list[list[float]] = [[] for _ in interpreters]
    for _ in range(rounds):
        for interpreter, repeat, found in zip(interpreters, repeats, milliseconds, strict=True):
            found.append(1e3 * _seconds(interpreter, repeat))
    return [Timing(statistics.median(found), min(found), max(found)) for found in milliseconds]


def _seconds(interpreter: Any, repeat: int) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        interpreter.invoke()
    return (time.perf_counter() - start) / repeat


def _natural(name: str) -> list[Any]:
    """A key that sorts args_0_2 before args_0_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def by_name(names: Sequence[str], values: Sequence[Any], expected: Sequence[str]) -> dict[str, Any]:
    """Values under the names that the file expects; by their order where the names are others."""
    if set(names) == set(expected):
        return dict(zip(names, values, strict=True))
    return dict(zip(sorted(expected, key=_natural), values, strict=True))
