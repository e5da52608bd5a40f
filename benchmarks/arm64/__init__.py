"""Whether files that the export writes answer as Keras does on 64-bit ARM, by emulation, and whether the rules hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from benchmarks import device_rules, measure, runtimes
from benchmarks.arm64.emulation import find_obstacle, run_on_arm
from benchmarks.device_networks import CASES

_NOTHING = 1e-9  # a difference of none, as a ratio


def judge(answer: Mapping[str, Any], expected: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Whether an answer is right ("right", "wrong", or "fails" with the error), and how far it is from Keras's."""
    if "error" in answer:
        return {"seen": "fails", "error": answer["error"].partition(";")[0]}
    outputs = [values for values in answer["outputs"].values() if values.size == expected.size]
    apart = float(np.abs(outputs[0].reshape(expected.shape) - expected).max() / np.abs(expected).max())
    return {"seen": "right" if apart <= tolerance else "wrong", "difference": apart}


def run_rules() -> dict[str, dict[str, Any]]:
    """By network of `device_rules` what the report says, and how the sparse file and the dense one ran."""
    networks = {}
    for name, case in CASES.items():
        networks[name] = device_rules.make_files(case)
        keras.backend.clear_session()
    files = {f"{name}, {kind}": file for name, network in networks.items() for kind, file in network[0].items()}
    answers = run_on_arm(files, {label: networks[label.rpartition(", ")[0]][1] for label in files})
    rules = {}
    for name, (by_kind, _, expected) in networks.items():
        tolerance = device_rules.TOLERANCES[CASES[name].quantization]
        dense, sparse = (judge(answers[f"{name}, {kind}"], expected, tolerance) for kind in ("dense", "sparse"))
        rules[name] = {"report": device_rules.predict(by_kind["sparse"]), "dense": dense["seen"], **sparse}
    return rules


def run() -> dict[str, Any]:
    """Runs the files of `runtimes`, and both files of each network of `device_rules`.

    Raises:
        RuntimeError: there is no ARM64 Python, or it does not run.
    """
    obstacle = find_obstacle()
    if obstacle is not None:
        raise RuntimeError(obstacle)
    made = runtimes.make_files()
    answers = run_on_arm(made.files, made.inputs)
    files = {
        label: judge(answer, made.expected[label], made.outcomes[label]["tolerance"])
        for label, answer in answers.items()
    }
    rules = run_rules()
    right = [(name, o["difference"]) for name, o in (files | rules).items() if o["seen"] == "right"]
    release = next(answer for answer in answers.values() if "litert" in answer)
    return {
        "what": f"how far from Keras files are in LiteRT {release['litert']} on {release['machine']}, emulated by "
        "qemu, of the largest output",
        "ratios": {name: measure.spread([max(apart, _NOTHING)]) for name, apart in right},
        "files": files,
        "rules": rules,
    }
