"""Where XNNPACK's sparse path fails, or computes wrongly and says nothing.

These were seen in LiteRT.js 2.5.3 (`python -m benchmarks device_rules`), and are explained by XNNPACK's sources.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tf_lap.tflite.operations import DeviceGraph, Operation

REDUCTIONS = ("MEAN", "SUM")
_ASK_FOR_SHAPE = ("ADD", "MUL", "RESIZE_BILINEAR", "DEPTH_TO_SPACE", *REDUCTIONS)


def find_failing(graph: DeviceGraph, inside: Collection[int], turned: Collection[int]) -> Iterator[int]:
    """The numbers of operations that fail or compute wrongly, in the order of the graph.

    A mean that reads channels first and keeps its dimensions puts out right numbers with a wrong shape: as many
    channels as its image has rows, or, where it ends the cluster, as many rows as channels. What asks for the shape
    fails, but for 1x1 convolutions with channels first, which set it right, and what makes the tensor flat.

    Args:
        graph: the operations.
        inside: the numbers of those that compute with channels first.
        turned: the tensors with channels first.
    """
    misshapen: set[int] = set()
    for number, operation in enumerate(graph.operations):
        writes_turned = set(operation.outputs) <= set(turned)
        reads_misshapen = not misshapen.isdisjoint(operation.inputs)
        is_weighted = operation.is_pointwise or operation.kind == "FULLY_CONNECTED"
        if number not in inside:
            if reads_misshapen and not _is_flat(operation):
                yield number
            continue
        if operation.kind in REDUCTIONS:
            if reads_misshapen or not _is_right_reduction(operation):
                yield number
            elif operation.keeps_rank:
                misshapen.update(operation.outputs)
        elif reads_misshapen and not is_weighted:
            # An operation on one tensor hands the shape on.
            if operation.kind in _ASK_FOR_SHAPE or operation.weights is not None or not writes_turned:
                yield number
            else:
                misshapen.update(operation.outputs)
        elif not writes_turned and operation.kind != "DEPTH_TO_SPACE" and not _is_one_position(operation):
            yield number


def _is_flat(operation: Operation) -> bool:
    """Whether an operation takes the numbers of a tensor, whatever its shape."""
    return operation.kind == "RESHAPE" or (operation.kind == "FULLY_CONNECTED" and not operation.keeps_rank)


def _is_right_reduction(operation: Operation) -> bool:
    """Whether a mean or a sum over these axes is right where channels come first."""
    rows, columns = operation.shapes[0][1:3]
    return operation.axes in ((1, 2), (1, 2, 3)) or (operation.axes == (3,) and rows == columns)


def _is_one_position(operation: Operation) -> bool:
    """Whether channels first and channels last are the same numbers. A convolution fails there all the same."""
    return operation.weights is None and all(extent == 1 for extent in operation.shapes[0][1:-1])
