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
PEERS_UP_TO = 1e7  # tfmot's update of a hundred million weights takes most of a minute, many times over
ROUNDS, TURNS, WARM_UP = 5, 3, 12
DEVICE = "CPU:0"


def network(weights: float) -> keras.Model:
    """Dense layers with about so many weights together."""
    width = round(math.sqrt(weights / LAYERS))
    hidden = [keras.layers.Dense(width, activation="relu", use_bias=False) for _ in range(LAYERS)]
    return keras.Sequential([keras.Input((width,)), *hidden])


def run() -> dict[str, Any]:
    """Times each size, and takes the memory of the largest in a process of its own."""
    keras.utils.set_random_seed(0)
    taken: dict[str, list[list[float]]] = {}
    for weights in SIZES:
        with tf.device(DEVICE):
            subject = mask_update.Subject(network(weights))
            subject.warm_up(WARM_UP)
            others = peers.all_of(subject.arrays, mask_update.SPARSITY) if weights <= PEERS_UP_TO else {}
            ours = {"tf_lap lookahead": (subject.update, subject.reset)}
            times = measure.by_turns({**ours, **others}, ROUNDS, TURNS)
        count = sum(array.size for array in subject.arrays)
        for name, each in times.items():
            taken.setdefault(name, []).append([count, statistics.median(each)])
        del subject
    ratios = {}
    for (small, a), (large, b) in itertools.pairwise(taken["tf_lap lookahead"]):
        name = f"{large:.3g} weights, time over that of {small:.3g}, in proportion"
        ratios[name] = measure.spread([(b / a) / (large / small)])
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
        "seconds": taken,
        "ratios": ratios,
    }


def memory(weights: float) -> dict[str, int]:
    """What `benchmarks.memory` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", str(weights)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
