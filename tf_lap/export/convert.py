"""TFLite files of a saved model, in each quantization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import samples
from tf_lap.compat import converting
from tf_lap.compat.exporting import Input
from tf_lap.compat.types import Model
from tf_lap.export.check import Quantization
from tf_lap.export.progress import Progress
from tf_lap.tflite.errors import explain_errors

Samples = Sequence[list[np.ndarray]]
"""Of each sample the arrays of the model's inputs, in their order, with a batch dimension."""


def convert(
    model: Model,
    program: converting.Program,
    inputs: Sequence[Input],
    user_samples: Samples | None,
    quantization: Quantization,
    progress: Progress,
) -> bytes:
    """A file of a model, with every zero written out.

    Args:
        model: the model.
        program: the same, saved.
        inputs: its inputs.
        user_samples: samples to calibrate int8 with.
        quantization: of the file.
        progress: is told how far the calibration is.

    Raises:
        ExportError: TensorFlow cannot convert the model.
    """
    settings: dict[str, Any] = {"optimizations": [] if quantization is None else [tf.lite.Optimize.DEFAULT]}
    if quantization == "float16":
        settings["target_spec"] = {"supported_types": [tf.float16]}
    if quantization == "int8":
        settings["representative_dataset"] = lambda: _calibrate(inputs, user_samples or (), progress)
        settings["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
    with explain_errors(model, inputs[0].shape[0], program.readers):
        return converting.convert(program, settings)


def _calibrate(inputs: Sequence[Input], user_samples: Samples, progress: Progress) -> Iterator[Any]:
    """The samples as TensorFlow's converter takes them: a list for one input, a mapping by name for several."""
    names = [entry.name for entry in inputs]
    for number, sample in enumerate(user_samples, 1):
        progress.begin_stage(f"calibrating, sample {number} of {len(user_samples)}")
        yield dict(zip(names, sample, strict=True)) if len(names) > 1 else sample
    progress.begin_stage("quantizing", blocks_threads=True)


def repeat_to_batch(user_samples: Samples, size: int) -> Samples:
    """Samples of a batch of `size`. Where they have another batch, each row of it is repeated `size` times."""
    repeated: list[list[np.ndarray]] = []
    for sample in user_samples:
        if len(sample[0]) == size:
            repeated.append(sample)
        else:
            rows = range(len(sample[0]))
            repeated += [[np.repeat(column[row : row + 1], size, axis=0) for column in sample] for row in rows]
    return repeated[: samples.MAX_SAMPLES]
