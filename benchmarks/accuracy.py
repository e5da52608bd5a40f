"""How many digits a network gets right that tf_lap, tfmot and PQuantML prune while it trains on, from the same weights.

PQuantML needs an older TensorFlow than tf_lap is developed with, and so an environment of its own: PQUANTML_PYTHON
names its Python. Without it PQuantML is left out.

Fits that `RUNS` holds already are not repeated, so that a run that was stopped goes on: remove the file to begin anew.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tf_keras

import tf_lap
import tf_lap.tfmot  # before tfmot, which sets an environment variable for good
from benchmarks import digits_cnn, measure
from benchmarks.digits_cnn import Digits, Measured

import tensorflow_model_optimization as tfmot  # isort: skip

RUNS = Path(__file__).parent / "results" / "accuracy.json"
SPARSITIES = (0.98, 0.95, 0.9)
SEEDS = 5
SCORES, ALLOCATIONS = ("magnitude", "lookahead"), ("lamp", "uniform", "global")
PQUANTML_METHODS = ("PDP", "Wanda")
PQUANTML_PYTHON = os.environ.get("PQUANTML_PYTHON")


class Start(NamedTuple):
    """What the fits of a seed begin with.

    Attributes:
        digits: the data.
        seed: what the order of the batches depends on.
        weights: of the network that was trained without pruning.
    """

    digits: Digits
    seed: int
    weights: Sequence[np.ndarray]


Tool = Callable[[Start, float], Measured]


def prune_by_tf_lap(start: Start, sparsity: float, **choices: str) -> Measured:
    """Prunes with `LAPCallback`; `choices` are its arguments."""
    model = digits_cnn.network(keras)
    model.set_weights(start.weights)
    schedule = tf_lap.LookaheadPruningSchedule(
        sparsity, begin_step=0, end_step=digits_cnn.END_STEP, frequency=digits_cnn.FREQUENCY
    )
    callbacks = [tf_lap.LAPCallback(schedule, **choices)] if sparsity else []
    digits_cnn.fit(model, keras, start.digits, start.seed, digits_cnn.PRUNING_EPOCHS, callbacks)
    return digits_cnn.measure(model, start.digits)


def prune_by_tfmot(start: Start, sparsity: float) -> Measured:
    """Prunes with `prune_low_magnitude`, on tf_keras."""
    model = digits_cnn.network(tf_keras)
    model.set_weights(start.weights)
    tools = tfmot.sparsity.keras
    schedule = tools.PolynomialDecay(0.0, sparsity, 0, digits_cnn.END_STEP, power=3, frequency=digits_cnn.FREQUENCY)
    pruned = tools.prune_low_magnitude(model, pruning_schedule=schedule)
    callbacks = [tools.UpdatePruningStep()]
    digits_cnn.fit(pruned, tf_keras, start.digits, start.seed, digits_cnn.PRUNING_EPOCHS, callbacks)
    return digits_cnn.measure(tools.strip_pruning(pruned), start.digits)


def prune_by_pquantml(start: Start, sparsity: float, method: str) -> Measured:
    """Prunes with PQuantML, in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        np.savez(weights, *start.weights)
        command = [
            str(PQUANTML_PYTHON),
            "-m",
            "benchmarks.pquantml",
            str(weights),
            method,
            str(sparsity),
            str(start.seed),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def tools() -> dict[str, Tool]:
    """The ways to prune, by name."""
    by_name: dict[str, Tool] = {
        f"tf_lap {score} {allocation}": functools.partial(prune_by_tf_lap, score=score, allocation=allocation)
        for allocation in ALLOCATIONS
        for score in SCORES
    }
    by_name["tfmot"] = prune_by_tfmot
    if PQUANTML_PYTHON:
        by_name |= {f"PQuantML {m}": functools.partial(prune_by_pquantml, method=m) for m in PQUANTML_METHODS}
    return by_name


def run() -> dict[str, Any]:
    """Does all fits that are not done yet, writing each down, and gives the fractions of digits that are right."""
    runs = json.loads(RUNS.read_text(encoding="utf-8"))["runs"] if RUNS.exists() else []
    digits = digits_cnn.load()
    for seed in range(SEEDS):
        fits: list[tuple[str, float, Tool]] = [("unpruned", 0.0, prune_by_tf_lap)]
        fits += [(name, sparsity, tool) for sparsity in SPARSITIES for name, tool in tools().items()]
        done = {(fit["tool"], fit["sparsity"]) for fit in runs if fit["seed"] == seed}
        missing = [fit for fit in fits if fit[:2] not in done]
        if not missing:
            continue
        start = Start(digits, seed, digits_cnn.train_dense(digits, seed))
        for name, sparsity, tool in missing:
            runs.append({"seed": seed, "tool": name, "sparsity": sparsity, **tool(start, sparsity)._asdict()})
            print(runs[-1], flush=True)
            RUNS.parent.mkdir(exist_ok=True)
            RUNS.write_text(json.dumps({"runs": runs}, indent=2) + "\n", encoding="utf-8")
    return {
        "what": f"{digits_cnn.describe()}; then {digits_cnn.PRUNING_EPOCHS} epochs of "
        f"{digits_cnn.STEPS_PER_EPOCH} steps of Adam {digits_cnn.RATE}, pruned from 0 to step {digits_cnn.END_STEP}, "
        "in the same order of data; the fraction of test images that is right, by the sparsity asked for",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread over seeds, by tool and sparsity."""
    ordered = sorted(runs, key=lambda fit: (fit["sparsity"], fit["tool"]))
    return measure.spread_by_name(
        (f"{fit['tool']}, {fit['sparsity']:.0%}" if fit["sparsity"] else fit["tool"], fit["right"]) for fit in ordered
    )
