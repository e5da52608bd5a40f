"""How long the first training step takes under wrappers, as TensorFlow traces it then: ours against tfmot's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras

import tf_lap
import tf_lap.tfmot  # before tfmot, which sets an environment variable for good
from benchmarks import measure

import tensorflow_model_optimization as tfmot  # isort: skip

sparsity = tfmot.sparsity.keras

SHAPE, BATCH = (96, 96, 3), 8
ROUNDS = 3


def network() -> Any:
    """A model that was never trained."""
    return tf_keras.applications.MobileNetV2(SHAPE, weights=None, classes=10)


def time_first_step(wrap: Callable[[Any], Any], callbacks: list[Any]) -> float:
    """Seconds of a fit of one step of a new model."""
    model = wrap(network())
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy())
    rng = np.random.default_rng(0)
    x, y = rng.random((BATCH, *SHAPE), np.float32), rng.integers(0, 10, BATCH)
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=callbacks)
    return time.perf_counter() - start


def run() -> dict[str, Any]:
    """Times all of them by turns, each with a new model."""
    schedule = sparsity.PolynomialDecay(0.0, 0.9, 0, 100, frequency=10)
    wrappers: dict[str, Callable[[Any], Any]] = {
        "unpruned": lambda model: model,
        "tf_lap": lambda model: tf_lap.prune_lookahead(model, schedule),
        "tfmot": lambda model: sparsity.prune_low_magnitude(model, schedule),
    }
    times: measure.Times = {}
    for _ in range(ROUNDS):
        for name, wrap in wrappers.items():
            callbacks = [] if name == "unpruned" else [sparsity.UpdatePruningStep()]
            times.setdefault(name, []).append(time_first_step(wrap, callbacks))
            tf_keras.backend.clear_session()
    return {
        "what": f"the first fit of one step of tf_keras's MobileNetV2, images of {SHAPE[0]}x{SHAPE[1]}, batch {BATCH}; "
        f"ratio to another of the same round, {ROUNDS} rounds",
        "milliseconds": measure.milliseconds(times),
        "ratios": {
            "tf_lap, of tfmot": measure.ratio(times, "tf_lap", "tfmot"),
            "tf_lap, of unpruned": measure.ratio(times, "tf_lap", "unpruned"),
            "tfmot, of unpruned": measure.ratio(times, "tfmot", "unpruned"),
        },
    }
