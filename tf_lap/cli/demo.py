"""The demo: one trained network, pruned by magnitude and by lookahead, each retrained with the same budget.

Both methods get the same trained weights, the same number of weights in each layer, the same batches in the same order
and a fresh optimizer with the same settings. The settings are those of the paper's perceptron (Park et al., 2020) and
of its authors' code; none was tuned.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import itertools
import json
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from tf_lap.reproduce.charts import Progress, draw_error_chart, format_table
from tf_lap.reproduce.datasets import (
    HIDDEN_LAYERS,
    CommandError,
    Task,
    check_writable,
    load_digits_task,
    load_npz_task,
    require,
)
from tf_lap.reproduce.networks import perceptron, perceptron_rates, sparsities
from tf_lap.reproduce.training import BATCH_SIZE, make_batches, measure_error, train

METHODS = ("magnitude", "lookahead")
LEARNING_RATE = 0.0012


@dataclasses.dataclass(frozen=True)
class Retrained:
    """One network, pruned and retrained; `error` is the fraction of test images that it gets wrong."""

    seed: int
    rounds: int
    method: str
    sparsity: float
    kept: int
    error: float


@dataclasses.dataclass
class Outcome:
    """What was measured.

    Attributes:
        dense: the error of each seed's network before pruning.
        retrained: the errors after it.
        report: the pruning report of the sparsest lookahead model of the first seed.
        weights: the weights of that model.
    """

    dense: list[float] = dataclasses.field(default_factory=list)
    retrained: list[Retrained] = dataclasses.field(default_factory=list)
    report: tf_lap.PruningReport = dataclasses.field(default_factory=lambda: tf_lap.PruningReport((), 0, 0, {}))
    weights: list[np.ndarray] = dataclasses.field(default_factory=list)

    def curves(self) -> dict[str, dict[float, list[float]]]:
        """The errors of the seeds, by method and sparsity."""
        curves: dict[str, dict[float, list[float]]] = {method: {} for method in METHODS}
        for entry in self.retrained:
            curves[entry.method].setdefault(entry.sparsity, []).append(entry.error)
        return curves


def run(data: Path | None, output: Path, seeds: int, steps: int) -> None:
    """Trains, prunes, retrains, prints a table and a report, and writes the files.

    Args:
        data: an npz file in the layout of `keras.datasets.mnist`, or None for scikit-learn's digits.
        output: the folder to write to.
        seeds: how many networks to train.
        steps: training steps before pruning, and again after it.

    Raises:
        CommandError: a package or file is missing, the file is not of that layout, or the folder cannot be written.
    """
    require("matplotlib")
    task = load_digits_task() if data is None else load_npz_task(data)
    check_writable(output)
    train, test = len(task.arrays["y_train"]), len(task.arrays["y_test"])
    print(f"{task.title}; {train:,} images to train and {test:,} to test; {steps:,} steps before and after pruning")
    outcome = measure(task, seeds, steps)
    print(f"\n{format_table(outcome.dense, outcome.curves())}\n")
    print(f"Pruned with lookahead to the highest sparsity, first seed:\n{outcome.report}\n")
    try:
        paths = write(task, outcome, output, steps)
    except OSError as error:
        raise CommandError(f"--output {output}: writing failed ({error.strerror or error})") from error
    print("\n".join(paths))
    file = output / "sparse.tflite"
    try:
        exported = tf_lap.export_tflite(
            rebuild_network(task, outcome), file, representative_dataset=task.arrays["x_test"]
        )
    except (OSError, tf_lap.ExportError) as error:
        raise CommandError(f"{file}: not written ({error})") from error
    print(f"\nExported to TFLite:\n{exported.timed()}")
    print(f"\n{describe_shrunk(rebuild_network(task, outcome), task)}")


def describe_shrunk(sparse: keras.Sequential, task: Task) -> str:
    """A line on what stays of a sparse model without the neurons that nobody reads, or that are constant."""
    small = tf_lap.shrink(sparse)
    test = task.arrays["x_test"], task.arrays["y_test"]
    cost = tf_lap.cost(small)
    zeros = 1 - cost.nonzero / cost.weights
    widths = "-".join(str(layer.units) for layer in small.layers)
    return (
        f"shrunk: {sparse.count_params():,} weights, {measure_error(sparse, *test):.2%} errors -> {cost.weights:,} "
        f"weights, {measure_error(small, *test):.2%} errors; {zeros:.2%} of them are zero (widths {widths})"
    )


def measure(task: Task, seeds: int, steps: int) -> Outcome:
    """Trains one network for each seed; prunes its weights by both methods at each sparsity, and retrains."""
    outcome, fractions = Outcome(), {t: layer_sparsities(t) for t in task.rounds}
    data = functools.partial(make_batches, task.arrays["x_train"], task.arrays["y_train"])
    test = task.arrays["x_test"], task.arrays["y_test"]
    progress = Progress(seeds * (1 + len(task.rounds) * len(METHODS)), steps)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: progress.step(batch + 1))
    model = perceptron(task.widths)
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        progress.begin(f"seed {seed}, dense")
        trained = train(model, perceptron(task.widths).get_weights(), data(steps, (seed, 0)), LEARNING_RATE, [watch])
        outcome.dense.append(measure_error(model, *test))
        for t, method in itertools.product(task.rounds, METHODS):
            progress.begin(f"seed {seed}, {method}, hidden layers at {1 - 0.5**t:.2%}")
            schedule = tf_lap.LookaheadPruningSchedule(fractions[t], decay="one_shot")
            pruning = tf_lap.LAPCallback(schedule, score=method, allocation="uniform")
            weights = train(model, trained, data(steps, (seed, 1)), LEARNING_RATE, [pruning, watch])
            report = pruning.report
            outcome.retrained.append(
                Retrained(seed, t, method, report.sparsity, report.kept, measure_error(model, *test))
            )
            if (seed, t, method) == (0, task.rounds[-1], "lookahead"):
                outcome.report, outcome.weights = report, weights
    progress.close()
    return outcome


def layer_sparsities(rounds: int) -> dict[str, float]:
    """The fraction of zeros in each layer. A round drops half of a layer's weights, a quarter in the last layer."""
    return sparsities(perceptron_rates(HIDDEN_LAYERS), rounds)


