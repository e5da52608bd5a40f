"""`python -m benchmarks [name ...]`: runs the benchmarks, prints their tables and writes them to benchmarks/results."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

NAMES = (
    "accuracy",
    "one_shot",
    "first_updates",
    "mask_update",
    "growth",
    "training_steps",
    "wrapped_steps",
    "wrapped_tracing",
    "graphs",
    "imports",
    "tflite",
    "export",
    "browser",
    "device_rules",
    "runtimes",
    "arm64",
    "models",
    "choosing",
    "gradual",
    "steps",
    "channels",
    "repair",
    "shrink",
)
RESULTS = Path(__file__).parent / "results"


def find_versions() -> dict[str, Any]:
    """The versions of the packages and the machine that figures are measured with."""
    packages = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization", "tf_lap")
    installed = {name: importlib.import_module(name).__version__ for name in packages}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed["ai_edge_litert"] = importlib.metadata.version("ai-edge-litert")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed["keras_hub"] = importlib.metadata.version("keras-hub")
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(), **installed}


def format_table(result: dict[str, Any]) -> str:
    """A row for each ratio."""
    width = max(map(len, result["ratios"]))
    rows = [f"{'':{width}}  median  least   most"]
    rows += [
        f"{name:{width}}  {ratio['median']:6.3f} {ratio['least']:6.3f} {ratio['most']:6.3f}"
        for name, ratio in result["ratios"].items()
    ]
    return "\n".join(rows)


def main() -> None:
    """Runs the benchmarks that the command line names, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--device", help="where mask_update and growth run, as GPU:0; the CPU by default")
    arguments = parser.parse_args()
    names = arguments.names
    if unknown := set(names) - set(NAMES):
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    for name in names or NAMES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        command, file = f"python -m benchmarks {name}", name
        if arguments.device and hasattr(benchmark, "DEVICE"):
            benchmark.DEVICE = arguments.device
            command, file = f"{command} --device {arguments.device}", f"{name}_{arguments.device.replace(':', '')}"
        result = benchmark.run() | {"command": command, "versions": find_versions()}
        print(f"{name}: {result['what']}\n\n{format_table(result)}\n")
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{file}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
