"""Runs an experiment cell by cell, keeps each finished cell on disk, and gathers all cells.

A cell is one training: that of a dense network, or one after pruning.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import platform
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from tf_lap import scores
from tf_lap.files import replaced
from tf_lap.reproduce.charts import Progress, draw_error_chart, format_table
from tf_lap.reproduce.datasets import CommandError
from tf_lap.reproduce.experiments import Experiment
from tf_lap.reproduce.training import BATCH_SIZE, make_batches, measure_error, train

_Value = TypeVar("_Value")

ORDERS = ("forward", "backward")
METHODS = (*scores.names(), *ORDERS)
"""Scores by name, and orders of lookahead."""


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs one experiment in one folder.

    Args:
        experiment: what to run.
        output: the folder: `cells/` holds a file for each training, `results.json` and `errors.png` show all of them.
        command: the command line, without the machine's paths.

    Raises:
        CommandError: the folder holds another experiment.
    """

    experiment: Experiment
    output: Path
    command: str

    def __post_init__(self) -> None:
        self._cells.mkdir(parents=True, exist_ok=True)
        path, settings = self.output / "settings.json", self._settings
        if path.exists():
            on_disk = json.loads(path.read_text(encoding="utf-8"))
            if on_disk != settings:
                raise CommandError(
                    f"--output {self.output}: holds results of {on_disk['experiment']} with other settings "
                    f"({on_disk}; these would be {settings}): use another folder"
                )
        else:
            _write(path, settings)

    @property
    def _cells(self) -> Path:
        return self.output / "cells"

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        experiment = self.experiment
        settings = {
            "experiment": experiment.name,
            "train": len(experiment.arrays["y_train"]),
            "test": len(experiment.arrays["y_test"]),
            "data_crc32": _compute_checksum(experiment.arrays[name] for name in sorted(experiment.arrays)),
            "steps_before_pruning": experiment.steps[0],
            "steps_after_pruning": experiment.steps[1],
            "batch_size": BATCH_SIZE,
            "optimizer": "Adam",
            "learning_rate": experiment.learning_rate,
            "rates": dict(experiment.rates),
        }
        return settings | dict(experiment.settings)

    def run(self, seeds: Sequence[int], rounds: Sequence[int], methods: Sequence[str]) -> dict[str, Any]:
        """Trains the cells that are not on disk yet, and returns all cells, as `results.json` holds them.

        Args:
            seeds: one dense network for each.
            rounds: how far to prune.
            methods: members of `METHODS`.

        Raises:
            CommandError: a dense network is missing, and cells that were pruned from it are there.
        """
        seeds, rounds, methods = _drop_repeated(seeds), _drop_repeated(rounds), _drop_repeated(methods)
        cells = [cell for cell in itertools.product(seeds, rounds, methods) if not self._path(*cell).exists()]
        # Without cells to prune from it, a dense network needs no weights.
        dense_seeds = [
            seed
            for seed in seeds
            if not self._path(seed).exists()
            or (not self._weights(seed).exists() and any(cell[0] == seed for cell in cells))
        ]
        self._check_dense_networks(dense_seeds)
        progress = Progress(len(dense_seeds) + len(cells), max(self.experiment.steps))
        watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: progress.step(batch + 1))
        if dense_seeds or cells:
            model = self.experiment.build()
        for seed in seeds:
            if seed in dense_seeds:
                progress.begin(f"seed {seed}, dense")
                self._train(model, seed, watch)
            for _, t, method in (cell for cell in cells if cell[0] == seed):
                progress.begin(f"seed {seed}, {method}, t = {t}")
                self._retrain(model, seed, t, method, watch)
                self.gather()
        progress.close()
        return self.gather()

    def _check_dense_networks(self, seeds: Sequence[int]) -> None:
        """Raises CommandError where a dense network would be trained again, and cells pruned from the first are there.

        A network that is trained again is another one.
        """
        for seed in seeds:
            pruned = sorted(path.name for path in self._cells.glob(f"seed{seed}_t*.json"))
            if pruned:
                raise CommandError(
                    f"--output {self.output}: {self._weights(seed).name}, from which {', '.join(pruned)} were pruned, "
                    "is missing: put it back, delete these cells, or use another folder"
                )

    def gather(self) -> dict[str, Any]:
        """Writes all cells that are on disk into `results.json`, and returns its content."""
        cells = [json.loads(path.read_text(encoding="utf-8")) for path in self._cells.glob("*.json")]
        cells.sort(key=lambda cell: (cell.get("rounds", 0), cell.get("method", ""), cell["seed"]))
        results = {
            **self._settings,
            "commands": sorted({cell["command"] for cell in cells}),
            "dense": [_drop_keys(cell, "command") for cell in cells if "method" not in cell],
            "retrained": [_drop_keys(cell, "command") for cell in cells if "method" in cell],
        }
        _write(self.output / "results.json", results)
        return results

    def show(self, results: Mapping[str, Any]) -> str:
        """Draws the chart of the results, and returns their table."""
        dense = [cell["error"] for cell in results["dense"]]
        curves: dict[str, dict[float, list[float]]] = {}
        for cell in results["retrained"]:
            curves.setdefault(cell["method"], {}).setdefault(cell["sparsity"], []).append(cell["error"])
        draw_error_chart(self.output / "errors.png", f"{self.experiment.name}, mean and range of seeds", dense, curves)
        return format_table(dense, curves, digits=2)

    def _train(self, model: keras.Model, seed: int, watch: keras.callbacks.Callback) -> None:
        start = time.monotonic()
        keras.utils.set_random_seed(seed)
        weights = train(
            model,
            self.experiment.build().get_weights(),
            self._make_batches((seed, 0), 0),
            self.experiment.learning_rate,
            [watch],
        )
        with replaced(self._weights(seed)) as file:
            np.savez(file, *weights)
        self._finish(self._path(seed), {"seed": seed, "error": self._measure_error(model)}, start)

    def _retrain(self, model: keras.Model, seed: int, t: int, method: str, watch: keras.callbacks.Callback) -> None:
        start = time.monotonic()
        with np.load(self._weights(seed)) as archive:
            trained = [archive[name] for name in archive.files]
        schedule = tf_lap.LookaheadPruningSchedule(self.experiment.sparsities(t), decay="one_shot")
        pruning = tf_lap.LAPCallback(schedule, allocation="uniform", **self._choose_arguments(method, seed))
        train(model, trained, self._make_batches((seed, 1), 1), self.experiment.learning_rate, [pruning, watch])
        report = pruning.report
        cell = {"seed": seed, "rounds": t, "method": method, "sparsity": report.sparsity}
        cell |= {"kept": report.kept, "weights": report.weights, "error": self._measure_error(model)}
        # With the layers that stay whole, such as the shortcuts of a ResNet.
        cell["kept_of_all"] = sum(layer.kept for layer in report.layers)
        cell["weights_of_all"] = sum(layer.weights for layer in report.layers)
        self._finish(self._path(seed, t, method), cell, start)

    def _choose_arguments(self, method: str, seed: int) -> dict[str, Any]:
        """The arguments of `LAPCallback` that a method's name stands for."""
        if method in ORDERS:
            return {"score": "lookahead", "order": method}
        if scores.get(method).needs_data:
            return {"score": method, "data": self.experiment.pick_samples()}
        return {"score": tf_lap.scores.Random(seed) if method == "random" else method}

    def _finish(self, path: Path, cell: dict[str, Any], start: float) -> None:
        versions = {"tf_lap": tf_lap.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
        versions["python"] = platform.python_version()
        seconds = round(time.monotonic() - start, 1)
        _write(path, {**cell, "seconds": seconds, "versions": versions, "command": self.command})

    def _make_batches(self, seed: tuple[int, int], part: int) -> tf.data.Dataset:
        arrays = self.experiment.arrays
        return make_batches(
            arrays["x_train"], arrays["y_train"], self.experiment.steps[part], seed, self.experiment.prepare
        )

    def _measure_error(self, model: keras.Model) -> float:
        return measure_error(model, self.experiment.arrays["x_test"], self.experiment.arrays["y_test"])

    def _path(self, seed: int, rounds: int | None = None, method: str | None = None) -> Path:
        cell = "dense" if rounds is None else f"t{rounds}_{method}"
        return self._cells / f"seed{seed}_{cell}.json"

    def _weights(self, seed: int) -> Path:
        return self._cells / f"seed{seed}_dense.npz"


def _drop_repeated(values: Iterable[_Value]) -> list[_Value]:
    return list(dict.fromkeys(values))


def _drop_keys(cell: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name not in names}


def _compute_checksum(arrays: Iterable[np.ndarray]) -> str:
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return f"{crc:08x}"


def _write(path: Path, content: Any) -> None:
    with replaced(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
