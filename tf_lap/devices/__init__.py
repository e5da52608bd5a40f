"""What runs fast where models ship: XNNPACK's sparse convolutions, on ARM processors and in WebAssembly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tf_lap.devices.converted import convert_model
from tf_lap.devices.describing import describe_graph
from tf_lap.devices.report import DeviceReport
from tf_lap.files import as_path
from tf_lap.tflite.operations import read_operations


def device_report(model: Any) -> DeviceReport:
    """Says which 1x1 convolutions XNNPACK runs sparse, and what is in the way of the others.

    XNNPACK is what LiteRT computes with on processors. On ARM and in WebAssembly it multiplies 1x1 convolutions without
    their zeros, unstructured ones too, where the operations around them allow it and more than two thirds of their
    weights are zero. On x86 it does not. A layer that is in the way of others is named, with what to do.

    The model is converted to TFLite in memory, for one sample at a time, because the rules are about the operations of
    the file.

    Example:

    >>> print(tf_lap.device_report(model).summary)
    sequential...: 0 of 0 1x1 convolutions run sparse, 0 can (ARM and WebAssembly; on x86 none does)

    Args:
        model: a built model of Keras 3 or tf_keras, pruned or not; or the path of a TFLite file.

    Returns:
        A `DeviceReport`.

    Raises:
        TypeError, ValueError: the model is not built or not of Keras.
        ExportError: TensorFlow cannot convert the model.
        OSError: the file cannot be read.
    """
    if isinstance(model, (str, bytes, Path)):
        path = as_path(model)
        return describe_graph(read_operations(path.read_bytes()), path.name)
    return describe_graph(convert_model(model), model.name)
