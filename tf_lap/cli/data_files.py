"""Inputs and labels from an npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap.cli.errors import CommandError
from tf_lap.compat.exporting import Input

TO_MEASURE = ("", "_test", "_val", "_train")
TO_FIT = ("", "_train", "_val", "_test")
"""The endings of names, those that come first first: what is fitted is not measured with."""


class Data(NamedTuple):
    """What a file holds for a model.

    Attributes:
        columns: an array for each input of the model, in their order.
        labels: what is right, `(samples, ...)`; None where the file has none.
        names: what the arrays are called in the file.
    """

    columns: list[np.ndarray]
    labels: np.ndarray | None
    names: str


def read_data(path: Path, inputs: Sequence[Input] | None, endings: Sequence[str]) -> Data:
    """Reads the arrays of a file that a model takes. No object is unpickled.

    Args:
        path: an npz file with x and y, with x_train, y_train and so on, or with the model's inputs by name and y.
        inputs: the model's inputs; None where these are not known, and one is expected.
        endings: which of several pairs is taken.

    Raises:
        CommandError: it cannot be read, or has none of these.
    """
    arrays = _load(path)
    for ending in endings:
        if f"x{ending}" in arrays and (inputs is None or len(inputs) == 1):
            return _make(path, [f"x{ending}"], f"y{ending}", arrays)
    for key in ("key", "name"):
        names = [getattr(entry, key) for entry in inputs or ()]
        if names and set(names) <= arrays.keys():
            label = next((f"y{ending}" for ending in endings if f"y{ending}" in arrays), "y")
            return _make(path, names, label, arrays)
    expected = "x" if inputs is None or len(inputs) == 1 else ", ".join(entry.name for entry in inputs)
    raise CommandError(
        f"--data {path}: it holds {', '.join(arrays) or 'nothing'}; expected {expected} and, where labels are "
        "needed, y: numpy.savez('data.npz', x=x, y=y)"
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise CommandError(f"--data {path}: cannot be read as an npz file of numbers ({error})") from error


def _make(path: Path, names: Sequence[str], label: str, arrays: Mapping[str, np.ndarray]) -> Data:
    columns, labels = [arrays[name] for name in names], arrays.get(label)
    lengths = {len(array) if array.ndim else 0 for array in (*columns, *([] if labels is None else [labels]))}
    if len(lengths) > 1 or 0 in lengths:
        raise CommandError(
            f"--data {path}: its arrays have {sorted(lengths)} samples: expected as many of each, and one or more"
        )
    return Data(columns, labels, ", ".join(names))


def as_inputs(columns: Sequence[np.ndarray], model: Any) -> Any:
    """The inputs of a model as its `predict` takes them: text as tensors, since Keras takes no arrays of it."""
    columns = [tf.constant(column) if column.dtype.kind in "US" else column for column in columns]
    structure = getattr(model, "input", None) if len(columns) > 1 else None
    if isinstance(structure, Mapping):
        return dict(zip(sorted(structure), columns, strict=True))
    return list(columns) if len(columns) > 1 else columns[0]
