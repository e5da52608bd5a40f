"""Whether the device report predicts what XNNPACK's sparse path does in a browser, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from benchmarks import measure
from benchmarks.browser import difference, export
from benchmarks.browser.runtime import BrowserRun, check_browser, run_in_browser
from benchmarks.device_networks import CASES, Case, make
from tf_lap.compat import converting
from tf_lap.devices.describing import describe_graph
from tf_lap.tflite.operations import read_operations

ROUNDS = 50
TOGETHER = 8
"""How many networks are timed by turns."""
TOLERANCES: Mapping[str | None, float] = {None: 1e-4, "float16": 1e-2, "int8": 0.2}
"""How far outputs may be from Keras's, as a fraction of the largest."""
SPARSE, DENSE, FAILS = "sparse", "dense", "fails"


def make_files(case: Case) -> tuple[dict[str, bytes], dict[str, np.ndarray], np.ndarray]:
    """A network's dense file and its sparse one, whatever is wrong with it; their input; and what Keras answers.

    Of several outputs the last one is answered.
    """
    model = make(case)
    image = np.random.default_rng(0).random((1, *model.input_shape[1:]), np.float32)
    samples = {"representative_dataset": image} if case.quantization == "int8" else {}
    dense, key = export(model, sparse=False, quantization=case.quantization, **samples)
    answer = model(image)
    answer = answer[-1] if isinstance(answer, list) else answer
    return {DENSE: dense, SPARSE: converting.without_zeros(dense)}, {key: image}, answer.numpy()


def predict(file: bytes) -> str:
    """What the report says of a file with its zeros left out."""
    report = describe_graph(read_operations(file), "file")
    if report.failing and any(cluster.runs_sparse for cluster in report.clusters):
        return FAILS
    return SPARSE if report.runs_sparse else DENSE


def observe(case: Case, runs: Mapping[str, BrowserRun], expected: np.ndarray) -> dict[str, Any]:
    """What a browser did with a sparse file and a dense one.

    Raises:
        RuntimeError: the dense file failed too, or its numbers are wrong.
    """
    tolerance = TOLERANCES[case.quantization]
    if measure_difference(runs[DENSE], expected) > tolerance:
        raise RuntimeError("the dense file computes wrongly")
    if runs[SPARSE].error is not None:
        return {"seen": FAILS, "error": runs[SPARSE].error.partition(";")[0].removeprefix("ERROR: ")}
    ratio = min(runs[SPARSE].milliseconds) / min(runs[DENSE].milliseconds)
    apart = measure_difference(runs[SPARSE], expected)
    if apart > tolerance:
        return {"seen": FAILS, "difference": apart, "ratio": ratio}
    seen = SPARSE if ratio < 0.7 else DENSE if 0.9 <= ratio <= 1.1 else "between"
    return {"seen": seen, "difference": apart, "ratio": ratio}


def measure_difference(run: BrowserRun, expected: np.ndarray) -> float:
    """How far the output of the expected size is from Keras's."""
    outputs = {
        name: values.reshape(expected.shape) for name, values in run.outputs.items() if values.size == expected.size
    }
    return difference(BrowserRun(outputs, run.error, run.milliseconds), expected)


def run() -> dict[str, Any]:
    """Runs the files of each network in a browser, and compares with what the report says.

    Raises:
        RuntimeError: there is no browser, or it fails.
    """
    check_browser()
    outcomes: dict[str, dict[str, Any]] = {}
    for first in range(0, len(CASES), TOGETHER):
        made = {name: make_files(CASES[name]) for name in list(CASES)[first : first + TOGETHER]}
        keras.backend.clear_session()
        files = {f"{name}, {kind}": file for name, (by_kind, _, _) in made.items() for kind, file in by_kind.items()}
        inputs = {label: made[label.rpartition(", ")[0]][1] for label in files}
        runs = run_in_browser(files, inputs, ROUNDS)
        for name, (by_kind, _, expected) in made.items():
            seen = observe(CASES[name], {kind: runs[f"{name}, {kind}"] for kind in by_kind}, expected)
            outcomes[name] = {"report": predict(by_kind[SPARSE]), **seen}
    return {
        "what": f"LiteRT.js in headless Chromium, WebAssembly, one thread; the fastest of {ROUNDS} rounds by turns, "
        "the sparse file to the dense one",
        "ratios": {name: measure.spread([o["ratio"]]) for name, o in outcomes.items() if "ratio" in o},
        "cases": outcomes,
    }
