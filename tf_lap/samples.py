"""Inputs to run a model on: the user's, in any of the usual forms, or random ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tf_lap.compat.exporting import Input

MAX_SAMPLES = 500
"""How many samples a file is calibrated with at most: more of them change little and take long."""
CHECKED_SAMPLES = 8
"""How many of these samples a file is checked with."""
_OPEN_EXTENT = 64  # in random samples, of a dimension that a model leaves open: enough for five poolings

Representative: TypeAlias = Any
"""An array, a sequence or mapping of arrays by input, a `tf.data.Dataset`, or a function that returns an iterable."""

Batch: TypeAlias = Sequence[np.ndarray]
"""The inputs of a model, in their order, each with a batch dimension."""


def read_samples(
    data: Representative,
    inputs: Sequence[Input] | None,
    argument: str = "representative_dataset",
    max_samples: int = MAX_SAMPLES,
) -> list[list[np.ndarray]]:
    """Samples from data of the user.

    Args:
        data: the user's data.
        inputs: the model's inputs, or None for a subclassed model, which must have a single one.
        argument: the name of the argument that holds the data, for errors.
        max_samples: how many samples are used at most.

    Returns:
        For each sample the model's inputs in their order, with a batch dimension and in the dtypes of the inputs. The
        batch dimension is 1, unless the model has a fixed one or a function returns larger ones.

    Raises:
        TypeError, ValueError: data of another form, without samples, not finite, or of other shapes than the inputs.
    """
    try:
        if isinstance(data, tf.data.Dataset):
            samples = _read_dataset(data, inputs, max_samples)
        elif callable(data):
            samples = [_to_columns(sample, inputs) for sample in itertools.islice(_call(data), max_samples)]
        else:
            samples = _to_rows(_to_columns(data, inputs), max_samples)
        if not samples:
            raise ValueError("it holds no samples")
        if inputs is None:
            return samples
        return [[_fit(*pair) for pair in zip(sample, inputs, strict=True)] for sample in samples]
    except TypeError as error:
        raise TypeError(f"{argument}: {error}") from error
    except ValueError as error:  # not of the error's own class: the constructor of a subclass may take other arguments
        raise ValueError(f"{argument}: {error}") from error


def join_samples(samples: Sequence[list[np.ndarray]], size: int) -> list[list[np.ndarray]]:
    """Batches of `size` samples each; the last one may have fewer."""
    return [
        [np.concatenate(column) for column in zip(*samples[i : i + size], strict=True)]
        for i in range(0, len(samples), size)
    ]


def draw_samples(inputs: Sequence[Input], argument: str = "representative_dataset") -> list[list[np.ndarray]]:
    """`CHECKED_SAMPLES` random samples, always the same: normal numbers, or zeros and ones for integer and bool inputs.

    Args:
        inputs: the model's inputs.
        argument: the name of the argument that would hold samples of the user's, for the error.

    Raises:
        ValueError: an input that is neither of numbers nor of bools.
    """
    rng = np.random.default_rng(0)
    return [[_draw(rng, entry, argument) for entry in inputs] for _ in range(CHECKED_SAMPLES)]


def _draw(rng: np.random.Generator, entry: Input, argument: str) -> np.ndarray:
    """A random array for one input of a model, with a batch dimension of 1 if the model leaves it open."""
    batch, *extents = entry.shape
    shape = (batch or 1, *(extent or _OPEN_EXTENT for extent in extents))
    if entry.dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(entry.dtype)
    if entry.dtype.kind != "f":
        kind = "text" if entry.dtype.kind == "O" else entry.dtype
        raise ValueError(f"input {entry.name!r} takes {kind}, for which none can be drawn: pass {argument}")
    return rng.standard_normal(shape).astype(entry.dtype)


def _call(function: Callable[[], Any]) -> Iterator[Any]:
    """The samples that a user's function returns."""
    samples = function()
    if not hasattr(samples, "__iter__"):
        raise TypeError(
            f"the function returned {type(samples).__name__}: expected an iterable of samples with a batch "
            "dimension, each an array, a list of arrays or a mapping from input names to arrays"
        )
    return iter(samples)


def _read_dataset(dataset: tf.data.Dataset, inputs: Sequence[Input] | None, max_samples: int) -> list[list[np.ndarray]]:
    """The first samples of a dataset, batched or not: for each an array `(1, ...)` for each input."""
    samples: list[list[np.ndarray]] = []
    for element in dataset.as_numpy_iterator():
        # As fit reads it: a tuple is (inputs, targets) or (inputs, targets, weights).
        columns = _to_columns(element[0] if isinstance(element, tuple) else element, inputs)
        if inputs is not None and columns[0].ndim == len(inputs[0].shape) - 1:
            columns = [column[np.newaxis] for column in columns]
        samples += _to_rows(columns, max_samples)
        if len(samples) >= max_samples:
            break
    return samples[:max_samples]


def _to_columns(data: Any, inputs: Sequence[Input] | None) -> list[np.ndarray]:
    """Arrays by input, in the order of the model's inputs."""
    names = ["the input"] if inputs is None else [entry.name for entry in inputs]
    if inputs is None and (isinstance(data, Mapping) or (isinstance(data, (list, tuple)) and len(data) > 1)):
        raise ValueError(
            "inputs are given by name or several of them, and a subclassed model does not tell "
            "which is which: wrap it into a Functional model, whose inputs have names"
        )
    if isinstance(data, Mapping):
        model_keys = [entry.key for entry in inputs or ()]
        keys = next((keys for keys in (model_keys, names) if set(keys) == set(data)), None)
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
    takes_text = [entry.dtype.kind == "O" for entry in inputs or ()] or [False]
    for values, is_text in zip(data, takes_text, strict=True):
        if not hasattr(values, "__array__") and not isinstance(values, (int, float)):
            raise TypeError(
                f"it holds {type(values).__name__}: expected an array, a list of arrays or a mapping "
                "of them, a tf.data.Dataset, or a function that returns an iterable of samples"
            )
        column = np.asarray(values)
        if column.dtype.kind not in ("OSU" if is_text else "biuf"):
            raise ValueError(f"it holds {column.dtype}: expected {'text' if is_text else 'real numbers'}")
        columns.append(column.astype(np.float32) if column.dtype == np.float64 else column)
    return columns


def _to_rows(columns: Sequence[np.ndarray], max_samples: int) -> list[list[np.ndarray]]:
    """Samples with a batch dimension of 1, from arrays `(samples, ...)`; if there are too many, at even distances."""
    lengths = {len(column) if column.ndim else 0 for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"different numbers of samples for the inputs: {sorted(lengths)}")
    (length,) = lengths
    picked = np.linspace(0, length - 1, min(length, max_samples)).astype(int) if length else ()
    return [[column[i : i + 1] for column in columns] for i in picked]


def _fit(array: np.ndarray, entry: Input) -> np.ndarray:
    """An array in the dtype of an input, repeated to its batch if that is fixed.

    Raises:
        ValueError: another shape than the input's, or values that are not finite.
    """
    pairs = list(zip(array.shape, entry.shape, strict=False))[1:]
    if array.ndim != len(entry.shape) or any(size not in (extent, None) for extent, size in pairs):
        raise ValueError(f"input {entry.name!r} has shape {entry.shape}, samples have {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"samples of input {entry.name!r} hold NaN or infinity")
    if entry.shape[0] is not None and len(array) == 1:
        array = np.repeat(array, entry.shape[0], axis=0)
    return array.astype(entry.dtype)
