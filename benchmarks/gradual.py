"""Gradual training on CIFAR-10: the recommended recipe against plain magnitude, in equal steps.

The residual network of `benchmarks.trained`, from the same trained weights and in the same order of batches. Plain
magnitude is what tfmot does: each kernel at the final sparsity, a cubic schedule, a constant learning rate. What `RUNS`
holds already is not repeated. `TF_LAP_MODELS` and `TF_LAP_MINUTES` are as in `benchmarks.choosing`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
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


def run() -> dict[str, Any]:
    """Does all fits that are not done yet, writing each down."""
    runs: list[dict[str, Any]] = json.loads(RUNS.read_text(encoding="utf-8"))["runs"] if RUNS.exists() else []
    end = time.monotonic() + 60 * float(os.environ.get("TF_LAP_MINUTES", "inf"))
    folder = Path(os.environ.get("TF_LAP_MODELS", RUNS.parent / "models"))
    data = trained.TASKS[TASK].load()
    for seed, sparsity, name in itertools.product(range(SEEDS), SPARSITIES, RECIPES):
        place = {"seed": seed, "sparsity": sparsity, "recipe": name}
        if time.monotonic() > end or any(place.items() <= entry.items() for entry in runs):
            continue
        model = trained.train(TASK, seed, folder)
        dense_error = trained.measure_error(model, data)
        fit(model, data, RECIPES[name], sparsity, seed)
        weights = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
        zeros = sum(int((keras.ops.convert_to_numpy(kernel) == 0).sum()) for kernel in weights)
        size = sum(kernel.shape.num_elements() for kernel in weights)
        error = trained.measure_error(model, data)
        runs.append({**place, "error": error, "dense error": dense_error, "zeros": zeros / size})
        RUNS.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
    return {
        "what": f"test errors in percent on CIFAR-10 after {EPOCHS} epochs of pruning, {SEEDS} seeds",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread of errors over seeds, by sparsity and recipe."""
    named = ((f"{entry['sparsity']:.0%} zeros, {entry['recipe']}", entry["error"]) for entry in runs)
    return measure.spread_by_name(sorted(named))
