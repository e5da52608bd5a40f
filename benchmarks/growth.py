"""How an update grows with the number of weights, and how much memory it takes: Dense layers of one width."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
from typing import Any

import keras
import tensorflow as tf

from benchmarks import mask_update, measure, peers

SIZES = (1e6, 1e7, 1e8)
LAYERS = 10
PEERS_UP_TO = 1e7  # an update of a hundred million weights by tfmot takes most of a minute, and many are timed
ROUNDS, TURNS, WARM_UP = 5, 3, 12
DEVICE = "CPU:0"


def network(weights: float) -> keras.Model:
    """Dense layers with about this number of weights together."""
    width = round(math.sqrt(weights / LAYERS))
    hidden = [keras.layers.Dense(width, activation="relu", use_bias=False) for _ in range(LAYERS)]
    return keras.Sequential([keras.Input((width,)), *hidden])


def run() -> dict[str, Any]:
    """Times each size, and measures the memory of the smallest and the largest, each in a new process."""
    keras.utils.set_random_seed(0)
    seconds: dict[str, list[list[float]]] = {}
    for weights in SIZES:
        with tf.device(DEVICE):
            subject = mask_update.Subject(network(weights))
            subject.warm_up(WARM_UP)
            others = peers.all_of(subject.arrays, mask_update.SPARSITY) if weights <= PEERS_UP_TO else {}
            functions = {"tf_lap lookahead": (subject.update, subject.reset)}
            times = measure.by_turns({**functions, **others}, ROUNDS, TURNS)
        count = sum(array.size for array in subject.arrays)
        for name, durations in times.items():
            seconds.setdefault(name, []).append([count, statistics.median(durations)])
        del subject
    ratios = {}
    for (small, small_seconds), (large, large_seconds) in itertools.pairwise(seconds["tf_lap lookahead"]):
        name = f"{large:.3g} weights, time over that of {small:.3g}, in proportion"
        ratios[name] = measure.spread([(large_seconds / small_seconds) / (large / small)])
    small, large = (memory(weights) for weights in (SIZES[0], SIZES[-1]))
    shares = {
        "memory of masks": large["masks"],
        "memory beyond them at the peak": large["beyond"],
        f"the same, less that of {SIZES[0]:.3g} weights (graphs and compiled code)": large["beyond"] - small["beyond"],
    }
    ratios |= {name: measure.spread([size / large["weights"]]) for name, size in shares.items()}
    return {
        "what": f"mask updates to sparsity {mask_update.SPARSITY} of {LAYERS} Dense layers of one width, on {DEVICE}; "
        f"medians of {ROUNDS} rounds; memory in a process of its own, at {SIZES[-1]:.3g} "
        "weights, of the weights' own bytes",
        "seconds": seconds,
        "ratios": ratios,
    }


def memory(weights: float) -> dict[str, int]:
    """What `benchmarks.memory` measures in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", str(weights)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
