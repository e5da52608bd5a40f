"""How fast sparse files are in a browser, against the dense files of the same networks."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tf_lap
from benchmarks import measure
from benchmarks.browser.runtime import BrowserRun, find_obstacle, run_in_browser
from tf_lap.export import runtime

SPARSITIES = (0.8, 0.9, 0.95)
ROUNDS = 50
SIZES = {"separable": 128, "mobilenet_v2": 160}


def separable(size: int) -> keras.Model:
    """Eleven depthwise-separable blocks of 32 to 512 channels, padded alike on every side."""
    layers = keras.layers
    inputs = x = keras.Input((size, size, 3))
    x = layers.Conv2D(32, 3, strides=2, use_bias=False)(layers.ZeroPadding2D(1)(x))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5):
        if stride == 2:
            x = layers.ZeroPadding2D(1)(x)
        padding = "same" if stride == 1 else "valid"
        x = layers.DepthwiseConv2D(3, strides=stride, padding=padding, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(channels, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def mobilenet_v2(size: int) -> keras.Model:
    """MobileNetV2 with 1,000 classes, made over for devices."""
    model = keras.applications.MobileNetV2(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf_lap.warn.PruningWarning)  # its weights are random
        return tf_lap.for_devices(model)


NETWORKS = {"separable": separable, "mobilenet_v2": mobilenet_v2}


def export(model: keras.Model, **arguments: Any) -> tuple[bytes, str]:
    """A file of a model for one sample, and the name of its input."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        tf_lap.export_tflite(model, path, batch_size=1, verbose=0, **arguments)
        file = path.read_bytes()
    (entry,) = runtime.read_inputs(runtime.find_runtime().load(file))
    return file, entry.name


def difference(run: BrowserRun, expected: np.ndarray) -> float:
    """How far what the browser answers is from Keras's, as a fraction of the largest output.

    Raises:
        RuntimeError: the runtime failed.
    """
    if run.error is not None:
        raise RuntimeError(run.error)
    (output,) = run.outputs.values()
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def run() -> dict[str, Any]:
    """Prunes each network at each sparsity, and times its sparse file and its dense one by turns.

    Raises:
        RuntimeError: there is no browser, or it fails.
    """
    obstacle = find_obstacle()
    if obstacle is not None:
        raise RuntimeError(obstacle)
    ratios, milliseconds, differences = {}, {}, {}
    for name, make in NETWORKS.items():
        keras.utils.set_random_seed(0)
        model = make(SIZES[name])
        image = np.random.default_rng(0).random((1, *model.input_shape[1:]), np.float32)
        files, inputs, expected = {}, {}, {}
        for sparsity in SPARSITIES:
            tf_lap.prune(model, sparsity, filters="xnnpack", allocation="uniform")
            expected[f"{sparsity:.0%}"] = model(image).numpy()
            files[f"{sparsity:.0%}"], key = export(model, sparse=True)
            if not inputs:
                files["dense"], _ = export(model, sparse=False)
                expected["dense"] = expected[f"{sparsity:.0%}"]
                inputs["dense"] = {key: image}
            inputs[f"{sparsity:.0%}"] = {key: image}
        runs = run_in_browser(files, inputs, ROUNDS)
        for kind, outcome in runs.items():
            label = f"{name}, {kind}"
            differences[label] = difference(outcome, expected[kind])
            times = {kind: [value / 1e3 for value in outcome.milliseconds]}
            milliseconds[label] = measure.milliseconds(times)[kind]
            if kind != "dense":
                pairs = zip(outcome.milliseconds, runs["dense"].milliseconds, strict=True)
                ratios[f"{label}, by rounds"] = measure.spread([a / b for a, b in pairs])
                fastest = min(outcome.milliseconds) / min(runs["dense"].milliseconds)
                ratios[f"{label}, fastest round"] = measure.spread([fastest])
                ratios[f"{label}, bytes"] = measure.spread([len(files[kind]) / len(files["dense"])])
    return {
        "what": f"LiteRT.js in headless Chromium, WebAssembly, one thread, float32; ratio to the dense file; {ROUNDS} "
        "rounds by turns",
        "milliseconds": milliseconds,
        "differences": differences,
        "ratios": ratios,
    }
