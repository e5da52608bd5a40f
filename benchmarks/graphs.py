"""How long a model's graph takes to resolve, against building the model."""

from __future__ import annotations

import time
from typing import Any

import keras

import tf_lap
from benchmarks import measure

NETWORKS = ("NASNetLarge", "EfficientNetB7", "DenseNet201")
ROUNDS = 3


def run() -> dict[str, Any]:
    """Builds and resolves each, several times."""
    times: measure.Times = {}
    for _ in range(ROUNDS):
        for name in NETWORKS:
            start = time.perf_counter()
            model = getattr(keras.applications, name)(weights=None)
            built = time.perf_counter()
            tf_lap.neighbors(model)
            times.setdefault(f"{name} built", []).append(built - start)
            times.setdefault(name, []).append(time.perf_counter() - built)
            keras.backend.clear_session()
    return {
        "what": f"tf_lap.neighbors of a model of keras.applications; ratio to building it; {ROUNDS} rounds",
        "milliseconds": measure.milliseconds(times),
        "ratios": {name: measure.ratio(times, name, f"{name} built") for name in NETWORKS},
    }
