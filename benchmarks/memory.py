"""`python -m benchmarks.memory WEIGHTS`: what updates add to a process's memory."""

from __future__ import annotations

import gc
import json
import math
import sys
from pathlib import Path

import tf_lap
from benchmarks import growth

PAGE = 4096
UPDATES = 12


def resident() -> int:
    """How many bytes of this process are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def peak() -> int:
    """The most bytes of this process that have been in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(weights: float) -> dict[str, int]:
    """Bytes of the weights, of the masks, and by how much more the process grows until the peak of the updates.

    Graphs, and the code that was compiled for them, are part of that growth.
    """
    model = growth.network(weights)
    weight_bytes = sum(4 * math.prod(kernel.shape) for kernel in model.weights)
    gc.collect()
    before = resident()
    pruner = tf_lap.Pruner(model, allocation="uniform")
    mask_bytes = sum(mask.dtype.size * math.prod(mask.shape) for mask in pruner.masks.values())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    for step in range(UPDATES):
        pruner.update(0.5 + 0.01 * step)
    return {"weights": weight_bytes, "masks": mask_bytes, "beyond": peak() - before - mask_bytes}


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]))))
