"""Masks and step on disk, so that an interrupted training goes on with the same zeros."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tf_lap.files import replaced

_FILE = "tf_lap_backup.npz"


class State(NamedTuple):
    """What a backup holds.

    Attributes:
        step: training steps done.
        iterations: the optimizer's own count of them at that moment.
        masks: bool arrays by layer path.
    """

    step: int
    iterations: int
    masks: dict[str, np.ndarray]


def save(directory: str | os.PathLike[str], step: int, iterations: int, masks: Mapping[str, np.ndarray]) -> None:
    """Writes a backup: eight weights a byte, complete or not at all."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    index = {"step": step, "iterations": iterations, "shapes": {path: mask.shape for path, mask in masks.items()}}
    packed = {f"mask_{i}": np.packbits(mask) for i, mask in enumerate(masks.values())}
    with replaced(folder / _FILE) as file:
        np.savez(file, index=np.array(json.dumps(index)), **packed)


def load(directory: str | os.PathLike[str]) -> State | None:
    """Reads the backup in a directory; None where there is none."""
    path = Path(directory) / _FILE
    if not path.exists():
        return None
    with np.load(path) as file:
        index = json.loads(str(file["index"]))
        masks = {}
        for i, (name, shape) in enumerate(index["shapes"].items()):
            flat = np.unpackbits(file[f"mask_{i}"], count=int(np.prod(shape)))
            masks[name] = flat.reshape(shape).astype(bool)
    return State(index["step"], index["iterations"], masks)


def delete(directory: str | os.PathLike[str]) -> None:
    """Removes the backup of a training that came to its end."""
    (Path(directory) / _FILE).unlink(missing_ok=True)
