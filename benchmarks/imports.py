"""What importing tf_lap adds to importing Keras with TensorFlow, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from benchmarks import measure

ROUNDS = 7
KERAS = "import os; os.environ['KERAS_BACKEND'] = 'tensorflow'; import keras"
PROGRAMS = {
    "keras": KERAS,
    "import tf_lap": f"{KERAS}; import tf_lap",
    "import tf_lap, and its callback, pruner, schedule and report": (
        f"{KERAS}; import tf_lap; tf_lap.LAPCallback, tf_lap.Pruner, tf_lap.prune, tf_lap.LookaheadPruningSchedule, "
        "tf_lap.PruningReport, tf_lap.PreserveSparsity"
    ),
}


def run() -> dict[str, Any]:
    """Starts each by turns."""
    times: measure.Times = {name: [] for name in PROGRAMS}
    for number in range(ROUNDS + 1):
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
            if number:  # the first reads the files into memory
                times[name].append(time.perf_counter() - start)
    return {
        "what": f"a process that imports and ends; ratio to importing keras; by turns, {ROUNDS} rounds",
        "milliseconds": measure.milliseconds(times),
        "ratios": {name: measure.ratio(times, name, "keras") for name in PROGRAMS if name != "keras"},
    }
