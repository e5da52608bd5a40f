"""What a training step costs under tfmot's pruning wrappers and under ours, against the same step unpruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras

import tf_lap
import tf_lap.tfmot  # before tfmot, which sets an environment variable for good
from benchmarks import measure, perceptron

import tensorflow_model_optimization as tfmot  # isort: skip

sparsity = tfmot.sparsity.keras

WIDTHS = perceptron.WIDTHS
STEPS, ROUNDS, WARM_UP = 60, 9, 5
FINAL = 0.98


def schedule(frequency: int) -> Any:
    """Sparsity that grows at every update of the run."""
    return sparsity.PolynomialDecay(0.0, FINAL, 0, STEPS * ROUNDS, frequency=frequency)


def run() -> dict[str, Any]:
    """Trains all of them by turns, a round after another, and compares each with the unpruned one of its round."""
    wrappers: dict[str, Callable[[Any], Any]] = {"unpruned": lambda model: model}
    for frequency in (1, 100):
        for name, function in (("tf_lap", tf_lap.prune_lookahead), ("tfmot", sparsity.prune_low_magnitude)):
            key = f"{name}, frequency={frequency}"
            wrappers[key] = lambda model, function=function, frequency=frequency: function(model, schedule(frequency))
    models = {name: wrap(perceptron.network(tf_keras, WIDTHS)) for name, wrap in wrappers.items()}
    for model in models.values():
        perceptron.compile_model(model, tf_keras)
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(
            {
                name: perceptron.seconds_per_step(
                    model, tf_keras, [] if name == "unpruned" else [sparsity.UpdatePruningStep()], STEPS, WARM_UP
                )
                for name, model in models.items()
            }
        )
    times = {name: [seconds[name] for seconds in rounds] for name in models}
    return {
        "what": f"a step of a {'-'.join(map(str, WIDTHS))} perceptron, batch {perceptron.BATCH}, Adam, "
        f"tf_keras; sparsity 0 to {FINAL} over {STEPS * ROUNDS} steps; ratio to the unpruned step of the "
        f"same round, {ROUNDS} rounds",
        "milliseconds": measure.milliseconds(times),
        "ratios": {name: measure.ratio(times, name, "unpruned") for name in models if name != "unpruned"},
    }
