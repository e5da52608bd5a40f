"""What a repair of a large model takes: ResNet50 with random weights, 256 images of 96 by 96."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks import measure


def run() -> dict[str, Any]:
    """Runs `benchmarks.repair_resnet50` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.repair_resnet50"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = json.loads(output.splitlines()[-1])
    return {
        "what": "ResNet50 with random weights, pruned to 80% and repaired with 256 images of 96 by 96, once",
        "ratios": {f"ResNet50: {what}": measure.spread([figure]) for what, figure in figures.items()},
    }
