"""What a training step costs under tfmot's pruning wrappers and under ours, against the same step unpruned."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras

import tf_lap
import tf_lap.tfmot  # before tfmot, which sets an environment variable for good

import tensorflow_model_optimization as tfmot  # isort: skip

layers = tf_keras.layers
sparsity = tfmot.sparsity.keras

WIDTHS = (784, 500, 500, 500, 500, 10)
BATCH = 60
STEPS, ROUNDS, WARM_UP = 60, 9, 5
FINAL = 0.98


class Clock(tf_keras.callbacks.Callback):
    """When each batch ended. A whole short fit is quantised by its own beginning and end."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes the time."""
        self.times.append(time.perf_counter())


def perceptron() -> tf_keras.Model:
    """The fully connected network of Park et al., section 4.1."""
    hidden = [layers.Dense(width, activation="relu") for width in WIDTHS[1:-1]]
    return tf_keras.Sequential([layers.Input(WIDTHS[:1]), *hidden, layers.Dense(WIDTHS[-1])])


def schedule(frequency: int) -> Any:
    """Sparsity that grows at every update of the run."""
    return sparsity.PolynomialDecay(0.0, FINAL, 0, STEPS * ROUNDS, frequency=frequency)


def seconds_a_step(model: tf_keras.Model, callbacks: list[Any]) -> float:
    """The mean over the steps of one epoch, without the first."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * STEPS, WIDTHS[0])).astype(np.float32)
    clock = Clock()
    model.fit(x, rng.integers(0, WIDTHS[-1], len(x)), batch_size=BATCH, verbose=0, callbacks=[*callbacks, clock])
    return (clock.times[-1] - clock.times[WARM_UP]) / (STEPS - 1 - WARM_UP)


def run() -> dict[str, Any]:
    """Trains all of them by turns, a round after another, and compares each with the unpruned one of its round."""
    wrap: dict[str, Callable[[Any], Any]] = {"unpruned": lambda model: model}
    for frequency in (1, 100):
        for name, function in (("tf_lap", tf_lap.prune_lookahead), ("tfmot", sparsity.prune_low_magnitude)):
            key = f"{name}, frequency={frequency}"
            wrap[key] = lambda model, function=function, frequency=frequency: function(model, schedule(frequency))
    models = {name: each(perceptron()) for name, each in wrap.items()}
    for model in models.values():
        model.compile(tf_keras.optimizers.Adam(0.0012), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(
            {
                name: seconds_a_step(model, [] if name == "unpruned" else [sparsity.UpdatePruningStep()])
                for name, model in models.items()
            }
        )
    ratios = {name: sorted(each[name] / each["unpruned"] for each in rounds) for name in models}
    return {
        "what": f"a step of a {'-'.join(map(str, WIDTHS))} perceptron, batch {BATCH}, Adam, tf_keras; sparsity "
        f"0 to {FINAL} over {STEPS * ROUNDS} steps; ratio to the unpruned step of the same round, {ROUNDS} rounds",
        "unpruned_milliseconds": round(1e3 * statistics.median(each["unpruned"] for each in rounds), 2),
        "ratios": {
            name: {"median": round(statistics.median(each), 2), "least": round(each[0], 2), "most": round(each[-1], 2)}
            for name, each in ratios.items()
            if name != "unpruned"
        },
    }
