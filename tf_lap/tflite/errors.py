"""Errors of tracing and converting a model, with what to do about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from tf_lap.compat import exporting
from tf_lap.compat.types import Model
from tf_lap.tflite.converter_errors import OPS_LIST, explain


class ExportError(RuntimeError):
    """A model that TensorFlow cannot convert, or a file that does not do what the model does."""


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
        advice = [
            *advise_on_operations(str(error), batch),
            *([] if OPS_LIST in reason else _advise_on_quantized(model)),
        ]
        raise ExportError(
            f"TensorFlow cannot convert model {model.name!r} to TFLite: {'; '.join([reason, *advice])}"
        ) from error


def advise_on_operations(text: str, batch: int | None) -> list[str]:
    """What to do about operations that a text names: those that split strings, and loops of recurrent layers."""
    advice = []
    if any(name in text for name in ("StringSplit", "RegexReplace", "Ragged")):
        advice.append("cut off the layer that splits text, and export what reads the numbers that it puts out")
    elif "TensorList" in text:
        fixed = "pass batch_size=1 (or another fixed batch), or " if batch is None else ""
        advice.append(f"{fixed}build recurrent layers with unroll=True")
    return advice


def _advise_on_quantized(model: Model) -> list[str]:
    quantized = exporting.quantized_layers(model)
    if not quantized:
        return []
    more = " and others" if len(quantized) > 3 else ""
    return [
        f"model.quantize() has changed layers {', '.join(map(repr, quantized[:3]))}{more}: export before quantize(), "
        "and let quantization='int8' or 'dynamic_range' quantize the file"
    ]
