"""TFLite files of a saved model, in each quantization."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import samples
from tf_lap.compat import converting, exporting
from tf_lap.compat.exporting import Input
from tf_lap.compat.types import Model
from tf_lap.export.check import ExportError, Quantization
from tf_lap.export.converter_errors import OPS_LIST, explain
from tf_lap.export.progress import Progress

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


@contextlib.contextmanager
def explain_errors(model: Model, batch: int | None = None, readers: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turns any error of tracing or converting a model into one that says why, and what to do.

    Args:
        model: the model.
        batch: the fixed batch of the file, or None.
        readers: paths of layers by the operations that read their weights.

    Raises:
        ExportError: anything was raised.
    """
    try:
        yield
    except Exception as error:
        reason = explain(error, readers)
        advice = [*advise_on_loops(str(error), batch), *([] if OPS_LIST in reason else _advise_on_quantized(model))]
        raise ExportError(
            f"TensorFlow cannot convert model {model.name!r} to TFLite: {'; '.join([reason, *advice])}"
        ) from error


def advise_on_loops(text: str, batch: int | None) -> list[str]:
    """What to do about a loop of a recurrent layer, where the text names the operations of one."""
    if "TensorList" not in text:
        return []
    fixed = "pass batch_size=1 (or another fixed batch), or " if batch is None else ""
    return [f"{fixed}build recurrent layers with unroll=True"]


def _advise_on_quantized(model: Model) -> list[str]:
    quantized = exporting.quantized_layers(model)
    if not quantized:
        return []
    more = " and others" if len(quantized) > 3 else ""
    return [
        f"model.quantize() has changed layers {', '.join(map(repr, quantized[:3]))}{more}: export before quantize(), "
        "and let quantization='int8' or 'dynamic_range' quantize the file"
    ]


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
