"""What kernels read on the repaired network, beside what they put out in the whole network on the same samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_lap.moments.measured import InputObserver
from tf_lap.moments.rows import RowReader
from tf_lap.reconstruction.fitting import OutputMoments
from tf_lap.reconstruction.whole_weights import WholeWeights


def measure_outputs(
    observer: InputObserver,
    readers: Mapping[int, RowReader],
    matrices: Mapping[int, np.ndarray],
    whole_weights: WholeWeights,
) -> dict[int, OutputMoments]:
    """The moments of what kernels read now, with what they put out in the whole network on the same samples.

    Args:
        observer: what runs the model.
        readers: what reads the rows of the kernels, by their numbers.
        matrices: the weights of the whole kernels, float64 `(groups, rows, outputs)`.
        whole_weights: the whole network.
    """
    moments = {number: OutputMoments.empty(matrix) for number, matrix in matrices.items()}
    for batch in observer.data:
        with whole_weights.in_place():
            calls_before = observer.observe(batch, matrices.keys())
        calls_now = observer.observe(batch, matrices.keys())
        for number, matrix in matrices.items():
            for call, whole_call in zip(calls_now[number], calls_before[number], strict=True):
                parts = zip(readers[number].read_in_parts(call), readers[number].read_in_parts(whole_call), strict=True)
                for rows, whole_rows in parts:
                    outputs = tf.matmul(whole_rows, tf.cast(matrix, whole_rows.dtype))
                    moments[number].add(rows, outputs)
    return moments
