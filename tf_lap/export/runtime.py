"""Running a TFLite file: in the LiteRT interpreter, or in TensorFlow's where that is not installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap.compat import exporting
from tf_lap.compat.exporting import SIGNATURE, Input

_MIN_SECONDS = 5e-3  # in one measurement: calls of a small model are timed several together


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


def find_runtime() -> Runtime:
    """LiteRT where it is installed, else TensorFlow's own interpreter."""
    try:
        litert = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        return Runtime(f"tf.lite.Interpreter of tensorflow {tf.__version__}", tf.lite.Interpreter)
    return Runtime(f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}", litert.Interpreter)


def read_inputs(interpreter: Any) -> list[Input]:
    """The inputs of a file, sorted by name."""
    details = interpreter.get_signature_runner(SIGNATURE).get_input_details()
    return [
        Input(
            name,
            name,
            tuple(int(extent) if extent > 0 else None for extent in details[name]["shape_signature"]),
            np.dtype(details[name]["dtype"]),
        )
        for name in sorted(details, key=_natural_key)
    ]


def run(interpreter: Any, samples: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The outputs of a file for each sample, by their names.

    Raises:
        RuntimeError, ValueError: the interpreter cannot run the file.
    """
    answers = []
    for sample in samples:
        answers.append(_run_once(interpreter, sample))
        interpreter.reset_all_variables()  # or a recurrent layer's state would stay from call to call
    return answers


def _run_once(interpreter: Any, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # The interpreter cannot be reset while a runner exists: this one ends when the function returns.
    runner = interpreter.get_signature_runner(SIGNATURE)
    details, output_details = runner.get_input_details(), runner.get_output_details()
    answer = runner(**{name: _quantize(value, details[name]) for name, value in sample.items()})
    return {name: _dequantize(np.array(value), output_details[name]) for name, value in answer.items()}


def _quantize(value: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Numbers in the scale of an int8 input; those of any other input as they are."""
    scale, zero = detail["quantization"]
    if detail["dtype"] != np.int8 or value.dtype.kind != "f":
        return value
    return np.clip(np.round(value / scale) + zero, -128, 127).astype(np.int8)


def _dequantize(value: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """What an int8 output stands for; any other output as it is."""
    scale, zero = detail["quantization"]
    if detail["dtype"] != np.int8 or not scale:
        return value
    return ((value.astype(np.float32) - zero) * scale).astype(np.float32)


def time_in_turn(interpreters: Sequence[Any], sample: dict[str, np.ndarray], rounds: int) -> list[Timing]:
    """How long a call of each interpreter takes. They run in turn in each round, so that a disturbance hits all alike.

    Args:
        interpreters: of the files.
        sample: one input, by the names in the files.
        rounds: how often each is measured.
    """
    for interpreter in interpreters:
        run(interpreter, [sample])  # sets the inputs' shapes and values
    repeats = [max(1, round(_MIN_SECONDS / _measure_call(interpreter, 3))) for interpreter in interpreters]
    milliseconds: list[list[float]] = [[] for _ in interpreters]
    for _ in range(rounds):
        for interpreter, repeat, times in zip(interpreters, repeats, milliseconds, strict=True):
            times.append(1e3 * _measure_call(interpreter, repeat))
    return [Timing(statistics.median(times), min(times), max(times)) for times in milliseconds]


def _measure_call(interpreter: Any, repeat: int) -> float:
    """Seconds of one call, the mean of so many."""
    start = time.perf_counter()
    for _ in range(repeat):
        interpreter.invoke()
    return (time.perf_counter() - start) / repeat


def _natural_key(name: str) -> list[Any]:
    """A sort key that puts args_0_2 before args_0_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def match_names(names: Sequence[str], values: Sequence[Any], expected: Sequence[str]) -> dict[str, Any]:
    """Values by the names that a file expects.

    Args:
        names: the names of the values.
        values: the values.
        expected: the file's names. Where these are others than `names`, values are assigned in the order of the names.
    """
    if set(names) == set(expected):
        return dict(zip(names, values, strict=True))
    return dict(zip(sorted(expected, key=_natural_key), values, strict=True))
