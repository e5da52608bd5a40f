"""Inputs to run a model on: those that the user gives, in any of the usual forms, or random ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap.compat.exporting import Input

MOST = 500
"""How many samples a file is calibrated with: more change little and take long."""
CHECKED = 8
"""How many of them a file is checked with."""
_OPEN = 64  # the extent of an open dimension: enough for five poolings

Representative = Any
"""An array, a sequence or mapping of arrays by input, a `tf.data.Dataset`, or a function that returns an iterable."""


def given(
    data: Representative, inputs: Sequence[Input] | None, what: str = "representative_dataset", most: int = MOST
) -> list[list[np.ndarray]]:
    """Samples from what the user passes: for each the inputs in their order.

    Args:
        data: the user's.
        inputs: the model's inputs, or None for a subclassed model, which must have one.
        what: the argument's name, for errors.
        most: how many are used at most.

    Raises:
        TypeError, ValueError: of a kind that is not served, empty, not finite, or of other shapes than the inputs.
    """
    try:
        if isinstance(data, tf.data.Dataset):
            found = _of_dataset(data, inputs, most)
        elif callable(data):
            found = [_columns(each, inputs) for each in itertools.islice(_called(data), most)]
        else:
            found = _rows(_columns(data, inputs), most)
        if not found:
            raise ValueError("it holds no samples")
        if inputs is None:
            return found
        return [[_fitting(*each) for each in zip(sample, inputs, strict=True)] for sample in found]
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from error
    except ValueError as error:  # or a subclass of it, whose own making may take other arguments
        raise ValueError(f"{what}: {error}") from error


def batched(samples: Sequence[list[np.ndarray]], size: int) -> list[list[np.ndarray]]:
    """Single samples put together to batches."""
    return [
        [np.concatenate(column) for column in zip(*samples[i : i + size], strict=True)]
        for i in range(0, len(samples), size)
    ]


def drawn(inputs: Sequence[Input]) -> list[list[np.ndarray]]:
    """Random samples, always the same: normal numbers, and zeros and ones where whole numbers are asked.

    Raises:
        ValueError: an input takes neither.
    """
    rng = np.random.default_rng(0)
    return [[_draw(rng, each) for each in inputs] for _ in range(CHECKED)]


def _draw(rng: np.random.Generator, wanted: Input) -> np.ndarray:
    batch, *rest = wanted.shape
    shape = (batch or 1, *(extent or _OPEN for extent in rest))
    if wanted.dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(wanted.dtype)
    if wanted.dtype.kind != "f":
        raise ValueError(
            f"input {wanted.name!r} takes {wanted.dtype}, for which none can be drawn: pass representative_dataset"
        )
    return rng.standard_normal(shape).astype(wanted.dtype)


def _called(function: Callable[[], Any]) -> Iterator[Any]:
    made = function()
    if not hasattr(made, "__iter__"):
        raise TypeError(
            f"the function returned {type(made).__name__}: expected an iterable of samples with a batch "
            "dimension, each an array, a list of arrays or a mapping from input names to arrays"
        )
    return iter(made)


def _of_dataset(dataset: tf.data.Dataset, inputs: Sequence[Input] | None, most: int | None) -> list[list[np.ndarray]]:
    found: list[list[np.ndarray]] = []
    for element in dataset.as_numpy_iterator():
        # As fit takes it: a tuple is (inputs, targets) or (inputs, targets, weights).
        columns = _columns(element[0] if isinstance(element, tuple) else element, inputs)
        if inputs is not None and columns[0].ndim == len(inputs[0].shape) - 1:
            columns = [column[np.newaxis] for column in columns]
        found += _rows(columns, most)
        if len(found) >= most:
            break
    return found[:most]


def _columns(data: Any, inputs: Sequence[Input] | None) -> list[np.ndarray]:
    """Arrays by input, in the order of the model's inputs."""
    names = ["the input"] if inputs is None else [each.name for each in inputs]
    if inputs is None and (isinstance(data, Mapping) or (isinstance(data, (list, tuple)) and len(data) > 1)):
        raise ValueError(
            "inputs are given by name or several of them, and a subclassed model does not tell "
            "which is which: wrap it into a Functional model, whose inputs have names"
        )
    if isinstance(data, Mapping):
        keys = next((k for k in ([each.key for each in inputs or ()], names) if set(k) == set(data)), None)
        if keys is None:
            raise ValueError(f"it has {sorted(data)}; the model's inputs are {names}")
        data = [data[key] for key in keys]
    elif not isinstance(data, (list, tuple)):
        data = [data]
    if len(data) != len(names):
        raise ValueError(
            f"it gives {len(data)} arrays for {len(names)} inputs ({', '.join(map(repr, names))}); "
            "pass one array, or for several inputs a list of them or a mapping by name"
        )
    columns = []
    for each in data:
        if not hasattr(each, "__array__") and not isinstance(each, (int, float)):
            raise TypeError(
                f"it holds {type(each).__name__}: expected an array, a list of arrays or a mapping "
                "of them, a tf.data.Dataset, or a function that returns an iterable of samples"
            )
        column = np.asarray(each)
        if column.dtype.kind not in "biuf":
            raise ValueError(f"it holds {column.dtype}: expected real numbers")
        columns.append(column.astype(np.float32) if column.dtype == np.float64 else column)
    return columns


def _rows(columns: Sequence[np.ndarray], most: int) -> list[list[np.ndarray]]:
    """Single samples with a batch dimension of 1; of too many, such that lie evenly among them."""
    lengths = {len(column) if column.ndim else 0 for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"different numbers of samples for the inputs: {sorted(lengths)}")
    (length,) = lengths
    picked = np.linspace(0, length - 1, min(length, most)).astype(int) if length else ()
    return [[column[i : i + 1] for column in columns] for i in picked]


def _fitting(array: np.ndarray, wanted: Input) -> np.ndarray:
    pairs = list(zip(array.shape, wanted.shape, strict=False))[1:]
    if array.ndim != len(wanted.shape) or any(size not in (extent, None) for extent, size in pairs):
        raise ValueError(f"input {wanted.name!r} has shape {wanted.shape}, samples have {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"samples of input {wanted.name!r} hold NaN or infinity")
    if wanted.shape[0] is not None and len(array) == 1:
        array = np.repeat(array, wanted.shape[0], axis=0)
    return array.astype(wanted.dtype)
