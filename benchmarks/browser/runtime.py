"""TFLite files in LiteRT.js, in WebAssembly in a headless Chromium: what they answer, and how fast they are."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SECONDS = 600
"""How long a run may take."""
STEP_SECONDS = 60
"""How long one step of it may take: opening the page, loading a file, running it once."""


@dataclasses.dataclass(frozen=True)
class BrowserRun:
    """What a browser did with one file.

    Attributes:
        outputs: its outputs by name; empty where it failed.
        error: what the runtime wrote to the console or raised; None where it did neither. The runtime hands back stale
            numbers, and no error, where XNNPACK fails in it.
        milliseconds: of each round.
    """

    outputs: dict[str, np.ndarray]
    error: str | None
    milliseconds: tuple[float, ...]


def find_obstacle() -> str | None:
    """What is missing to run files in a browser, and how to get it; None where nothing is."""
    if shutil.which("node") is None:
        return "node is not installed: apt-get install nodejs npm"
    if not Path(_chromium()).exists():
        return "Chromium is not installed: apt-get install chromium, or name its program in the variable CHROMIUM"
    if not (HERE / "node_modules" / "playwright-core").exists():
        return f"the npm packages are not installed: npm ci --prefix {HERE.relative_to(HERE.parents[1])}"
    return None


def check_browser() -> None:
    """Raises RuntimeError where files cannot be run in a browser, with what is missing."""
    obstacle = find_obstacle()
    if obstacle is not None:
        raise RuntimeError(obstacle)


def _chromium() -> str:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"


def run_in_browser(
    files: Mapping[str, bytes], inputs: Mapping[str, Mapping[str, np.ndarray]], rounds: int = 0, repeats: int = 1
) -> dict[str, BrowserRun]:
    """Runs files on one input each, and times them by turns on one thread.

    Args:
        files: TFLite files by name.
        inputs: for each of them its inputs by name.
        rounds: how often each is timed, after three rounds that are not counted; 0 for not at all.
        repeats: how many calls a round has.

    Raises:
        RuntimeError: the browser itself failed, or took longer than `SECONDS`; with what the page's console says.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        limits = {"seconds": SECONDS, "step_seconds": STEP_SECONDS}
        job: dict[str, Any] = {"rounds": rounds, "repeats": repeats, **limits, "files": []}
        for number, (name, file) in enumerate(files.items()):
            (home / f"{number}.tflite").write_bytes(file)
            entries = {}
            for place, (key, array) in enumerate(inputs[name].items()):
                (home / f"{number}_{place}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
                entry = {"file": f"/job/{number}_{place}.bin", "dtype": str(array.dtype), "shape": list(array.shape)}
                entries[key] = entry
            job["files"].append({"name": name, "file": f"/job/{number}.tflite", "inputs": entries})
        (home / "job.json").write_text(json.dumps(job), encoding="utf-8")
        process = subprocess.run(
            ["node", "run.mjs", folder],
            cwd=HERE,
            env={**os.environ, "CHROMIUM": _chromium()},
            capture_output=True,
            text=True,
            timeout=SECONDS + STEP_SECONDS,  # it ends by itself before
        )
        if process.returncode:
            raise RuntimeError(f"node run.mjs: {process.stderr.strip()[-2000:]}")
        result = json.loads((home / "result.json").read_text(encoding="utf-8"))
    return {
        name: BrowserRun(
            {key: _read_output(output) for key, output in outcome.get("answer", {}).items()},
            outcome.get("error"),
            tuple(result["times"].get(name, ())),
        )
        for name, outcome in result["files"].items()
    }


def _read_output(output: Mapping[str, Any]) -> np.ndarray:
    return np.array([float(number) for number in output["numbers"]], np.float32).reshape(output["shape"])
