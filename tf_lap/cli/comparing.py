"""`tf-lap compare`."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap.cli import output
from tf_lap.cli.data_files import TO_MEASURE, as_inputs, read_data
from tf_lap.cli.errors import CommandError
from tf_lap.cli.measures import find_measure, predict
from tf_lap.cli.model_input import measure_bytes, read_model
from tf_lap.compat import exporting
from tf_lap.compat.exporting import Input
from tf_lap.costs.measure import cost
from tf_lap.export import runtime
from tf_lap.report.census import model_census
from tf_lap.tabular import table
from tf_lap.tflite import file as tflite

_ROUNDS = 7
_MIN_SECONDS = 0.05  # of a round


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        path: its file.
        kind: what reads it.
        inputs: what it takes; None where that is not known.
        weights: how many weights it has, and how many of them are zero.
        macs: its multiply-accumulates for one sample; None where they are not counted.
        predict: its answers to arrays of samples by input.
        make_call: makes a function that runs it once, of arrays with one sample.
    """

    path: Path
    kind: str
    inputs: Sequence[Input] | None
    weights: tuple[int, int]
    macs: int | None
    predict: Callable[[Sequence[np.ndarray]], np.ndarray]
    make_call: Callable[[Sequence[np.ndarray]], Callable[[], Any]]


def run(args: argparse.Namespace) -> None:
    """Prints two models side by side.

    Raises:
        CommandError: a model or the data cannot be read, or the models do not take the same.
    """
    sides = [_open(args, args.model), _open(args, args.other)]
    columns = [read_data(args.data, side.inputs, TO_MEASURE) for side in sides]
    answers = [side.predict(data.columns) for side, data in zip(sides, columns, strict=True)]
    if answers[0].shape != answers[1].shape:
        shapes = [str(shape.shape[1:]) for shape in answers]
        raise CommandError(f"the models answer in other shapes: {shapes[0]} and {shapes[1]} for each sample")
    measure = find_measure(answers[0], columns[0].labels)
    values = [measure.compute(answer) for answer in answers]
    latencies = [] if args.no_latency else _time(sides, [data.columns for data in columns])
    sizes = [measure_bytes(side.path) for side in sides]
    rows = [
        ["", str(args.model), str(args.other), "B / A"],
        ["read by", *(side.kind for side in sides), ""],
        [measure.name, *map(measure.format, values), ""],
        ["bytes", *(f"{size:,}" for size, _ in sizes), _ratio([size for size, _ in sizes])],
        ["bytes, gzipped", *(f"{packed:,}" for _, packed in sizes), _ratio([packed for _, packed in sizes])],
        ["weights", *(f"{side.weights[0]:,}" for side in sides), _ratio([side.weights[0] for side in sides])],
        ["of them zero", *(f"{side.weights[1] / max(side.weights[0], 1):.2%}" for side in sides), ""],
        ["multiply-accumulates", *("-" if side.macs is None else f"{side.macs:,}" for side in sides), _macs(sides)],
    ]
    notes = []
    if latencies:
        rows.append(["ms for one sample", *(f"{latency:.3g}" for latency in latencies), _ratio(latencies)])
        if sides[0].kind != sides[1].kind:
            notes.append(f"times of {sides[0].kind} and of {sides[1].kind} tell of these programs, not of the models")
    text = f"{len(columns[0].columns[0]):,} samples of {args.data}"
    lines = [*table(rows, right=(1, 2, 3)), *notes, text]
    output.show(args, "\n".join(lines), _as_json(sides, measure.name, values, sizes, latencies))


def _ratio(numbers: Sequence[float]) -> str:
    return f"{numbers[1] / numbers[0]:.2f}" if numbers[0] else ""


def _macs(sides: Sequence[Side]) -> str:
    macs = [side.macs for side in sides if side.macs is not None]
    return _ratio(macs) if len(macs) == len(sides) else ""


