"""The demo: one trained network, pruned by magnitude and by lookahead, each retrained with the same budget.

Both methods get the same trained weights, the same number of weights in each layer, the same batches in the same order
and a fresh optimizer with the same settings. The settings are those of the paper's perceptron (Park et al., 2020) and
of its authors' code; none was searched for.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import itertools
import json
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from tf_lap.charts import Progress, error_chart, table

METHODS = ("magnitude", "lookahead")
BATCH_SIZE = 60
LEARNING_RATE = 0.0012
CLASSES = 10
HIDDEN_LAYERS = 4
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# How far to prune, as `Task.rounds`; less far the two methods hardly differ, with the authors' code as well.
DIGITS_ROUNDS = (6, 7, 8)
MNIST_ROUNDS = (7, 8, 9)
# How many steps Keras runs in one call of the compiled loop; more gain no more speed.
_STEPS_PER_EXECUTION = 50


class DemoError(Exception):
    """A mistake of the user's, or a thing missing on the machine, with what to do about it."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train, and how far to prune it.

    Attributes:
        name: the data's name.
        arrays: `x_train` and `x_test`, float32 `(images, pixels)`, and `y_train` and `y_test`, integers `(images,)`.
        width: neurons in a hidden layer.
        rounds: the sparsities: after t rounds, layers keep 0.5^t of their weights, and the last one 0.75^t.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    width: int
    rounds: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The network's layers: pixels, hidden neurons, classes."""
        return (self.arrays["x_train"].shape[1], *[self.width] * HIDDEN_LAYERS, CLASSES)

    @property
    def title(self) -> str:
        """The data's name and the network's shape."""
        return f"{self.name}, perceptron {'-'.join(map(str, self.widths))}"


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
        weights: its weights.
    """

    dense: list[float] = dataclasses.field(default_factory=list)
    retrained: list[Retrained] = dataclasses.field(default_factory=list)
    report: tf_lap.PruningReport = dataclasses.field(default_factory=lambda: tf_lap.PruningReport(()))
    weights: list[np.ndarray] = dataclasses.field(default_factory=list)

    def curves(self) -> dict[str, dict[float, list[float]]]:
        """For each method and sparsity the errors of the single seeds."""
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
        DemoError: a package or file is missing, the file is not of that layout, or the folder cannot be written.
    """
    _require("matplotlib")
    task = digits() if data is None else from_npz(data)
    _check_writable(output)
    train, test = len(task.arrays["y_train"]), len(task.arrays["y_test"])
    print(f"{task.title}; {train:,} images to train and {test:,} to test; {steps:,} steps before and after pruning")
    outcome = measure(task, seeds, steps)
    print(f"\n{table(outcome.dense, outcome.curves())}\n")
    print(f"Pruned with lookahead to the highest sparsity, first seed:\n{outcome.report}\n")
    try:
        paths = write(task, outcome, output, steps)
    except OSError as error:
        raise DemoError(f"--output {output}: writing failed ({error.strerror or error})") from error
    print("\n".join(paths))


def digits() -> Task:
    """scikit-learn's handwritten digits: 1,297 images to train and 500 to test, a split that is always the same.

    Raises:
        DemoError: scikit-learn is missing.
    """
    _require("sklearn")
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[500:], order[:500]
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return Task("digits", _standardized(arrays), 300, DIGITS_ROUNDS)


def from_npz(path: Path) -> Task:
    """The data of an npz file in the layout of `keras.datasets.mnist`.

    Raises:
        DemoError: no such file, or not of that layout.
    """
    wanted = f"expected the npz layout of keras.datasets.mnist, with the arrays {', '.join(ARRAYS)}"
    try:
        with path.open("rb") as file, np.load(file) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if missing:
                raise DemoError(f"--data {path}: has no {', '.join(missing)}; {wanted}")
            arrays = {name: archive[name] for name in ARRAYS}
    except FileNotFoundError as error:
        raise DemoError(f"--data {path}: no such file") from error
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # TypeError and AttributeError: an npy file loads as an array, which is no archive.
        raise DemoError(f"--data {path}: cannot be read ({error}); {wanted}") from error
    for part in ("train", "test"):
        _check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    return Task(path.stem, _standardized(arrays), 500, MNIST_ROUNDS)


