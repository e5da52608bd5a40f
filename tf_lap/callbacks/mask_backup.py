"""Masks and step on disk, so that an interrupted training goes on with the same zeros."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap.compat.types import Variable
from tf_lap.files import remove_unfinished, replaced

_FILE = "tf_lap_backup.npz"


class PruningState(NamedTuple):
    """How far pruning is.

    Attributes:
        step: training steps done.
        iterations: the optimizer's count of them at that moment.
        masks: bool arrays by layer path.
        callback_class: the name of the callback's class; empty in a backup, which only LAPCallback writes.
    """

    step: int
    iterations: int
    masks: dict[str, np.ndarray]
    callback_class: str = ""


def match_masks(
    kernels: Mapping[str, Variable], state: PruningState, source: str, callback_class: str
) -> dict[str, np.ndarray]:
    """The masks of a restored training, bool arrays by the paths that its kernels have now.

    Keras numbers layers without a name throughout a process. So where paths differ, masks are matched by their order.

    Args:
        kernels: the kernels that this fit has masks for, with their restored weights, by layer path.
        state: what was restored.
        source: the directory that it comes from.
        callback_class: the name of the class of the callback that sets masks now.

    Raises:
        ValueError: the masks are not those of these kernels, or a callback of another class set them.
    """
    if state.callback_class and state.callback_class != callback_class:
        raise ValueError(
            f"backup_dir={source!r} holds a training that was killed in a fit with {state.callback_class}, and this "
            f"fit has {callback_class}: give each fit a directory of its own, or delete this one to begin anew"
        )
    masks = state.masks
    if masks.keys() != kernels.keys() and len(masks) == len(kernels):
        masks = dict(zip(kernels, masks.values(), strict=True))
    belong = masks.keys() == kernels.keys() and all(
        masks[path].shape == tuple(kernel.shape) and not np.any(tf.convert_to_tensor(kernel).numpy()[~masks[path]])
        for path, kernel in kernels.items()
    )
    if not belong:
        raise ValueError(
            f"backup_dir={source!r} holds masks of the layers {', '.join(state.masks)}, and this fit holds masks on "
            f"{', '.join(kernels)}. Start the training with the filters and the trainable layers that it had, or "
            "delete the directory to begin anew"
        )
    return masks


def save(directory: str | os.PathLike[str], state: PruningState) -> None:
    """Writes a backup, complete or not at all. A byte holds the mask of eight weights.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {path: mask.shape for path, mask in state.masks.items()}
    index = {"step": state.step, "iterations": state.iterations, "shapes": shapes}
    arrays: dict[str, Any] = {f"mask_{i}": np.packbits(mask) for i, mask in enumerate(state.masks.values())}
    with replaced(folder / _FILE) as file:
        np.savez(file, index=np.array(json.dumps(index)), **arrays)


def load(directory: str | os.PathLike[str]) -> PruningState | None:
    """Reads the backup in a directory; None where there is none.

    Raises:
        ValueError: the file is damaged, or is no backup.
    """
    path = Path(directory) / _FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            return _read(file)
        except Exception as error:  # damage raises any of a dozen kinds
            raise ValueError(
                f"backup_dir={os.fspath(directory)!r}: {path.name} is damaged or is no backup of masks "
                f"({type(error).__name__}: {error}). Delete the directory to begin anew"
            ) from error


def _read(file: io.BufferedReader) -> PruningState:
    with zipfile.ZipFile(file) as archive:
        # A member's checksum is compared at its end, so members are read to it before they are used.
        arrays = {name: np.load(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    index = json.loads(str(arrays["index.npy"]))
    masks = {
        path: unpack_mask(arrays[f"mask_{i}.npy"], shape) for i, (path, shape) in enumerate(index["shapes"].items())
    }
    return PruningState(index["step"], index["iterations"], masks)


def unpack_mask(bits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A bool mask of this shape, from the uint8 vector that `np.packbits` made of it."""
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def delete(directory: str | os.PathLike[str]) -> None:
    """Removes the backup of a training that came to its end."""
    path = Path(directory) / _FILE
    path.unlink(missing_ok=True)
    remove_unfinished(path)
