"""Times of functions that run by turns, ratios of them, and records that long runs go on from."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

Times = dict[str, list[float]]


def measure_missing(
    record: Path, places: Iterable[dict[str, Any]], measure_place: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measures what a record does not hold yet, writing each down, and gives all that it holds then.

    `TF_LAP_MINUTES` ends it after so many minutes.

    Args:
        record: a JSON file whose "runs" are dicts; it may be missing.
        places: what is to be measured.
        measure_place: is called with what a place holds, and gives what is to stand beside that.
    """
    runs: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8"))["runs"] if record.exists() else []
    end = time.monotonic() + 60 * float(os.environ.get("TF_LAP_MINUTES", "inf"))
    for place in places:
        if time.monotonic() > end or any(place.items() <= entry.items() for entry in runs):
            continue
        runs.append({**place, **measure_place(**place)})
        print(runs[-1], flush=True)
        record.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
    return runs


def seconds(function: Callable[[], Any], prepare: Callable[[], Any] | None = None) -> float:
    """The seconds that a call takes until its result is on the host; `prepare` is not counted."""
    if prepare is not None:
        prepare()
    start = time.perf_counter()
    tf.nest.map_structure(lambda result: result.numpy() if tf.is_tensor(result) else result, function())
    return time.perf_counter() - start


def by_turns(functions: Mapping[str, tuple[Callable[[], Any], Callable[[], Any]]], rounds: int, turns: int) -> Times:
    """The median time of each function in each round.

    Args:
        functions: by name, the function to time, and a function that is called before it and not counted.
        rounds: how many rounds.
        turns: how often each is called in a round. A function that takes more than a second is called once.
    """
    times: Times = {name: [] for name in functions}
    calls = {name: turns if seconds(*function) < 1 else 1 for name, function in functions.items()}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(statistics.median(seconds(*function) for _ in range(calls[name])))
    return times


def ratio(times: Times, name: str, to: str) -> dict[str, float]:
    """The spread of one function's time divided by that of another, round by round."""
    return spread([a / b for a, b in zip(times[name], times[to], strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the most, to four digits."""
    figures = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def spread_by_name(figures: Iterable[tuple[str, float]]) -> dict[str, dict[str, float]]:
    """The spread of the figures of each name, in the order in which names first come."""
    by_name: dict[str, list[float]] = {}
    for name, figure in figures:
        by_name.setdefault(name, []).append(figure)
    return {name: spread(values) for name, values in by_name.items()}


def milliseconds(times: Times) -> dict[str, float]:
    """The median time of each function, to four digits."""
    return {name: float(f"{1e3 * statistics.median(seconds):.4g}") for name, seconds in times.items()}


def bandwidth(device: str, size: int = 1 << 26, rounds: int = 9) -> float:
    """How many bytes a device reads and writes in a second when it copies float32 with the sign changed.

    Args:
        device: as `CPU:0`.
        size: how many numbers are copied.
        rounds: how often.
    """
    with tf.device(device):
        source = tf.Variable(tf.ones([size]))
        copy = tf.function(lambda: tf.negative(source), autograph=False)
        # An element is brought to the host, so that the copy is awaited.
        durations = [seconds(lambda: copy()[0]) for _ in range(rounds)]
    return 2 * 4 * size / statistics.median(durations)
