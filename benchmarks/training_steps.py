"""What a training step costs under LAPCallback, against the same step unpruned; tfmot's own on tf_keras beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import tf_keras

import tf_lap
import tf_lap.tfmot  # before tfmot, which sets an environment variable for good
from benchmarks import measure, perceptron

import tensorflow_model_optimization as tfmot  # isort: skip

WIDTHS = perceptron.WIDTHS
STEPS, ROUNDS, WARM_UP = 200, 11, 20
UPDATES_BEFORE = 2  # the first updates of a process are slower
FINAL = 0.98


class Trained:
    """A model that goes on training, in short fits.

    Args:
        kind: keras or tf_keras.
        frequency: how many steps lie between updates; None where the model is not pruned.
    """

    def __init__(self, kind: Any, frequency: int | None = None) -> None:
        self.kind = kind
        self.callbacks: list[Any] = []
        model = perceptron.network(kind, WIDTHS)
        before = UPDATES_BEFORE * (frequency or 1)
        end = STEPS * ROUNDS + before
        if frequency and kind is keras:
            schedule = tf_lap.LookaheadPruningSchedule(FINAL, end_step=end, frequency=frequency)
            self.callbacks = [tf_lap.LAPCallback(schedule, allocation="uniform")]
        elif frequency:
            schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, FINAL, 0, end, frequency=frequency)
            model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
            self.callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
        perceptron.compile_model(model, kind)
        self.model = model
        self.step(before + WARM_UP + 2)

    def step(self, steps: int) -> float:
        """The seconds of a step, the mean over a fit without its first steps."""
        return perceptron.seconds_per_step(self.model, self.kind, self.callbacks, steps, WARM_UP)


def run() -> dict[str, Any]:
    """Trains all of them by turns, a round after another, and compares each with the unpruned one of its round."""
    makers: dict[str, Callable[[], Trained]] = {
        "unpruned": lambda: Trained(keras),
        "LAPCallback, every 100 steps": lambda: Trained(keras, 100),
        "LAPCallback, every step": lambda: Trained(keras, 1),
        "tf_keras unpruned": lambda: Trained(tf_keras),
        "tfmot on tf_keras, every 100 steps": lambda: Trained(tf_keras, 100),
        "tfmot on tf_keras, every step": lambda: Trained(tf_keras, 1),
    }
    # Each fit is a part of the training.
    warnings.filterwarnings("ignore", message="this training ends at step")
    models = {name: make() for name, make in makers.items()}
    rounds = [{name: model.step(STEPS) for name, model in models.items()} for _ in range(ROUNDS)]
    times = {name: [seconds[name] for seconds in rounds] for name in models}
    base = {name: "tf_keras unpruned" if "tf_keras" in name else "unpruned" for name in models}
    return {
        "what": f"a step of a {'-'.join(map(str, WIDTHS))} perceptron, batch {perceptron.BATCH}, Adam; "
        f"sparsity 0 to {FINAL} over {STEPS * ROUNDS} steps and the first {UPDATES_BEFORE} updates; ratio to the "
        f"unpruned step of the same Keras and round, {ROUNDS} rounds",
        "milliseconds": measure.milliseconds(times),
        "ratios": {name: measure.ratio(times, name, base[name]) for name in models if base[name] != name},
    }
