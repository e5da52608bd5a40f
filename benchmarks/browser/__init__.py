"""How fast sparse files are in a browser, against the dense files of the same networks."""

from __future__ import annotations

import functools
import platform
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tf_lap
from benchmarks import measure
from benchmarks.browser.runtime import BrowserRun, check_browser, run_in_browser
from tf_lap.export import runtime as interpreters

ROUNDS = 50
SIZES = {"separable": 128}
SIZE = 160
"""Rows and columns of the image of other networks."""


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


def make_over(name: str, size: int) -> keras.Model:
    """A network of keras.applications with 1,000 classes, made over for devices."""
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf_lap.warn.PruningWarning)  # its weights are random
        return tf_lap.for_devices(model)


NETWORKS: dict[str, Callable[[int], keras.Model]] = {
    "separable": separable,
    "mobilenet_v2": functools.partial(make_over, "MobileNetV2"),
    "mobilenet_v3_small": functools.partial(make_over, "MobileNetV3Small"),
    "mobilenet_v3_large": functools.partial(make_over, "MobileNetV3Large"),
}
_THREE = ((0.8, "unstructured"), (0.9, "unstructured"), (0.95, "unstructured"))
_BLOCKS = ((0.9, "block:2x1"), (0.9, "block:4x1"))
PRUNED: dict[str, Sequence[tuple[float, str]]] = {
    "separable": (*_THREE, *_BLOCKS),
    "mobilenet_v2": (*_THREE, *_BLOCKS),
    "mobilenet_v3_small": _THREE[1:2],
    "mobilenet_v3_large": _THREE[1:2],
}
"""By network the sparsities and patterns that it is pruned by."""


def prune(model: keras.Model, sparsity: float, pattern: str) -> None:
    """Prunes the kernels that run sparse by a pattern, and Dense layers, which then are smaller in the file."""
    tf_lap.prune(model, sparsity, filters="xnnpack", allocation="uniform", pattern=pattern)
    heads = [f"^{layer.name}$" for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if heads:
        tf_lap.prune(model, sparsity, filters=heads, allocation="uniform")


def export(model: keras.Model, **arguments: Any) -> tuple[bytes, str]:
    """A file of a model for one sample, and the name of its input."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        tf_lap.export_tflite(model, path, batch_size=1, verbose=0, **arguments)
        file = path.read_bytes()
    (entry,) = interpreters.read_inputs(interpreters.find_runtime().load(file))
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


def time_here(name: str, files: Mapping[str, bytes], sample: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """How long sparse files take in the interpreter here, on one thread, to the dense one: the fastest rounds."""
    here = interpreters.find_runtime()
    timings = interpreters.time_in_turn([here.load(file, 1) for file in files.values()], sample, ROUNDS)
    fastest = {way: timing.least for way, timing in zip(files, timings, strict=True)}
    return {
        f"{name}, {way}, fastest round on {platform.machine()}": measure.spread([least / fastest["dense"]])
        for way, least in fastest.items()
        if way != "dense"
    }


def run() -> dict[str, Any]:
    """Prunes each network in each way, and times its sparse files and its dense one by turns.

    Raises:
        RuntimeError: there is no browser, or it fails.
    """
    check_browser()
    ratios, milliseconds, differences = {}, {}, {}
    for name, make in NETWORKS.items():
        files, inputs, expected = {}, {}, {}
        for sparsity, pattern in PRUNED[name]:
            keras.backend.clear_session()
            keras.utils.set_random_seed(0)
            model = make(SIZES.get(name, SIZE))
            image = np.random.default_rng(0).random((1, *model.input_shape[1:]), np.float32)
            prune(model, sparsity, pattern)
            way = f"{sparsity:.0%}" + ("" if pattern == "unstructured" else f" {pattern}")
            expected[way] = model(image).numpy()
            files[way], key = export(model, sparse=True)
            if not inputs:
                files["dense"], _ = export(model, sparse=False)
                expected["dense"] = expected[way]
                inputs["dense"] = {key: image}
            inputs[way] = {key: image}
        ratios |= time_here(name, files, inputs["dense"])
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
