"""What one lookahead mask update of ResNet50 costs, against reading its weights once and against the peers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from benchmarks import measure, peers

SPARSITY = 0.9
ROUNDS, TURNS, WARM_UP = 5, 7, 2
DEVICE = "CPU:0"


def network() -> keras.Model:
    """25.5 million weights in 54 kernels."""
    return keras.applications.ResNet50(weights=None)


class Subject:
    """A pruner whose model gets its first weights back before each update.

    Args:
        model: the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.pruner = tf_lap.Pruner(model, allocation="uniform")
        self.variables = list(self.pruner.enforcement.kernels.values())
        self.arrays = [tf.convert_to_tensor(variable).numpy().copy() for variable in self.variables]
        self.dense = {path: np.ones(mask.shape, bool) for path, mask in self.pruner.masks.items()}
        runner = self.pruner._engine.runner
        self.energies = lambda: runner.energies_around(runner.measure({})[0], {})[0][0][-1]
        self.read = tf.function(
            lambda: tf.add_n([tf.reduce_sum(tf.convert_to_tensor(variable)) for variable in self.variables]),
            autograph=False,
        )

    def reset(self) -> None:
        """Puts the first weights back, so that nothing is pruned."""
        for variable, array in zip(self.variables, self.arrays, strict=True):
            variable.assign(array)
        self.pruner.restore(self.dense)

    def update(self) -> None:
        """Prunes from nothing to the benchmark's sparsity."""
        self.pruner.update(SPARSITY)

    def warm_up(self, updates: int) -> list[float]:
        """The seconds of the first updates."""
        return [measure.seconds(self.update, self.reset) for _ in range(updates)]


def run() -> dict[str, Any]:
    """Times a read, the energies, an update and the peers by turns."""
    keras.utils.set_random_seed(0)
    with tf.device(DEVICE):
        subject = Subject(network())
        functions = {name: (getattr(subject, name), subject.reset) for name in ("read", "energies", "update")}
        first_updates = subject.warm_up(WARM_UP)
        others = peers.all_of(subject.arrays, SPARSITY)
        times = measure.by_turns({**functions, **others}, ROUNDS, TURNS)
    weights = sum(array.size for array in subject.arrays)
    bandwidth = measure.bandwidth(DEVICE)
    floor = least_bytes(weights) / bandwidth
    ratios = {
        "update, reads": measure.ratio(times, "update", "read"),
        "energies, reads": measure.ratio(times, "energies", "read"),
        **{f"{name}, updates": measure.ratio(times, name, "update") for name in others},
        "update, copies of the fewest bytes": measure.spread([seconds / floor for seconds in times["update"]]),
    }
    return {
        "what": f"a mask update of ResNet50, {weights / 1e6:.1f} million weights in {len(subject.arrays)} kernels, "
        f"from nothing pruned to sparsity {SPARSITY}, on {DEVICE}; a read is a tf.reduce_sum of each kernel; "
        f"{ROUNDS} rounds",
        "milliseconds": measure.milliseconds(times),
        "first_updates_seconds": [round(seconds, 3) for seconds in first_updates],
        "copied_gigabytes_a_second": round(bandwidth / 1e9, 2),
        "least_megabytes": round(least_bytes(weights) / 1e6, 1),
        "missing": [] if "torch lookahead" in others else ["torch lookahead: not measured, PyTorch is not installed"],
        "ratios": ratios,
    }


def least_bytes(weights: int) -> int:
    """The bytes that any update reads and writes: weights for energies and scores, masks, and zeroed weights."""
    return weights * (4 + 4 + 1 + 1 + 4)
