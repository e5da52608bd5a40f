"""Second moments of what kernels read, measured over data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.moments.rows import RowReader
from tf_lap.samples import Batch

Record: TypeAlias = Callable[[int, tf.Tensor], None]
"""Takes the number of a kernel, and rows that it is multiplied by: `(groups, positions, row_size)`."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """The moments of the rows that a kernel is multiplied by, float64.

    Attributes:
        second: the mean of `x x^T` over the rows of each group: `(groups, row_size, row_size)`.
        mean: the mean row of each group: `(groups, row_size)`.
        count: how many rows they are of; None where they are not measured.
    """

    second: np.ndarray
    mean: np.ndarray
    count: int | None = None

    def centred(self) -> Moments:
        """The moments of the rows less their mean: the covariance."""
        outer = self.mean[:, :, np.newaxis] * self.mean[:, np.newaxis, :]
        return Moments(self.second - outer, np.zeros_like(self.mean), self.count)


class _Reached(BaseException):
    """Ends a call of the model where all that was waited for has been read; no `except Exception` may catch it."""


class InputObserver:
    """Runs a model over data, and shows the rows that kernels are multiplied by.

    Args:
        model: the model.
        readers: what reads the rows of each kernel, by the kernels' numbers.
        data: batches of the model's inputs.

    Attributes:
        order: the kernels in the order in which a run of the model is done with them, first to last; those whose
            layers are not called at inference are left out.
    """

    def __init__(self, model: Model, readers: Mapping[int, RowReader], data: Sequence[Batch]) -> None:
        self._model, self._readers, self._data = model, readers, data
        self._calls: Counter[int] = Counter()  # by the id of the layer
        self.order = self._find_order()

    def observe(self, numbers: Collection[int], record: Record) -> None:
        """Runs the model over all batches, each as far as these kernels, and shows their rows.

        Args:
            numbers: the kernels' numbers.
            record: is called for each part of the rows of each of them.
        """
        for batch in self._data:
            self._run(batch, numbers, record)

    def observe_batches(self, numbers: Collection[int]) -> Iterator[dict[int, list[np.ndarray]]]:
        """As `observe`, but gives the rows of one batch after another.

        Yields:
            By the kernels' numbers the parts of their rows, `(groups, positions, row_size)`.
        """
        for batch in self._data:
            parts: dict[int, list[np.ndarray]] = {number: [] for number in numbers}
            self._run(batch, numbers, lambda number, rows, parts=parts: parts[number].append(rows.numpy()))
            yield parts

    def _find_order(self) -> list[int]:
        """Runs the first samples through the whole model, and notes which layers are called when."""
        finished: dict[int, int] = {}  # by the id of the layer, the number of its last call among all

        def note(layer: Layer, *_: Any) -> None:
            self._calls[id(layer)] += 1
            finished[id(layer)] = self._calls.total()

        samples = slice(None) if exporting.has_fixed_batch(self._model) else slice(0, 2)
        with self._watching({id(r.layer): r.layer for r in self._readers.values()}, note):
            exporting.tensors(self._model, [array[samples] for array in self._data[0]])
        called = [number for number, reader in self._readers.items() if id(reader.layer) in finished]
        return sorted(called, key=lambda number: finished[id(self._readers[number].layer)])

    def _run(self, batch: Batch, numbers: Collection[int], record: Record) -> None:
        layers = {id(self._readers[number].layer): self._readers[number].layer for number in numbers}
        missing = sum(self._calls[key] for key in layers)

        def read(layer: Layer, inputs: Any, _: Any) -> None:
            nonlocal missing
            for number in numbers:
                if self._readers[number].layer is layer:
                    for rows in self._readers[number].read_in_parts(tf.convert_to_tensor(inputs)):
                        record(number, rows)
            missing -= 1
            if not missing:
                raise _Reached

        with self._watching(layers, read), contextlib.suppress(_Reached):
            exporting.tensors(self._model, batch)

    @contextlib.contextmanager
    def _watching(self, layers: Mapping[int, Layer], note: Callable[[Layer, Any, Any], None]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exporting.states_kept(self._model))
            stack.enter_context(exporting.in_float32(self._model))
            for layer in layers.values():
                stack.enter_context(compat.intercepted(layer, functools.partial(note, layer), False))
            yield


def measure_moments(observer: InputObserver, numbers: Collection[int]) -> dict[int, Moments]:
    """The moments of the rows of kernels, by the kernels' numbers; in one run over the data."""
    sums: dict[int, list[Any]] = {}

    def add(number: int, rows: tf.Tensor) -> None:
        second = tf.matmul(rows, rows, transpose_a=True).numpy().astype(np.float64)
        total = tf.reduce_sum(tf.cast(rows, tf.float64), axis=1).numpy()
        if number not in sums:
            sums[number] = [second, total, rows.shape[1]]
            return
        sums[number][0] += second
        sums[number][1] += total
        sums[number][2] += rows.shape[1]

    observer.observe(numbers, add)
    return {number: Moments(second / count, total / count, count) for number, (second, total, count) in sums.items()}


def measure_squares(observer: InputObserver, numbers: Collection[int]) -> dict[int, np.ndarray]:
    """The mean square of each number of the rows of kernels, `(groups, row_size)`, float64, by the kernels' numbers."""
    sums: dict[int, list[Any]] = {}

    def add(number: int, rows: tf.Tensor) -> None:
        total = tf.reduce_sum(tf.square(tf.cast(rows, tf.float64)), axis=1).numpy()
        previous = sums.get(number, [0.0, 0])
        sums[number] = [previous[0] + total, previous[1] + rows.shape[1]]

    observer.observe(numbers, add)
    return {number: total / count for number, (total, count) in sums.items()}
