"""Whether a TFLite file does what the Keras model does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tf_lap import samples
from tf_lap.compat import exporting
from tf_lap.compat.exporting import Input
from tf_lap.compat.types import Model
from tf_lap.export import runtime as runtimes
from tf_lap.tflite.errors import ExportError as ExportError

Quantization = Literal["dynamic_range", "float16", "int8"] | None

TOLERANCES: dict[Quantization, float] = {None: 1e-3, "float16": 1e-2, "dynamic_range": 0.1, "int8": 0.2}
"""How far an output may lie from Keras's, as a fraction of the largest output."""
_MIN_OUTPUT = 1e-6  # where the largest output is smaller, differences are divided by this


class Difference(NamedTuple):
    """How far outputs of a file are from those of the model.

    Attributes:
        absolute: the largest difference.
        relative: the same, over the largest output of the model.
    """

    absolute: float
    relative: float


class Check:
    """Compares files of a model with the model, on the same inputs.

    Args:
        model: the model.
        inputs: its inputs, as the file takes them.
        user_samples: samples of the user's, for each the arrays of the inputs; None for random samples.
        dense: a file of the model.
        quantization: how the files are quantized.

    Attributes:
        runtime: the interpreter that runs the files.
        sample: one input, by the names in the files.

    Raises:
        ValueError: inputs cannot be drawn, or the model itself answers NaN or infinity.
        ExportError: the file cannot be loaded.
    """

    def __init__(
        self,
        model: Model,
        inputs: Sequence[Input],
        user_samples: Sequence[list[np.ndarray]] | None,
        dense: bytes,
        quantization: Quantization,
    ) -> None:
        self.runtime = runtimes.find_runtime()
        self._tolerance, self._is_quantized = TOLERANCES[quantization], quantization is not None
        file_inputs = self._load(dense, runtimes.read_inputs)
        checked = samples.draw_samples(inputs) if user_samples is None else user_samples[: samples.CHECKED_SAMPLES]
        with exporting.states_kept(model):
            answers = [exporting.outputs(model, sample) for sample in checked]
        self._expected = {name: [answer[name] for answer in answers] for name in answers[0]}
        for name, values in self._expected.items():
            if values[0].dtype.kind == "f" and not all(np.isfinite(value).all() for value in values):
                remedy = (
                    "restore sound weights" if user_samples else "restore sound weights, or pass representative_dataset"
                )
                on = "" if user_samples else " for random inputs"
                raise ValueError(f"output {name!r} of the Keras model itself is NaN or infinite{on}: {remedy}")
        names, file_names = [entry.name for entry in inputs], [entry.name for entry in file_inputs]
        self._samples = [runtimes.match_names(names, sample, file_names) for sample in checked]
        self.sample = self._samples[0]

    def __call__(self, file: bytes) -> Difference:
        """How far the file's outputs are from the model's; of several outputs the difference of the farthest.

        Raises:
            ExportError: it cannot be run, or they differ by more than the tolerance.
        """
        answers = self._load(file, lambda interpreter: runtimes.run(interpreter, self._samples))
        named = [runtimes.match_names(list(answer), list(answer.values()), list(self._expected)) for answer in answers]
        differences = [self._compare(name, [answer[name] for answer in named]) for name in self._expected]
        return max(differences, key=lambda difference: difference.relative)

    def _compare(self, name: str, values: Sequence[np.ndarray]) -> Difference:
        """How far one output of a file is from the model's.

        Args:
            name: the output's name.
            values: what the file answers, an array a sample.

        Raises:
            ExportError: it has another shape, is not finite, or is farther than the tolerance.
        """
        expected, output = self._expected[name], f"output {name!r} of the file in {self.runtime.name}"
        shapes, expected_shapes = [value.shape for value in values], [value.shape for value in expected]
        if shapes != expected_shapes:
            raise ExportError(f"{output} has the shape {shapes[0]}, Keras's has {expected_shapes[0]}")
        file_flat, keras_flat = (
            np.concatenate([np.ravel(value) for value in arrays]).astype(np.float64) for arrays in (values, expected)
        )
        if not np.isfinite(file_flat).all():
            raise ExportError(f"{output} is NaN or infinite, Keras's is not")
        absolute = float(np.max(np.abs(file_flat - keras_flat), initial=0.0))
        relative = absolute / max(float(np.max(np.abs(keras_flat), initial=0.0)), _MIN_OUTPUT)
        # Quantized, a class number may be another one where two classes are nearly alike.
        has_tolerance = expected[0].dtype.kind == "f" or not self._is_quantized
        if has_tolerance and relative > self._tolerance:
            raise ExportError(
                f"{output} differs from Keras's by {absolute:.3g}, {relative:.3g} of its largest value; "
                f"{self._tolerance:g} is tolerated"
            )
        return Difference(absolute, relative)

    def _load(self, file: bytes, use: Callable[[Any], Any]) -> Any:
        """Loads a file, and gives what `use` returns for its interpreter.

        Raises:
            ExportError: the runtime raised an error in either.
        """
        try:
            return use(self.runtime.load(file))
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{self.runtime.name} cannot run the file: {error}") from error
