"""Every quantization by every pattern: whether the sparse file answers as Keras does on x86 and in a browser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import tf_lap
from benchmarks import measure
from benchmarks.browser import difference
from benchmarks.browser.runtime import check_browser, run_in_browser
from tf_lap.export import runtime

QUANTIZATIONS = (None, "float16", "dynamic_range", "int8")
PATTERNS = ("unstructured", "2:4", "block:1x4", "block:1x16", "block:2x1", "block:4x1", "channels")
SPARSITIES = {"2:4": 0.5, "channels": 0.5}
"""The sparsity of patterns that do not take 90%."""
SAMPLES = 8


def perceptron() -> keras.Model:
    """Dense layers of width 256."""
    dense = keras.layers.Dense
    inputs = keras.Input((64,), name="numbers")
    x = dense(256, activation="relu")(dense(256, activation="relu")(inputs))
    return keras.Model(inputs, dense(16)(x), name="perceptron")


def mobile() -> keras.Model:
    """Depthwise-separable blocks of 32 channels that qualify for the sparse path, and Dense layers behind them."""
    layers = keras.layers
    inputs = x = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(32, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(x))
    for _ in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.Dense(64, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(16)(x), name="mobile")


NETWORKS: dict[str, tuple[Callable[[], keras.Model], str | None]] = {
    "Dense layers": (perceptron, None),
    "mobile": (mobile, None),
    "mobile, 1x1 kernels alone": (mobile, "xnnpack"),
}
"""By name how to make a network, and which kernels are pruned; None for all."""


class MadeFiles(NamedTuple):
    """Files by label: network, quantization, pattern.

    Attributes:
        files: TFLite files.
        inputs: for each its input by name, for one sample.
        expected: what Keras answers.
        outcomes: what was said of them when they were written, as `make_file` has it.
    """

    files: dict[str, bytes]
    inputs: dict[str, dict[str, np.ndarray]]
    expected: dict[str, np.ndarray]
    outcomes: dict[str, dict[str, Any]]


def make_file(model: keras.Model, samples: np.ndarray, quantization: Any) -> tuple[bytes, dict[str, Any]]:
    """The file that the export writes, sparse where it can, and what is said of it.

    The outcome has `sparse`, `reason` (why it is not), `runtime`, `x86` (how far its answers there are from Keras's, as
    a fraction of the largest) and `tolerance`.
    """
    settings: dict[str, Any] = {"quantization": quantization, "representative_dataset": samples, "batch_size": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            report = tf_lap.export_tflite(model, path, sparse=True, verbose=0, **settings)
            reason = None
        except ValueError as error:
            reason = str(error).removeprefix(f"sparse=True, quantization={quantization!r}: ")
            report = tf_lap.export_tflite(model, path, sparse=False, verbose=0, **settings)
        file = path.read_bytes()
    return file, {
        "sparse": report.sparse,
        "reason": reason,
        "x86": report.relative_difference,
        "runtime": report.runtime,
        "tolerance": report.tolerance,
    }


def make_files() -> MadeFiles:
    """Prunes each network by each pattern, and writes its files."""
    made = MadeFiles({}, {}, {}, {})
    for network, (make, filters) in NETWORKS.items():
        for pattern in PATTERNS:
            keras.backend.clear_session()
            keras.utils.set_random_seed(0)
            model = make()
            samples = np.random.default_rng(0).random((SAMPLES, *model.input_shape[1:]), np.float32)
            sparsity = SPARSITIES.get(pattern, 0.9)
            tf_lap.prune(model, sparsity, pattern=pattern, allocation="uniform", filters=filters)
            for quantization in QUANTIZATIONS:
                label = f"{network}, {quantization or 'float32'}, {pattern}"
                made.files[label], made.outcomes[label] = make_file(model, samples, quantization)
                (entry,) = runtime.read_inputs(runtime.find_runtime().load(made.files[label]))
                made.inputs[label], made.expected[label] = {entry.name: samples[:1]}, model(samples[:1]).numpy()
    return made


def run() -> dict[str, Any]:
    """Writes each file, and runs it in the interpreter here and in a browser.

    Raises:
        RuntimeError: there is no browser, or it fails.
    """
    check_browser()
    made = make_files()
    for label, answer in run_in_browser(made.files, made.inputs).items():
        apart = None if answer.error is not None else difference(answer, made.expected[label])
        made.outcomes[label] |= {"browser": apart, "error": answer.error}
    measured = [(label, outcome["browser"]) for label, outcome in made.outcomes.items()]
    return {
        "what": "how far from Keras files are in LiteRT.js in headless Chromium, of the largest output",
        "ratios": {label: measure.spread([max(apart, 1e-9)]) for label, apart in measured if apart is not None},
        "cases": made.outcomes,
    }
