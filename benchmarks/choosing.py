"""Which score and which allocation to take when a model is pruned once: without data, and repaired.

The networks of `benchmarks.trained`, each pruned from the same trained weights. `TF_LAP_MNIST` and `TF_LAP_CIFAR10`
name the data. Trained networks are kept in the folder that `TF_LAP_MODELS` names, or in one beside the results. What
`RUNS` holds already is not repeated: remove the file to begin anew. `TF_LAP_MINUTES` ends a run after so many minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tf_lap
from benchmarks import measure, trained

RUNS = Path(__file__).parent / "results" / "choosing.json"
SEEDS = 3
SAMPLES = 256
SPARSITIES = (0.8, 0.9, 0.95, 0.5, 0.98, 0.99)
ALLOCATIONS = ("uniform", "lamp", "global", "erk")
SCORES = ("magnitude", "lookahead")
SCORES_OVER_DATA = ("wanda", "lookahead_wanda", "obs", "obs_lookahead")
ONCE, REPAIRED, REPAIRED_OVER_DATA = ("once", "repaired without data", f"repaired with {SAMPLES} samples")


class Cell(NamedTuple):
    """One way to prune a trained network."""

    task: str
    seed: int
    regime: str
    score: str
    allocation: str
    sparsity: float


def list_cells() -> Iterator[Cell]:
    """All cells, in the order in which they are measured: what is asked for most comes first."""
    first = list(itertools.product(SPARSITIES[:2], ALLOCATIONS[:2]))
    second = list(itertools.product(SPARSITIES[2:3], ALLOCATIONS[:2]))
    rest = [place for place in itertools.product(SPARSITIES, ALLOCATIONS) if place not in (*first, *second)]
    over_data = (*SCORES, *SCORES_OVER_DATA)
    order = [(first, 0), (second, 0), *itertools.product((first, second), range(1, SEEDS))]
    for (places, seed), task in itertools.product([*order, *((rest, seed) for seed in range(SEEDS))], trained.TASKS):
        for sparsity, allocation in places:
            for regime, scores in ((ONCE, over_data), (REPAIRED, SCORES), (REPAIRED_OVER_DATA, over_data)):
                for score in scores:
                    yield Cell(task, seed, regime, score, allocation, sparsity)


def pick_samples(data: trained.Data, seed: int, count: int = SAMPLES) -> np.ndarray:
    """Training inputs without labels, drawn by the seed."""
    return data.x_train[np.random.default_rng(seed).permutation(len(data.x_train))[:count]]


def prune(model: Any, cell: Cell, samples: np.ndarray) -> tf_lap.PruningReport:
    """Prunes a model as a cell says."""
    is_over_data = cell.score in SCORES_OVER_DATA or cell.regime == REPAIRED_OVER_DATA
    return tf_lap.prune(
        model,
        cell.sparsity,
        score=cell.score,
        allocation=cell.allocation,
        data=samples if is_over_data else None,
        repair=None if cell.regime == ONCE else True,
    )


def run() -> dict[str, Any]:
    """Measures all cells that are not measured yet, writing each down."""
    runs: list[dict[str, Any]] = json.loads(RUNS.read_text(encoding="utf-8"))["runs"] if RUNS.exists() else []
    end = time.monotonic() + 60 * float(os.environ.get("TF_LAP_MINUTES", "inf"))
    folder = trained.find_folder()
    done = {Cell(*(entry[name] for name in Cell._fields)) for entry in runs if "score" in entry}
    for (task, seed), cells in itertools.groupby(list_cells(), key=lambda cell: (cell.task, cell.seed)):
        todo = [cell for cell in cells if cell not in done]
        if not todo or time.monotonic() > end:
            continue
        model, data = trained.train(task, seed, folder), trained.TASKS[task].load()
        dense, samples = model.get_weights(), pick_samples(data, seed)
        place = {"task": task, "seed": seed, "regime": "dense"}
        if not any(place.items() <= entry.items() for entry in runs):
            runs.append({**place, "error": trained.measure_error(model, data)})
        for cell in todo:
            if time.monotonic() > end:
                break
            model.set_weights(dense)
            start = time.perf_counter()
            report = prune(model, cell, samples)
            seconds = time.perf_counter() - start
            error = trained.measure_error(model, data)
            runs.append({**cell._asdict(), "error": error, "zeros": report.sparsity, "seconds": round(seconds, 2)})
            RUNS.write_text(json.dumps({"runs": runs}) + "\n", encoding="utf-8")
    return {
        "what": f"test errors in percent of networks that are pruned once, and not trained afterwards, {SEEDS} seeds",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread of errors over seeds, by cell without the seed."""

    def name(entry: dict[str, Any]) -> str:
        place = f"{entry['task']}, {entry['regime']}"
        return f"{place}, {entry['score']} {entry['allocation']} {entry['sparsity']:.0%}" if "score" in entry else place

    return measure.spread_by_name((name(entry), entry["error"]) for entry in runs)
