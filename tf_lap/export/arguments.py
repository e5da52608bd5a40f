"""The arguments of an export, checked before any work is done."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_lap.compat.exporting import Input
from tf_lap.export.check import TOLERANCES
from tf_lap.files import AnyPath, as_path


def check_choices(quantization: Any, representative_dataset: Any, sparse: Any) -> None:
    """Raises ValueError unless these have values that `export_tflite` knows, which go together."""
    if not isinstance(quantization, (str, type(None))) or quantization not in TOLERANCES:
        raise ValueError(f"quantization={quantization!r} is not known: use one of {list(TOLERANCES)}")
    if not isinstance(sparse, bool) and sparse != "auto":
        raise ValueError(f"sparse={sparse!r}: expected True, False or 'auto'")
    if quantization == "int8" and representative_dataset is None:
        raise ValueError(
            "quantization='int8' calibrates activations: pass representative_dataset, typical inputs such as "
            "x_train[:500], a tf.data.Dataset, or a function that returns samples"
        )


def check_micro(micro: bool, integer_io: bool, quantization: Any, sparse: Any) -> None:
    """Raises ValueError unless these go together."""
    if integer_io and quantization != "int8":
        raise ValueError(f"integer_io=True, quantization={quantization!r}: pass quantization='int8' too")
    if micro and sparse is True:
        raise ValueError("micro=True, sparse=True: TFLite Micro has no sparse tensors: leave sparse out")
    if micro and quantization not in (None, "int8"):
        raise ValueError(
            f"micro=True, quantization={quantization!r}: TFLite Micro computes in float32 and int8: pass None or 'int8'"
        )


def check_shapes(inputs: Sequence[Input]) -> None:
    """Raises ValueError where an input has an open axis, for which TFLite Micro cannot plan memory."""
    for entry in inputs:
        if None in entry.shape:
            raise ValueError(
                f"micro=True: input {entry.name!r} has the shape {entry.shape}, and TFLite Micro takes fixed ones "
                "alone: build the model with a keras.Input of fixed sizes"
            )


def check_batch_size(batch_size: Any) -> int | None:
    """The batch size as an int, or None.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than 1.
    """
    if batch_size is None:
        return None
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__"):
        raise TypeError(f"batch_size={batch_size!r}: expected a whole number, or None for the model's own batch")
    if operator.index(batch_size) < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected at least 1, or None for the model's own batch")
    return operator.index(batch_size)


def check_path(path: AnyPath) -> Path:
    """The path as a `Path`.

    Raises:
        TypeError: it is no path.
        OSError: no file can be written there.
    """
    target = as_path(path)
    if target.is_dir() or not target.name:
        raise IsADirectoryError(f"path={str(target)!r} is a directory: name the file to write in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={str(target)!r}: there is no directory {str(target.parent)!r}")
    with tempfile.TemporaryFile(dir=target.parent):  # raises where nothing can be written
        pass
    return target
