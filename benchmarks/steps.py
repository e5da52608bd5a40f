"""What pruning in several steps gains, where each is repaired over 256 samples, without training.

The networks and their folder, and `TF_LAP_MINUTES`, are as in `benchmarks.choosing`. What `RUNS` holds already is not
repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tf_lap
from benchmarks import measure, trained
from benchmarks.choosing import pick_samples

RUNS = Path(__file__).parent / "results" / "steps.json"
SEEDS = 3
STEPS = (1, 2, 4, 8)
SPARSITIES = {"perceptron": (0.9, 0.95, 0.98), "text": (0.8,)}
SCORE, ALLOCATION = "obs", "lamp"


def list_places() -> Iterator[dict[str, Any]]:
    """What is measured, seed by seed."""
    for seed, (task, sparsities) in itertools.product(range(SEEDS), SPARSITIES.items()):
        yield {"task": task, "seed": seed, "sparsity": 0.0, "steps": 0}
        for sparsity, steps in itertools.product(sparsities, STEPS):
            yield {"task": task, "seed": seed, "sparsity": sparsity, "steps": steps}


def measure_place(task: str, seed: int, sparsity: float, steps: int) -> dict[str, Any]:
    """The percentage of wrong predictions of a trained network, pruned and repaired in so many steps; 0: not pruned."""
    model, data = trained.train(task, seed, trained.find_folder()), trained.TASKS[task].load()
    if steps:
        samples = pick_samples(data, seed)
        tf_lap.prune(model, sparsity, score=SCORE, allocation=ALLOCATION, data=samples, repair=True, steps=steps)
    return {"error": trained.measure_error(model, data)}


def run() -> dict[str, Any]:
    """Measures what is not measured yet, writing each down."""
    runs = measure.measure_missing(RUNS, list_places(), measure_place)
    return {
        "what": f"test errors in percent of networks that are pruned and repaired over 256 samples, not trained, score "
        f"{SCORE}, allocation {ALLOCATION}, {SEEDS} seeds",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread of errors over seeds, by network, sparsity and steps."""

    def name(entry: dict[str, Any]) -> str:
        if not entry["steps"]:
            return f"{entry['task']}, dense"
        return f"{entry['task']}, {entry['sparsity']:.0%}, {entry['steps']} step{'s' * (entry['steps'] > 1)}"

    return measure.spread_by_name((name(entry), entry["error"]) for entry in runs)
