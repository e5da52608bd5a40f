"""`python run_files.py FOLDER`, on any machine with LiteRT: runs FOLDER/*.tflite on the inputs in FOLDER/*.npz.

What a file answers, or the error, goes into a .json file of the same name. Files that have one are left out, so that a
run goes on where a file ended the process.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def run_file(path: Path) -> dict[str, Any]:
    """The outputs of a file by name, or the error."""
    with np.load(path.with_suffix(".npz")) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        outputs = interpreter.get_signature_runner("serving_default")(**inputs)
    except (RuntimeError, ValueError) as error:
        return {"error": str(error)}
    return {"outputs": {name: [value.shape, np.ravel(value).tolist()] for name, value in outputs.items()}}


def main() -> None:
    """Runs the files of a folder one after another."""
    folder = Path(sys.argv[1])
    about = {"machine": platform.machine(), "litert": version("ai-edge-litert")}
    for path in sorted(folder.glob("*.tflite")):
        answer = path.with_suffix(".json")
        if not answer.exists():
            print(path.name, flush=True)
            answer.write_text(json.dumps(about | run_file(path)), encoding="utf-8")


if __name__ == "__main__":
    main()
