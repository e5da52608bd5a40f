"""What kernels read on the repaired network, beside what they put out in the whole network on the same samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tf_lap.moments.measured import InputObserver
from tf_lap.reconstruction.fitting import OutputMoments
from tf_lap.reconstruction.whole_weights import WholeWeights
from tf_lap.samples import Batch

Calls: TypeAlias = Mapping[int, Sequence[tf.Tensor]]
"""By the numbers of kernels what each call of their layers is given."""

_MAX_HELD = 1 << 28
"""How many numbers that kernels of the whole network read are held at most: 1 GiB in float32."""


class PairedObserver:
    """Measures kernels of the present network beside those of the whole one, stage after stage.

    The whole network does not change. So one run of it serves as many stages as memory allows.

    Args:
        observer: what runs the model.
        stages: the kernels that will be measured, in order; those of a stage together.
        whole_weights: the whole network.
    """

    def __init__(self, observer: InputObserver, stages: Sequence[Sequence[int]], whole_weights: WholeWeights) -> None:
        self._observer, self._stages, self._whole_weights = observer, stages, whole_weights
        self._samples = sum(len(batch[0]) for batch in observer.data)
        self._held: list[dict[int, list[tf.Tensor]]] = []  # for each batch, of stages to come

    def measure_outputs(self, matrices: Mapping[int, np.ndarray]) -> dict[int, OutputMoments]:
        """The moments of what the kernels of the next stage read now, with what they put out in the whole network.

        Args:
            matrices: by the kernels' numbers, the weights of the whole kernels, float64 `(groups, rows, outputs)`.
        """
        moments = {number: OutputMoments.empty(matrix) for number, matrix in matrices.items()}
        readers = self._observer.readers
        for batch, calls_before in self._observe_whole(matrices.keys()):
            calls_now = self._observer.observe(batch, matrices.keys())
            for number, matrix in matrices.items():
                for call, whole_call in zip(calls_now[number], calls_before[number], strict=True):
                    parts = (readers[number].read_in_parts(inputs) for inputs in (call, whole_call))
                    for rows, whole_rows in zip(*parts, strict=True):
                        outputs = tf.matmul(whole_rows, tf.cast(matrix, whole_rows.dtype))
                        moments[number].add(rows, outputs)
        return moments

    def _observe_whole(self, numbers: Collection[int]) -> Iterator[tuple[Batch, Calls]]:
        """Each batch, and what these kernels read in the whole network."""
        data = self._observer.data
        if self._held and not self._held[0].keys() >= set(numbers):
            self._held = []
        if not self._held:
            size = self._count_held(numbers) / self._samples
            per_run = max(1, int(_MAX_HELD // max(1.0, size * len(data[0][0]))))
            if per_run < len(data):  # this stage alone takes several runs
                for first in range(0, len(data), per_run):
                    part = data[first : first + per_run]
                    yield from zip(part, self._run_whole(part, numbers), strict=True)
                return
            self._held = self._run_whole(data, self._find_next(numbers))
        for batch, held in zip(data, self._held, strict=True):
            yield batch, {number: held.pop(number) for number in numbers}
        if not self._held[0]:
            self._held = []

    def _run_whole(self, batches: Sequence[Batch], numbers: Collection[int]) -> list[dict[int, list[tf.Tensor]]]:
        with self._whole_weights.in_place():
            return [self._observer.observe(batch, numbers) for batch in batches]

    def _find_next(self, numbers: Collection[int]) -> list[int]:
        """These kernels, and those of the stages behind them that can be held too."""
        first = next(place for place, stage in enumerate(self._stages) if not set(stage).isdisjoint(numbers))
        chosen = list(numbers)
        for stage in self._stages[first + 1 :]:
            if self._count_held([*chosen, *stage]) > _MAX_HELD:
                break
            chosen += stage
        return chosen

    def _count_held(self, numbers: Collection[int]) -> int:
        return self._samples * sum(self._observer.input_sizes[number] for number in numbers)
