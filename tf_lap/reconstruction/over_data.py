"""Repair over data: layer after layer on the already repaired network, towards what the whole network computed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Variable
from tf_lap.moments.measured import InputObserver
from tf_lap.moments.rows import RowReader
from tf_lap.reconstruction.fitting import OutputMoments


class WholeWeights:
    """The weights that a repair may change, as they were before pruning.

    Args:
        values: each variable, and its value.
    """

    def __init__(self, values: Sequence[tuple[Variable, np.ndarray]]) -> None:
        self._values = list(values)
        self._by_id = {id(variable): value for variable, value in self._values}

    @classmethod
    def of(cls, variables: Collection[Variable]) -> WholeWeights:
        """The present values of some variables."""
        return cls([(variable, np.array(compat.host_value(variable))) for variable in variables])

    def value(self, variable: Variable) -> np.ndarray:
        """The value of one of the variables."""
        return self._by_id[id(variable)]

    def restore(self) -> None:
        """Gives the variables these values."""
        for variable, value in self._values:
            compat.assign(variable, value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the variables these values for a while."""
        present = WholeWeights.of([variable for variable, _ in self._values])
        self.restore()
        try:
            yield
        finally:
            present.restore()


def measure_outputs(
    observer: InputObserver,
    readers: Mapping[int, RowReader],
    matrices: Mapping[int, np.ndarray],
    whole: WholeWeights,
) -> dict[int, OutputMoments]:
    """The moments of what kernels read now, with what they put out in the whole network on the same samples.

    Args:
        observer: what runs the model.
        readers: what reads the rows of the kernels, by their numbers.
        matrices: the weights of the whole kernels, float64 `(groups, rows, outputs)`.
        whole: the whole network.
    """
    moments = {number: OutputMoments.empty(matrix) for number, matrix in matrices.items()}
    for batch in observer.data:
        with whole.in_place():
            calls_before = observer.observe(batch, matrices.keys())
        calls_now = observer.observe(batch, matrices.keys())
        for number, matrix in matrices.items():
            for now, before in zip(calls_now[number], calls_before[number], strict=True):
                parts = zip(readers[number].read_in_parts(now), readers[number].read_in_parts(before), strict=True)
                for rows, whole_rows in parts:
                    outputs = tf.matmul(whole_rows, tf.cast(matrix, whole_rows.dtype))
                    moments[number].add(rows, outputs)
    return moments
