"""`filters="xnnpack"`: the kernels whose zeros make a model fast on devices."""

from __future__ import annotations

import re

from tf_lap.compat.types import Model
from tf_lap.devices.converted import convert_model
from tf_lap.devices.describing import describe_graph

NAME = "xnnpack"


def find_filters(model: Model) -> list[str]:
    """Expressions for the kernels that XNNPACK runs sparse, and for Dense layers whose zeros count beside them.

    Raises:
        ValueError: it can run none of the model's sparse.
        ExportError: TensorFlow cannot convert the model.
    """
    report = describe_graph(convert_model(model), model.name)
    if not report.qualifies:
        raise ValueError(
            f"filters={NAME!r}: XNNPACK can run no 1x1 convolution of model {model.name!r} sparse. Try "
            f"tf_lap.for_devices(model) first, and see what is in the way:\n{report}"
        )
    return [f"^{re.escape(layer.path)}$" for layer in report.layers if layer.cluster is not None]