def _check_part(path: Path, part: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 3 or x.shape[1:] != (28, 28) or x.dtype.kind not in "uif" or not len(x):
        raise DemoError(
            f"--data {path}: x_{part} has shape {x.shape} and dtype {x.dtype}; expected numbers, (images, 28, 28)"
        )
    if not np.isfinite(x).all():
        raise DemoError(f"--data {path}: x_{part} holds NaN or infinity")
    if y.shape != (len(x),) or y.dtype.kind not in "ui":
        raise DemoError(
            f"--data {path}: y_{part} has shape {y.shape} and dtype {y.dtype}; expected integers of shape ({len(x)},), "
            f"one for each image of x_{part}"
        )
    if y.min() < 0 or y.max() >= CLASSES:
        raise DemoError(
            f"--data {path}: y_{part} holds labels from {y.min()} to {y.max()}; expected 0 to {CLASSES - 1}"
        )


def _standardized(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Images as rows of pixels, over one mean and one standard deviation, those of the training images."""
    labels = {name: array.astype(np.int32) for name, array in arrays.items() if name.startswith("y")}
    pixels = {name: arrays[name].reshape(len(arrays[name]), -1).astype(np.float32) for name in ("x_train", "x_test")}
    mean, deviation = pixels["x_train"].mean(), pixels["x_train"].std() or np.float32(1)
    return {**labels, **{name: (images - mean) / deviation for name, images in pixels.items()}}


def measure(task: Task, seeds: int, steps: int) -> Outcome:
    """Trains one network for each seed; prunes its weights by both methods at each sparsity, and retrains."""
    outcome, fractions = Outcome(), {t: layer_sparsities(t) for t in task.rounds}
    progress = Progress(seeds * (1 + len(task.rounds) * len(METHODS)), steps)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: progress.step(batch + 1))
    model = perceptron(task.widths)
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        progress.begin(f"seed {seed}, dense")
        trained = train(model, perceptron(task.widths).get_weights(), batches(task, steps, (seed, 0)), [watch])
        outcome.dense.append(error_of(model, task))
        for t, method in itertools.product(task.rounds, METHODS):
            progress.begin(f"seed {seed}, {method}, hidden layers at {1 - 0.5**t:.2%}")
            schedule = tf_lap.LookaheadPruningSchedule(fractions[t], decay="one_shot")
            pruning = tf_lap.LAPCallback(schedule, score=method)
            weights = train(model, trained, batches(task, steps, (seed, 1)), [pruning, watch])
            report = pruning.report
            outcome.retrained.append(Retrained(seed, t, method, report.sparsity, report.kept, error_of(model, task)))
            if (seed, t, method) == (0, task.rounds[-1], "lookahead"):
                outcome.report, outcome.weights = report, weights
    progress.close()
    return outcome


def perceptron(widths: Sequence[int]) -> keras.Sequential:
    """A fresh network with ReLU between its layers, named dense_1, dense_2 and so on.

    Kernels and biases start as the authors' do, by PyTorch's default for linear layers: uniform within
    1 / sqrt(inputs) on either side of zero.
    """
    layers: list[Any] = [keras.Input((widths[0],))]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        bound = inputs**-0.5
        layers.append(
            keras.layers.Dense(
                outputs,
                activation="relu" if number < len(widths) - 1 else None,
                kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
                bias_initializer=keras.initializers.RandomUniform(-bound, bound),
                name=f"dense_{number}",
            )
        )
    return keras.Sequential(layers)


def layer_sparsities(rounds: int) -> dict[str, float]:
    """The fraction of zeros in each layer after some rounds: half of the weights go in each, a quarter in the last."""
    hidden = {f"dense_{number}": 1 - 0.5**rounds for number in range(1, HIDDEN_LAYERS + 1)}
    return {**hidden, f"dense_{HIDDEN_LAYERS + 1}": 1 - 0.75**rounds}


def batches(task: Task, steps: int, seed: Sequence[int]) -> tf.data.Dataset:
    """As many batches as steps, the training set shuffled anew each time it is through; the seed settles the order."""
    x, y = tf.constant(task.arrays["x_train"]), tf.constant(task.arrays["y_train"])
    generator, wanted = np.random.default_rng(seed), steps * BATCH_SIZE
    order = np.concatenate([generator.permutation(len(x)) for _ in range(-(-wanted // len(x)))])[:wanted]
    picks = tf.data.Dataset.from_tensor_slices(order.reshape(steps, BATCH_SIZE))
    return picks.map(lambda pick: (tf.gather(x, pick), tf.gather(y, pick))).prefetch(8)


def train(
    model: keras.Model, weights: list[np.ndarray], data: tf.data.Dataset, callbacks: Sequence[keras.callbacks.Callback]
) -> list[np.ndarray]:
    """Trains the model from these weights on, with a fresh optimizer, and returns the weights it ends with."""
    model.set_weights(weights)
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # A few calls for each training at least: TensorFlow warns of a function that it traces nearly every time.
        steps_per_execution=max(1, min(_STEPS_PER_EXECUTION, len(data) // 4)),
        # Trainings are many and short: compiling each takes longer than it saves.
        jit_compile=False,
    )
    model.fit(data, shuffle=False, callbacks=list(callbacks), verbose=0)
    return model.get_weights()


def error_of(model: keras.Model, task: Task) -> float:
    """The fraction of test images that the model gets wrong."""
    guesses = np.argmax(model(task.arrays["x_test"]), axis=-1)
    return float(np.mean(guesses != task.arrays["y_test"]))


def write(task: Task, outcome: Outcome, output: Path, steps: int) -> list[str]:
    """Writes the sparse model, the chart and the results, and returns a line about each file.

    Raises:
        OSError: a file cannot be written.
    """
    model_path, chart_path, results_path = (output / name for name in ("sparse.keras", "errors.png", "results.json"))
    # A fresh network: the trained one would take its optimizer's state into the file.
    sparse = perceptron(task.widths)
    sparse.set_weights(outcome.weights)
    sparse.save(model_path)
    packed = len(gzip.compress(model_path.read_bytes()))
    title = f"{task.title}, mean and range of {len(outcome.dense)} seeds"
    error_chart(chart_path, title, outcome.dense, outcome.curves())
    results_path.write_text(json.dumps(_results(task, outcome, steps), indent=2) + "\n", encoding="utf-8")
    return [
        f"sparse model  {model_path} ({model_path.stat().st_size:,} bytes, gzipped {packed:,})",
        f"chart         {chart_path}",
        f"results       {results_path}",
    ]


def _results(task: Task, outcome: Outcome, steps: int) -> dict[str, Any]:
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


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        remedy = 'pip install "tf_lap[demo]"'
        raise DemoError(f"{package} is needed and cannot be imported ({error}): {remedy}") from error


def _check_writable(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise DemoError(f"--output {output}: cannot be written ({error.strerror or error})") from error