def _as_json(
    sides: Sequence[Side],
    measure: str,
    values: Sequence[float],
    sizes: Sequence[tuple[int, int]],
    latencies: Sequence[float],
) -> dict[str, Any]:
    models = [
        {
            "model": str(side.path),
            "read_by": side.kind,
            "value": value,
            "bytes": size,
            "gzip_bytes": packed,
            "weights": side.weights[0],
            "zeros": side.weights[1],
            "macs": side.macs,
            "milliseconds": latency,
        }
        for side, value, (size, packed), latency in zip(sides, values, sizes, latencies or (None, None), strict=True)
    ]
    return {"measure": measure, "models": models}


def _open(args: argparse.Namespace, path: Path) -> Side:
    if path.suffix == ".tflite":
        return _open_tflite(path)
    model, file = read_model(args, path)
    try:
        macs: int | None = cost(model).macs
    except (TypeError, ValueError):  # an axis of the input is open
        macs = None
    return Side(
        path,
        file.flavour,
        exporting.inputs(model),
        model_census(model),
        macs,
        lambda columns: predict(model, columns),
        lambda columns: _make_keras_call(model, columns),
    )


def _make_keras_call(model: Any, columns: Sequence[np.ndarray]) -> Callable[[], Any]:
    """A call of a model that is compiled as a graph, as in serving."""
    inputs = tf.nest.map_structure(tf.constant, as_inputs(columns, model))
    compiled = tf.function(lambda values: model(values, training=False))
    return lambda: tf.nest.map_structure(lambda tensor: tensor.numpy(), compiled(inputs))


def _open_tflite(path: Path) -> Side:
    """A TFLite file.

    Raises:
        CommandError: it is none, or has no signature or several outputs.
    """
    content = path.read_bytes()
    try:
        tensors = tflite.read(content).weights
        interpreter = runtime.find_runtime().load(content)
        inputs = runtime.read_inputs(interpreter)
    except (ValueError, RuntimeError, IndexError, TypeError, AttributeError) as error:  # whatever the reader meets
        raise CommandError(f"{path}: cannot be read as a TFLite file with a signature ({error})") from error
    weights = sum(tensor.values.size for tensor in tensors)
    zeros = weights - sum(int(np.count_nonzero(tensor.values)) for tensor in tensors)

    def answer(columns: Sequence[np.ndarray]) -> np.ndarray:
        rows = range(len(columns[0]))
        by_name = {entry.name: column.astype(entry.dtype) for entry, column in zip(inputs, columns, strict=True)}
        samples = [{name: column[row : row + 1] for name, column in by_name.items()} for row in rows]
        answers = runtime.run(interpreter, samples)
        if len(answers[0]) != 1:
            raise CommandError(f"{path} has {len(answers[0])} outputs: answers of one output are measured")
        return np.concatenate([value for outputs in answers for value in outputs.values()])

    def make_call(columns: Sequence[np.ndarray]) -> Callable[[], Any]:
        answer(columns)  # sets the inputs' shapes and values
        return interpreter.invoke

    return Side(path, runtime.find_runtime().name, inputs, (weights, zeros), None, answer, make_call)


def _time(sides: Sequence[Side], columns: Sequence[Sequence[np.ndarray]]) -> list[float]:
    """Milliseconds of a call with one sample, the median of rounds in which both run in turn."""
    calls = []
    for side, arrays in zip(sides, columns, strict=True):
        sample = [array[:1] for array in arrays]
        calls.append(
            side.make_call([array.astype(np.float32) if array.dtype == np.float64 else array for array in sample])
        )
    for call in calls:
        call()
    repeats = [max(1, round(_MIN_SECONDS / max(_measure(call, 3), 1e-7))) for call in calls]
    rounds: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for call, repeat, times in zip(calls, repeats, rounds, strict=True):
            times.append(1e3 * _measure(call, repeat))
    return [statistics.median(times) for times in rounds]


def _measure(call: Callable[[], Any], repeat: int) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat
