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
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def peak() -> int:
    """The most bytes of this process in memory so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(weights: float) -> dict[str, int]:
    """Bytes of the weights, of masks, and by how much more the process grows until the updates' peak.

    In that are its graphs, and the code that was compiled for them.
    """
    model = growth.network(weights)
    own = sum(4 * math.prod(kernel.shape) for kernel in model.weights)
    gc.collect()
    before = resident()
    pruner = tf_lap.Pruner(model)
    masks = sum(mask.dtype.size * math.prod(mask.shape) for mask in pruner.masks.values())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    for step in range(UPDATES):
        pruner.update(0.5 + 0.01 * step)
    return {"weights": own, "masks": masks, "beyond": peak() - before - masks}


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]))))