def rebuild_network(task: Task, outcome: Outcome) -> keras.Sequential:
    """The sparsest lookahead model of the first seed, without the state of its training."""
    sparse = perceptron(task.widths)
    sparse.set_weights(outcome.weights)
    return sparse


def write(task: Task, outcome: Outcome, output: Path, steps: int) -> list[str]:
    """Writes the sparse model, the chart and the results, and returns a line about each file.

    Raises:
        OSError: a file cannot be written.
    """
    model_path, chart_path, results_path = (output / name for name in ("sparse.keras", "errors.png", "results.json"))
    rebuild_network(task, outcome).save(model_path)
    packed = len(gzip.compress(model_path.read_bytes()))
    title = f"{task.title}, mean and range of {len(outcome.dense)} seeds"
    draw_error_chart(chart_path, title, outcome.dense, outcome.curves())
    results_path.write_text(json.dumps(_as_json(task, outcome, steps), indent=2) + "\n", encoding="utf-8")
    return [
        f"sparse model  {model_path} ({model_path.stat().st_size:,} bytes, gzipped {packed:,})",
        f"chart         {chart_path}",
        f"results       {results_path}",
    ]


def _as_json(task: Task, outcome: Outcome, steps: int) -> dict[str, Any]:
    return {
        "data": {"name": task.name, "train": len(task.arrays["y_train"]), "test": len(task.arrays["y_test"])},
        "settings": {
            "widths": task.widths,
            "steps_before_pruning": steps,
            "steps_after_pruning": steps,
            "batch_size": BATCH_SIZE,
            "optimizer": "Adam",
            "learning_rate": LEARNING_RATE,
            "initial_weights": "uniform within 1 / sqrt(inputs) of zero, biases as well",
            "layer_sparsities": {rounds: layer_sparsities(rounds) for rounds in task.rounds},
        },
        "versions": {
            "tf_lap": tf_lap.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "seeds": list(range(len(outcome.dense))),
        "dense": [{"seed": seed, "error": error} for seed, error in enumerate(outcome.dense)],
        "retrained": [dataclasses.asdict(entry) for entry in outcome.retrained],
        "report": outcome.report.to_dict(),
    }
