"""Second moments of what kernels read, measured over data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.moments.rows import RowReader
from tf_lap.samples import Batch

DAMPING = 0.01
"""What is added to the diagonal of a second moment before it is inverted, as a fraction of its mean."""

_MAX_NUMBERS = 1 << 26
"""How many numbers the layers that are read are given in one run at most, all together: 256 MiB in float32."""


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


class _Reached(BaseException):
    """Ends a call of the model where all that was waited for has been read; no `except Exception` may catch it."""


class InputObserver:
    """Runs a model over data, and tells what kernels are multiplied by.

    Args:
        model: the model.
        readers: what reads the rows of each kernel, by the kernels' numbers.
        data: batches of the model's inputs.

    Attributes:
        data: the batches, divided so that a run holds no more than so much.
        readers: the readers.
        stages: the kernels in the order in which a run of the model is done with them, first to last, those that are
            multiplied with the very same tensors together. Those whose layers are not called at inference are left out.
        input_sizes: by the kernels' numbers, how many numbers their layers are given for one sample.
    """

    def __init__(self, model: Model, readers: Mapping[int, RowReader], data: Sequence[Batch]) -> None:
        self._model, self.readers = model, readers
        self._calls: Counter[int] = Counter()  # by the id of the layer
        self.input_sizes: dict[int, int] = {}
        self.stages, most = self._find_stages(data[0])
        self.data = list(data) if exporting.has_fixed_batch(model) else [part for b in data for part in _cut(b, most)]

    def observe(self, batch: Batch, numbers: Collection[int]) -> dict[int, list[tf.Tensor]]:
        """Runs the model over a batch, as far as these kernels.

        Args:
            batch: inputs of the model.
            numbers: the kernels' numbers.

        Returns:
            By the kernels' numbers what each call of their layers is given.
        """
        calls: dict[int, list[tf.Tensor]] = {number: [] for number in numbers}
        self.visit(batch, numbers, lambda number, inputs: calls[number].append(inputs))
        return calls

    def visit(self, batch: Batch, numbers: Collection[int], take: Callable[[int, tf.Tensor], None]) -> None:
        """As `observe`, but what a layer is given is let go of before the next layer is called.

        Args:
            batch: inputs of the model.
            numbers: the kernels' numbers.
            take: is called with the number of a kernel and what a call of its layer is given.
        """
        by_layer: dict[int, list[int]] = {}
        for number in numbers:
            by_layer.setdefault(id(self.readers[number].layer), []).append(number)
        missing = sum(self._calls[key] for key in by_layer)
        if not missing:
            return

        def note(layer: Layer, first_input: Any, _: Any) -> None:
            nonlocal missing
            for number in by_layer[id(layer)]:
                take(number, tf.convert_to_tensor(first_input))
            missing -= 1
            if not missing:
                raise _Reached

        layers = {id(self.readers[number].layer): self.readers[number].layer for number in numbers}
        with self._watching(layers, note), contextlib.suppress(_Reached):
            exporting.tensors(self._model, batch)

    def visit_rows(self, batch: Batch, numbers: Collection[int], visit: Callable[[int, tf.Tensor], None]) -> None:
        """As `visit`, but gives the rows that the kernels are multiplied by.

        Args:
            batch: inputs of the model.
            numbers: the kernels' numbers.
            visit: is called with the number of a kernel and a part of its rows.
        """

        def read(number: int, inputs: tf.Tensor) -> None:
            for rows in self.readers[number].read_in_parts(inputs):
                visit(number, rows)

        self.visit(batch, numbers, read)

    @property
    def order(self) -> list[int]:
        """The kernels of all stages."""
        return [number for stage in self.stages for number in stage]

    def count_calls(self, number: int) -> int:
        """How often a run of the model calls the layer of a kernel."""
        return self._calls[id(self.readers[number].layer)]

    def _find_stages(self, batch: Batch) -> tuple[list[list[int]], int]:
        """Runs the first samples through the whole model, and notes which layers are called when, and with what.

        Returns:
            The stages, and how many samples may be run at once.
        """
        # The inputs are kept, so that no other one can get the identity of one of them.
        inputs: dict[int, list[Any]] = {}  # by the id of the layer
        finished: dict[int, int] = {}  # by the id of the layer, the number of its last call among all

        def note(layer: Layer, first_input: Any, _: Any) -> None:
            self._calls[id(layer)] += 1
            inputs.setdefault(id(layer), []).append(first_input)
            finished[id(layer)] = self._calls.total()

        samples = slice(None) if exporting.has_fixed_batch(self._model) else slice(0, 2)
        with self._watching({id(r.layer): r.layer for r in self.readers.values()}, note):
            exporting.tensors(self._model, [array[samples] for array in batch])
        called = [number for number, reader in self.readers.items() if id(reader.layer) in finished]
        stages: dict[tuple[int, ...], list[int]] = {}
        for number in sorted(called, key=lambda number: finished[id(self.readers[number].layer)]):
            identities = tuple(map(id, inputs[id(self.readers[number].layer)]))
            stages.setdefault(identities, []).append(number)
        sizes = {
            key: sum(math.prod(tf.convert_to_tensor(first_input).shape[1:]) for first_input in calls)
            for key, calls in inputs.items()
        }
        self.input_sizes = {number: sizes[id(self.readers[number].layer)] for number in called}
        # Keras holds what layers give each other until the run ends.
        return list(stages.values()), max(1, _MAX_NUMBERS // max(1, sum(sizes.values())))

    @contextlib.contextmanager
    def _watching(self, layers: Mapping[int, Layer], note: Callable[[Layer, Any, Any], None]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exporting.states_kept(self._model))
            stack.enter_context(exporting.in_float32(self._model))
            for layer in layers.values():
                stack.enter_context(compat.intercepted(layer, functools.partial(note, layer), False))
            yield


def _cut(batch: Batch, size: int) -> Iterator[list[np.ndarray]]:
    """Parts of a batch of at most so many samples."""
    for first in range(0, len(batch[0]), size):
        yield [array[first : first + size] for array in batch]


def measure_moments(observer: InputObserver, numbers: Collection[int]) -> dict[int, Moments]:
    """The moments of the rows of kernels, by the kernels' numbers; in one run over the data."""
    sizes = {number: (observer.readers[number].groups, observer.readers[number].row_size) for number in numbers}
    seconds = {number: np.zeros((groups, row_size, row_size)) for number, (groups, row_size) in sizes.items()}
    totals = {number: np.zeros(size) for number, size in sizes.items()}
    counts = dict.fromkeys(numbers, 0)

    def add(number: int, rows: tf.Tensor) -> None:
        seconds[number] += tf.matmul(rows, rows, transpose_a=True).numpy()
        totals[number] += tf.reduce_sum(tf.cast(rows, tf.float64), axis=1).numpy()
        counts[number] += rows.shape[1]

    for batch in observer.data:
        observer.visit_rows(batch, numbers, add)
    for number, count in counts.items():
        seconds[number] /= count
    return {number: Moments(seconds[number], totals[number] / count, count) for number, count in counts.items()}


def measure_squares(observer: InputObserver, numbers: Collection[int]) -> dict[int, np.ndarray]:
    """The mean square of each number of the rows of kernels, `(groups, row_size)`, float64, by the kernels' numbers."""
    sums: dict[int, list[Any]] = {number: [0.0, 0] for number in numbers}

    def add(number: int, inputs: tf.Tensor) -> None:
        total, count = sums[number]
        squares, rows = observer.readers[number].sum_squares(inputs)
        sums[number] = [total + squares.numpy(), count + rows]

    for batch in observer.data:
        observer.visit(batch, numbers, add)
    return {number: total / count for number, (total, count) in sums.items()}
