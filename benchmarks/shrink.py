"""What is left of keras.applications when channels are pruned and removed: weights, multiply-accumulates, latency.

Every model, with and without its top, at the smallest input that it takes, with random weights: a share of the
channels of each group is pruned, the model is shrunk, and what both put out is compared. The smaller model is saved,
and loaded by plain Keras in a process of its own. Then ResNet50 and MobileNetV2 at full size and half the channels, in
float32 and int8.

Each model runs in a process of its own. What `RUNS` holds already is not repeated: remove the file to begin anew.
`TF_LAP_MINUTES` ends a run after so many minutes.
"""

from __future__ import annotations

import collections
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tf_lap
from benchmarks import measure
from benchmarks.models import FAMILIES, generalize
from tf_lap.export import runtime

RUNS = Path(__file__).parent / "results" / "shrink.json"
MODELS = (
    *FAMILIES,
    *(name for name, value in vars(keras.applications).items() if inspect.isfunction(value) and name not in FAMILIES),
)
SHARE = 0.3
SIZES = (32, 71, 75)  # of images, from the smallest that any of the models takes
FULL_SIZED, FULL_SIZE, FULL_SHARE = ("ResNet50", "MobileNetV2"), 224, 0.5
ROUNDS, REPEATS = 15, 3
CALIBRATION = 8  # samples for int8
SCALES = (1, 0.5)  # of the factors and shifts in normalizations
STABLE = 1e-4


def build(name: str, top: bool, size: int | None = None) -> keras.Model:
    """A model with random weights that takes images of the size, or of the smallest one that it takes.

    A model with a top has an average pooling and a Dense layer of 1,000 classes, or the Dense layers of VGG, without a
    softmax, which would hide differences.
    """
    for extent in SIZES if size is None else (size,):
        try:
            return getattr(keras.applications, name)(
                weights=None, include_top=top, input_shape=(extent, extent, 3), classifier_activation=None
            )
        except ValueError as error:
            refusal = error
    raise refusal


def randomize(model: keras.Model) -> None:
    """Gives biases and normalizations values as training leaves them: neither zeros nor ones.

    In a deep network they may make rounding grow to the size of the outputs. Then the factors and shifts are smaller.

    Raises:
        RuntimeError: rounding grows with the smallest ones, too.
    """
    for scale in SCALES:
        _draw_vectors(model, scale)
        growth = _measure_growth(model)
        if growth < STABLE:
            return
    raise RuntimeError(f"{model.name}: rounding grows to a share of {growth:.2g} of the outputs")


def _draw_vectors(model: keras.Model, scale: float) -> None:
    """Draws factors and variances around one, all else of one axis around zero; all but variances times a scale."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        # A Normalization layer computes with numbers that it has made of its mean and variance.
        if len(variable.shape) == 1 and variable.name not in ("mean", "variance"):
            is_factor = variable.name in ("gamma", "moving_variance")
            values = rng.uniform(0.5, 1.5, variable.shape) if is_factor else rng.normal(0, 0.1, variable.shape)
            variable.assign((values if variable.name == "moving_variance" else scale * values).astype(np.float32))


def _measure_growth(model: keras.Model) -> float:
    """By which share the outputs change where the input changes by a millionth."""
    images = draw_images(model)
    outputs, moved = (model.predict(images * factor, verbose=0) for factor in (np.float32(1), np.float32(1 + 1e-6)))
    return float(np.abs(moved - outputs).max() / np.abs(outputs).max())


def draw_images(model: keras.Model, count: int = 2) -> np.ndarray:
    """Random images, in [0, 255] as keras.applications takes them."""
    return np.random.default_rng(1).uniform(0, 255, (count, *model.input_shape[1:])).astype(np.float32)


def explain_blocks(model: keras.Model) -> tuple[int, dict[str, int]]:
    """How many groups of channels a model has, and how many of them cannot be pruned, by reason."""
    groups = tf_lap.channel_groups(model).values()
    reasons = collections.Counter(generalize(reason) for group in groups for reason in group.blocked[:1])
    return len(groups), dict(reasons.most_common())


def prune_and_shrink(model: keras.Model, share: float) -> tuple[keras.Model, dict[str, Any]]:
    """Prunes a share of the channels of each group, and removes them.

    Returns:
        The smaller model, and the costs before and after, and by how much the outputs of both differ.
    """
    before = tf_lap.cost(model)
    report = tf_lap.prune(model, share, pattern="channels", allocation="uniform")
    images = draw_images(model)
    start = time.perf_counter()
    small = tf_lap.shrink(model)
    seconds = time.perf_counter() - start
    masked, after = model.predict(images, verbose=0), tf_lap.cost(small)
    difference = np.abs(masked - small.predict(images, verbose=0)).max() / np.abs(masked).max()
    return small, {
        "sparsity": report.sparsity,
        "weights": [before.weights, after.weights],
        "macs": [before.macs, after.macs],
        "difference": float(difference),
        "seconds to shrink": round(seconds, 2),
    }


_LOAD = """
import sys, keras, numpy as np
assert "tf_lap" not in sys.modules
images, expected = np.load(sys.argv[2]), np.load(sys.argv[3])
found = keras.models.load_model(sys.argv[1]).predict(images, verbose=0)
print(np.abs(found - expected).max() / np.abs(expected).max())
"""


def load_elsewhere(model: keras.Model, folder: Path) -> float:
    """Saves a model, and lets plain Keras load it in a new process: by how much its outputs differ there."""
    paths = [folder / name for name in ("model.keras", "images.npy", "outputs.npy")]
    images = draw_images(model)
    model.save(paths[0])
    np.save(paths[1], images)
    np.save(paths[2], model.predict(images, verbose=0))
    command = [sys.executable, "-c", _LOAD, *map(str, paths)]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder)
    return float(process.stdout.splitlines()[-1])


def export(model: keras.Model, folder: Path, quantization: str | None) -> bytes:
    """The model's TFLite file for one image."""
    samples = draw_images(model, CALIBRATION) if quantization else None
    report = tf_lap.export_tflite(
        model,
        folder / "model.tflite",
        quantization=quantization,
        representative_dataset=samples,
        sparse=False,
        batch_size=1,
        verbose=0,
    )
    return report.path.read_bytes()


