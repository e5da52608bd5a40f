"""Gradual training on CIFAR-10: the recommended recipe against plain magnitude, in equal steps.

The residual network of `benchmarks.trained`, from the same trained weights and in the same order of batches. Plain
magnitude is what tfmot does: each kernel at the final sparsity, a cubic schedule, a constant learning rate. What `RUNS`
holds already is not repeated. `TF_LAP_MODELS` and `TF_LAP_MINUTES` are as in `benchmarks.choosing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

import tf_lap
from benchmarks import measure, trained

RUNS = Path(__file__).parent / "results" / "gradual.json"
TASK, SEEDS, EPOCHS, RATE = "residual", 3, 2, 1e-3
SPARSITIES = (0.95, 0.9, 0.98)


class Recipe(NamedTuple):
    """A way to prune while training.

    Attributes:
        score: how weights are ranked.
        allocation: how many weights each kernel keeps.
        decays: whether the learning rate goes to zero in a straight line.
    """

    score: str
    allocation: str
    decays: bool


RECIPES = {
    "plain magnitude": Recipe("magnitude", "uniform", False),
    "recommended": Recipe("lookahead", "auto", True),
    "recommended, by magnitude": Recipe("magnitude", "auto", True),
}


def fit(model: keras.Model, data: trained.Data, recipe: Recipe, sparsity: float, seed: int) -> None:
    """Prunes a trained network while it trains on."""
    steps = EPOCHS * -(-len(data.x_train) // trained.BATCH)
    schedule = tf_lap.LookaheadPruningSchedule(sparsity, begin_step=0, end_step=steps * 2 // 3, frequency=20)
    callback = tf_lap.LAPCallback(schedule, score=recipe.score, allocation=recipe.allocation)
    trained.compile_model(model, tf_lap.retraining_rate(model, RATE, steps) if recipe.decays else RATE)
    keras.utils.set_random_seed(seed)
    model.fit(data.x_train, data.y_train, trained.BATCH, EPOCHS, verbose=0, callbacks=[callback])


def measure_place(seed: int, sparsity: float, recipe: str) -> dict[str, Any]:
    """The test errors of a network before and after a recipe, and its fraction of zeros."""
    model, data = trained.train(TASK, seed, trained.find_folder()), trained.TASKS[TASK].load()
    dense_error = trained.measure_error(model, data)
    fit(model, data, RECIPES[recipe], sparsity, seed)
    weights = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    zeros = sum(int((keras.ops.convert_to_numpy(kernel) == 0).sum()) for kernel in weights)
    size = sum(kernel.shape.num_elements() for kernel in weights)
    return {"error": trained.measure_error(model, data), "dense error": dense_error, "zeros": zeros / size}


def run() -> dict[str, Any]:
    """Does all fits that are not done yet, writing each down."""
    places = itertools.product(range(SEEDS), SPARSITIES, RECIPES)
    named = ({"seed": seed, "sparsity": sparsity, "recipe": recipe} for seed, sparsity, recipe in places)
    runs = measure.measure_missing(RUNS, named, measure_place)
    return {
        "what": f"test errors in percent on CIFAR-10 after {EPOCHS} epochs of pruning, {SEEDS} seeds",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread of errors over seeds, by sparsity and recipe."""
    named = ((f"{entry['sparsity']:.0%} zeros, {entry['recipe']}", entry["error"]) for entry in runs)
    return measure.spread_by_name(sorted(named))
