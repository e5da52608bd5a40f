"""How small and how fast sparse TFLite files are, against the dense file of the same network."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

import tf_lap
from benchmarks import measure
from tf_lap.export import runtime

WIDTH, LAYERS = 1024, 3
PRUNED = (("block:1x4", 0.8), ("block:1x4", 0.9), ("block:1x4", 0.95), ("unstructured", 0.9), ("2:4", 0.5))
THREADS = 1
REPEATS, ROUNDS = 5, 30


def network() -> keras.Model:
    """Dense layers of one width."""
    hidden = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(LAYERS)]
    return keras.Sequential([keras.Input((WIDTH,)), *hidden])


def run() -> dict[str, Any]:
    """Prunes the same weights in each way, exports, and times dense and sparse by turns."""
    keras.utils.set_random_seed(0)
    trained = network()
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for pattern, sparsity in PRUNED:
            model = network()
            model.set_weights(trained.get_weights())
            tf_lap.prune(model, sparsity, pattern=pattern, allocation="uniform")
            report = tf_lap.export_tflite(model, Path(folder) / "model.tflite", sparse=True)
            latencies = [report.timed(threads=THREADS, rounds=ROUNDS).latency for _ in range(REPEATS)]
            name = f"{pattern} at {sparsity:.0%}"
            ratios[f"{name}, latency"] = measure.spread(
                [latency.file.median / latency.dense.median for latency in latencies]
            )
            ratios[f"{name}, bytes"] = measure.spread([report.file_bytes / report.dense_bytes])
            ratios[f"{name}, gzipped bytes"] = measure.spread([report.gzip_bytes / report.dense_bytes])
    return {
        "what": f"{LAYERS} Dense layers of width {WIDTH}, float32, {THREADS} thread, {runtime.find_runtime().name}; "
        f"ratio to the dense file; latency: medians of {ROUNDS} rounds by turns, {REPEATS} times",
        "ratios": ratios,
    }
