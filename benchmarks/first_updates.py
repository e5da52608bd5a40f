"""How long a user waits for the first mask update of a large model, for the longest, and for a hundred updates."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import keras

import tf_lap
from benchmarks import measure

NETWORKS = ("ResNet50", "MobileNetV2", "NASNetMobile", "EfficientNetB7")
FORWARD_NETWORK = "ResNet50"  # pruned in the order "forward" too
UPDATES, SPARSITY, ROUNDS = 100, 0.9, 3


def time_updates(network: str, order: str, updates: int) -> list[float]:
    """The seconds that each update of a model takes, from nothing pruned on."""
    model = getattr(keras.applications, network)(weights=None)
    pruner = tf_lap.Pruner(model, order=order, allocation="uniform")
    seconds = []
    for number in range(1, updates + 1):
        start = time.perf_counter()
        pruner.update(SPARSITY * number / updates)
        seconds.append(time.perf_counter() - start)
    return seconds


def time_in_process(network: str, order: str = "simultaneous", updates: int = UPDATES) -> list[float]:
    """The same in a new process, where nothing has run before."""
    command = [sys.executable, "-m", "benchmarks.first_updates", network, order, str(updates)]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(process.stdout.splitlines()[-1])


def run() -> dict[str, Any]:
    """Times each network several times."""
    figures = {}
    for network in NETWORKS:
        rounds = [time_in_process(network) for _ in range(ROUNDS)]
        figures[f"{network}: first update, seconds"] = measure.spread([seconds[0] for seconds in rounds])
        figures[f"{network}: longest of a hundred, first updates"] = measure.spread(
            [max(seconds) / seconds[0] for seconds in rounds]
        )
        figures[f"{network}: a hundred updates, seconds"] = measure.spread([sum(seconds) for seconds in rounds])
    forward = [time_in_process(FORWARD_NETWORK, "forward", 1)[0] for _ in range(ROUNDS)]
    figures[f'{FORWARD_NETWORK}, order "forward": first update, seconds'] = measure.spread(forward)
    return {
        "what": f"the first {UPDATES} updates of models of keras.applications, from nothing pruned to sparsity "
        f"{SPARSITY}, each model in a process of its own; {ROUNDS} rounds",
        "ratios": figures,
    }


if __name__ == "__main__":
    print(json.dumps(time_updates(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
