"""TFLite files in LiteRT on 64-bit ARM, by emulation: what they answer. Times mean nothing there."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
VARIABLE = "TF_LAP_ARM64"
SECONDS = 3600
"""How long a process may take."""


def find_obstacle() -> str | None:
    """What is missing to run files on ARM, and how to get it; None where nothing is."""
    python = os.environ.get(VARIABLE)
    if python is None:
        return f"there is no ARM64 Python: benchmarks/arm64/setup.sh FOLDER, and {VARIABLE}=FOLDER/python"
    return None if Path(python).exists() else f"{VARIABLE} names {python}, which is not there"


def run_on_arm(files: Mapping[str, bytes], inputs: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Runs files on one input each.

    Args:
        files: TFLite files by name.
        inputs: for each of them its inputs by name.

    Returns:
        By file `outputs` (arrays by name) or `error`, with `machine` and `litert`, the release of LiteRT.

    Raises:
        RuntimeError: Python does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        paths = {name: home / f"{number:04}.tflite" for number, name in enumerate(files)}
        for name, path in paths.items():
            path.write_bytes(files[name])
            np.savez(path.with_suffix(".npz"), **inputs[name])
        while missing := [path for path in paths.values() if not path.with_suffix(".json").exists()]:
            process = subprocess.run(
                [os.environ[VARIABLE], str(HERE / "run_files.py"), folder],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            if process.returncode and not process.stdout:
                raise RuntimeError(f"{VARIABLE}: {process.stderr.strip()[-2000:]}")
            if process.returncode:  # a file ended the process
                crashed = next(path for path in missing if not path.with_suffix(".json").exists())
                crashed.with_suffix(".json").write_text(json.dumps({"error": f"ended by {process.returncode}"}))
        answers = {
            name: json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for name, path in paths.items()
        }
    for answer in answers.values():
        for name, (shape, numbers) in answer.get("outputs", {}).items():
            answer["outputs"][name] = np.array(numbers, np.float32).reshape(shape)
    return answers
