"""TFLite files of a saved model, in the quantization that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import samples
from tf_lap.compat import converting, exporting
from tf_lap.compat.exporting import Input
from tf_lap.export.check import ExportError, Quantization
from tf_lap.export.progress import Progress
from tf_lap.export.reasons import LISTED, explain

Samples = Sequence[list[np.ndarray]]


def convert(
    model: Any,
    program: converting.Program,
    inputs: Sequence[Input],
    given: Samples | None,
    quantization: Quantization,
    progress: Progress,
) -> bytes:
    """A file of a model, with every zero written out.

    Args:
        model: the model.
        program: the same, saved.
        inputs: its inputs.
        given: samples to calibrate int8 with.
        quantization: of the file.
        progress: is told how far the calibration is.

    Raises:
        ExportError: TensorFlow cannot convert the model.
    """
    settings: dict[str, Any] = {"optimizations": [] if quantization is None else [tf.lite.Optimize.DEFAULT]}
    if quantization == "float16":
        settings["target_spec"] = {"supported_types": [tf.float16]}
    if quantization == "int8":
        settings["representative_dataset"] = lambda: _calibration(inputs, given or (), progress)
        settings["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
    with explained(model, inputs[0].shape[0], program.readers):
        return converting.convert(program, settings)


def _calibration(inputs: Sequence[Input], given: Samples, progress: Progress) -> Iterator[Any]:
    names = [entry.name for entry in inputs]
    for number, sample in enumerate(given, 1):
        progress.stage(f"calibrating, sample {number} of {len(given)}")
        yield dict(zip(names, sample, strict=True)) if len(names) > 1 else sample
    progress.stage("quantizing", silent=True)


@contextlib.contextmanager
def explained(model: Any, batch: int | None = None, readers: Mapping[str, str] | None = None) -> Iterator[None]:
    """Makes whatever is raised while a model is traced or converted an error that says why, and what to do.

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
        advice = [*loop_advice(str(error), batch), *([] if LISTED in reason else _quantize_advice(model))]
        raise ExportError(
            f"TensorFlow cannot convert model {model.name!r} to TFLite: {'; '.join([reason, *advice])}"
        ) from error


def loop_advice(text: str, batch: int | None) -> list[str]:
    """What to do about a loop of a recurrent layer, where the text names the operations of one."""
    if "TensorList" not in text:
        return []
    fixed = "pass batch_size=1 (or another fixed batch), or " if batch is None else ""
    return [f"{fixed}build recurrent layers with unroll=True"]


def _quantize_advice(model: Any) -> list[str]:
    quantized = exporting.quantized_layers(model)
    if not quantized:
        return []
    more = " and others" if len(quantized) > 3 else ""
    return [
        f"model.quantize() has changed layers {', '.join(map(repr, quantized[:3]))}{more}: export before quantize(), "
        "and let quantization='int8' or 'dynamic_range' quantize the file"
    ]


def in_batches(given: Samples, size: int) -> Samples:
    """Samples of a batch of `size`: where they have another, each single one is repeated."""
    rows = [
        sample if len(sample[0]) == size else [np.repeat(column[i : i + 1], size, axis=0) for column in sample]
        for sample in given
        for i in range(1 if len(sample[0]) == size else len(sample[0]))
    ]
    return rows[: samples.MOST]
