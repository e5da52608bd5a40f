"""Whether a TFLite file does what the Keras model does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tf_lap import samples
from tf_lap.compat import exporting
from tf_lap.compat.exporting import Input
from tf_lap.export import runtime as runtimes

Quantization = Literal["dynamic_range", "float16", "int8"] | None

TOLERANCES: dict[Quantization, float] = {None: 1e-3, "float16": 1e-2, "dynamic_range": 0.1, "int8": 0.2}
"""How far an output may lie from Keras's, as a fraction of the largest output."""
_NOTHING = 1e-6  # smaller outputs are compared as if they were that large


class ExportError(RuntimeError):
    """A model that TensorFlow cannot convert, or a file that does not do what the model does."""


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
        given: samples of the user's, or None for random ones.
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
        model: Any,
        inputs: Sequence[Input],
        given: Sequence[list[np.ndarray]] | None,
        dense: bytes,
        quantization: Quantization,
    ) -> None:
        self.runtime = runtimes.installed()
        self._tolerance, self._quantized = TOLERANCES[quantization], quantization is not None
        ports = self._loaded(dense, runtimes.inputs)
        chosen = samples.draw_samples(inputs) if given is None else given[: samples.CHECKED]
        with exporting.states_kept(model):
            expected = [exporting.outputs(model, sample) for sample in chosen]
        self._expected = {name: [each[name] for each in expected] for name in expected[0]}
        for name, values in self._expected.items():
            if values[0].dtype.kind == "f" and not all(np.isfinite(value).all() for value in values):
                remedy = "restore sound weights" if given else "restore sound weights, or pass representative_dataset"
                on = "" if given else " for random inputs"
                raise ValueError(f"output {name!r} of the Keras model itself is NaN or infinite{on}: {remedy}")
        names = [each.name for each in inputs]
        self._samples = [runtimes.by_name(names, sample, [port.name for port in ports]) for sample in chosen]
        self.sample = self._samples[0]

    def __call__(self, file: bytes) -> Difference:
        """How far the file's outputs are from the model's; of several outputs that which is farthest.

        Raises:
            ExportError: it cannot be run, or they differ by more than the tolerance.
        """
        answers = self._loaded(file, lambda interpreter: runtimes.run(interpreter, self._samples))
        named = [runtimes.by_name(list(each), list(each.values()), list(self._expected)) for each in answers]
        found = [self._difference(name, [each[name] for each in named]) for name in self._expected]
        return max(found, key=lambda each: each.relative)

    def _difference(self, name: str, found: Sequence[np.ndarray]) -> Difference:
        expected, what = self._expected[name], f"output {name!r} of the file in {self.runtime.name}"
        shapes = [[each.shape for each in side] for side in (found, expected)]
        if shapes[0] != shapes[1]:
            raise ExportError(f"{what} has the shape {shapes[0][0]}, Keras's has {shapes[1][0]}")
        ours, keras = (
            np.concatenate([np.ravel(each) for each in side]).astype(np.float64) for side in (found, expected)
        )
        if not np.isfinite(ours).all():
            raise ExportError(f"{what} is NaN or infinite, Keras's is not")
        absolute = float(np.max(np.abs(ours - keras), initial=0.0))
        relative = absolute / max(float(np.max(np.abs(keras), initial=0.0)), _NOTHING)
        # A class number may be another one where two classes are nearly alike.
        counted = expected[0].dtype.kind == "f" or not self._quantized
        if counted and relative > self._tolerance:
            raise ExportError(
                f"{what} differs from Keras's by {absolute:.3g}, {relative:.3g} of its largest value; "
                f"{self._tolerance:g} is tolerated"
            )
        return Difference(absolute, relative)

    def _loaded(self, file: bytes, use: Callable[[Any], Any]) -> Any:
        try:
            return use(self.runtime.load(file))
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{self.runtime.name} cannot run the file: {error}") from error
