"""`python -m benchmarks.repair_resnet50`: prunes ResNet50 once and repairs it, and says what that takes."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import keras
import numpy as np

import tf_lap
from benchmarks.memory import peak

SAMPLES, SIDE, SPARSITY = 256, 96, 0.8


def main(sparsity: float = SPARSITY) -> dict[str, Any]:
    """Seconds of an update with repair, the most memory of the process before and after, and what was repaired."""
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, input_shape=(SIDE, SIDE, 3))
    images = np.random.default_rng(0).normal(size=(SAMPLES, SIDE, SIDE, 3)).astype(np.float32)
    before = peak()
    start = time.perf_counter()
    report = tf_lap.prune(model, sparsity, data=images, repair=True, verbose=1)
    seconds = time.perf_counter() - start
    repaired = report.repair
    assert repaired is not None
    return {
        "sparsity": report.sparsity,
        "kernels": len(repaired.repaired),
        "normalizations": repaired.normalizations,
        "minutes": seconds / 60,
        "peak memory before in GB": before / 1e9,
        "peak memory in GB": peak() / 1e9,
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(float, sys.argv[1:]))))