def time_files(files: list[bytes], image: np.ndarray) -> list[list[float]]:
    """The milliseconds of a call of each file on one thread, by turns: the medians of several repeats."""
    interpreters = [runtime.find_runtime().load(file, 1) for file in files]
    (entry,) = runtime.read_inputs(interpreters[0])
    timings = [runtime.time_in_turn(interpreters, {entry.name: image}, ROUNDS) for _ in range(REPEATS)]
    return [[timing[number].median for timing in timings] for number in range(len(files))]


def measure_model(name: str, top: bool) -> dict[str, Any]:
    """What shrinking makes of one model."""
    keras.utils.set_random_seed(0)
    model = build(name, top)
    randomize(model)
    groups, blocks = explain_blocks(model)
    with tempfile.TemporaryDirectory() as folder:
        dense = export(model, Path(folder), None)
        small, figures = prune_and_shrink(model, SHARE)
        loaded = load_elsewhere(small, Path(folder))
        files = [dense, export(small, Path(folder), None)]
    return {
        "model": name,
        "top": top,
        "size": model.input_shape[1],
        "groups": groups,
        "blocks": blocks,
        **figures,
        "difference when loaded": loaded,
        "bytes": list(map(len, files)),
        "latency": time_files(files, draw_images(model, 1)),
    }


def measure_full_size(name: str) -> dict[str, Any]:
    """The latency of one model at full size and half the channels, in float32 and int8."""
    keras.utils.set_random_seed(0)
    model = build(name, True, FULL_SIZE)
    randomize(model)
    with tempfile.TemporaryDirectory() as folder:
        kinds = (None, "int8")
        files = [export(model, Path(folder), quantization) for quantization in kinds]
        small, figures = prune_and_shrink(model, FULL_SHARE)
        files += [export(small, Path(folder), quantization) for quantization in kinds]
    latency = time_files(files, draw_images(model, 1))
    names = ("float32", "int8")
    return {
        "model": name,
        "full size": True,
        **figures,
        "bytes": {kind: [len(files[i]), len(files[i + 2])] for i, kind in enumerate(names)},
        "latency": {kind: [latency[i], latency[i + 2]] for i, kind in enumerate(names)},
    }


def list_todo(runs: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The arguments of the processes that are still to be run."""
    done = {(run["model"], run.get("top", "full")) for run in runs}
    yield from ([name, "full"] for name in FULL_SIZED if (name, "full") not in done)
    for names in (FAMILIES, MODELS[len(FAMILIES) :]):
        for top in (True, False):
            yield from ([name, "top" if top else "bare"] for name in names if (name, top) not in done)


def run() -> dict[str, Any]:
    """Measures what is not measured yet, writing each model down."""
    runs: list[dict[str, Any]] = json.loads(RUNS.read_text(encoding="utf-8"))["runs"] if RUNS.exists() else []
    end = time.monotonic() + 60 * float(os.environ.get("TF_LAP_MINUTES", "inf"))
    for arguments in list_todo(list(runs)):
        if time.monotonic() > end:
            break
        command = [sys.executable, "-m", "benchmarks.shrink", *arguments]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
        RUNS.write_text(json.dumps({"runs": runs}) + "\n", encoding="utf-8")
    return {
        "what": f"keras.applications with random weights, {SHARE:.0%} of the channels of each group pruned and "
        f"removed; latency on one thread in {runtime.find_runtime().name}, by turns, medians of {ROUNDS} rounds, "
        f"{REPEATS} times",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What is left, as fractions of what was there."""
    ratios = {}
    for run in runs:
        if "full size" in run:
            for kind, (dense, small) in run["latency"].items():
                fractions = [after / before for before, after in zip(dense, small, strict=True)]
                ratios[f"{run['model']}, {kind}: latency at half the channels"] = measure.spread(fractions)
            continue
        name = f"{run['model']}{'' if run['top'] else ' without top'}"
        dense, small = run["latency"]
        fractions = [after / before for before, after in zip(dense, small, strict=True)]
        ratios[f"{name}: latency"] = measure.spread(fractions)
        for what in ("weights", "macs"):
            before, after = run[what]
            ratios[f"{name}: {what}"] = measure.spread([after / before])
    return ratios


if __name__ == "__main__":
    name, part = sys.argv[1:]
    print(json.dumps(measure_full_size(name) if part == "full" else measure_model(name, part == "top")))
