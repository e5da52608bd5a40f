"""What XNNPACK's sparse path takes, operation by operation.

The rules are those of XNNPACK's sources of August 2026 (`xnn_check_nchw_compatibility` in src/subgraph.c). A cluster of
operations runs with channels first, and so sparse, from an operation that begins one to one that ends it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from tf_lap.tflite.operations import Operation

_MEND = "tf_lap.for_devices(model) does it"


class Role(enum.Flag):
    """What an operation can be in a cluster."""

    NONE = 0
    BEGINS = enum.auto()
    INSIDE = enum.auto()
    ENDS = enum.auto()


class Judgement(NamedTuple):
    """What an operation can be in a cluster.

    Attributes:
        role: the role.
        obstacle: why it has none; empty where it has one.
        remedy: what to do about that.
    """

    role: Role
    obstacle: str = ""
    remedy: str = ""


_UNARY = {
    "ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG", "RELU",
    "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SQRT", "SQUARE", "TANH",
}  # fmt: skip


def judge(operation: Operation) -> Judgement:
    """What an operation can be in a cluster, and why it can be nothing."""
    if not operation.is_float:
        remedy = "export in float32 or float16: quantization=None or 'float16'"
        return Judgement(Role.NONE, f"computes {operation.kind} with whole numbers", remedy)
    if operation.kind in _UNARY:
        return _judge_rank(operation, Role.INSIDE)
    match operation.kind:
        case "FULLY_CONNECTED":
            return _judge_dense(operation)
        case "CONV_2D":
            return _judge_convolution(operation)
        case "DEPTHWISE_CONV_2D":
            return _judge_depthwise(operation)
        case "DEPTH_TO_SPACE":
            return Judgement(Role.ENDS)
        case "MEAN" | "SUM":
            return _judge_rank(operation, Role.INSIDE | Role.ENDS)
        case "ADD" | "MUL":
            return _judge_binary(operation)
        case "RESIZE_BILINEAR":
            return _judge_resize(operation)
    return Judgement(
        Role.NONE,
        f"is {operation.kind}, which the sparse path does not have",
        "between the stem and the mean use 1x1 and depthwise convolutions, sums, products, activations and bilinear "
        "resizing alone",
    )


def _judge_rank(operation: Operation, role: Role) -> Judgement:
    rank = len(operation.shapes[0])
    if rank == 4:
        return Judgement(role)
    return Judgement(Role.NONE, f"reads {rank} axes, and the sparse path has 4", "keep dimensions: keepdims=True")


def _judge_convolution(operation: Operation) -> Judgement:
    if operation.groups != 1:
        return Judgement(Role.NONE, f"has {operation.groups} groups", "use groups=1")
    if operation.dilations != (1, 1):
        return Judgement(Role.NONE, f"is dilated by {_by(operation.dilations)}", "use dilation_rate=1")
    if operation.is_pointwise:
        if operation.strides != (1, 1):
            remedy = "put the stride into a depthwise convolution before it"
            return Judgement(Role.NONE, f"is a 1x1 convolution of stride {_by(operation.strides)}", remedy)
        if operation.padding != (0, 0, 0, 0):
            return Judgement(Role.NONE, "is a 1x1 convolution that pads", "leave the padding out")
        return Judgement(Role.INSIDE)
    is_stem = operation.kernel == (3, 3) and operation.strides == (2, 2)
    channels = operation.shapes[0][-1]
    if not is_stem:
        what = f"is a {_by(operation.kernel)} convolution of stride {_by(operation.strides)}"
        remedy = "the first one must be 3x3 of stride 2, all others 1x1 or depthwise"
        return Judgement(Role.NONE, what, remedy)
    if channels != 3:
        remedy = (
            "the cluster begins with a 3x3 convolution of an image of 3 channels: repeat a grey one, or cut more off"
        )
        return Judgement(Role.NONE, f"is a 3x3 convolution of stride 2 that reads {channels} channels", remedy)
    if operation.padding != (1, 1, 1, 1):
        return _judge_padding(operation, 1)
    return Judgement(Role.BEGINS)


def _judge_padding(operation: Operation, needed: int) -> Judgement:
    """What to say of a convolution of stride 2 whose padding is not the same number on every side."""
    rows, columns = operation.shapes[0][1:3]
    odd = [extent for extent in (rows, columns) if extent is not None and extent % 2]
    remedy = f"use ZeroPadding2D({needed}) before it and padding='valid'; {_MEND}"
    if operation.padding is not None:
        top, bottom, left, right = operation.padding
        what = f"pads ({top}, {bottom}) rows and ({left}, {right}) columns"
        return Judgement(Role.NONE, what, remedy)
    if odd:  # TensorFlow's converter writes padding that is even on all sides as "same" then
        what = f"reads {rows}x{columns}, of which the converter makes padding 'same' at stride 2"
        return Judgement(Role.NONE, what, "use an image with sides that 32 divides")
    return Judgement(Role.NONE, f"pads 'same' at stride {operation.strides[0]}", remedy)


def _judge_depthwise(operation: Operation) -> Judgement:
    if operation.dilations != (1, 1):
        return Judgement(Role.NONE, f"is dilated by {_by(operation.dilations)}", "use dilation_rate=1")
    if operation.multiplier != 1:
        return Judgement(Role.NONE, f"has depth_multiplier={operation.multiplier}", "use depth_multiplier=1")
    if operation.strides not in ((1, 1), (2, 2)):
        return Judgement(Role.NONE, f"has stride {_by(operation.strides)}", "use stride 1 or 2")
    if operation.kernel not in ((3, 3), (5, 5)):
        return Judgement(Role.NONE, f"is depthwise {_by(operation.kernel)}", "use 3x3 or 5x5")
    needed = operation.kernel[0] // 2
    if operation.padding != (needed,) * 4:
        return _judge_padding(operation, needed)
    return Judgement(Role.INSIDE)


def _judge_dense(operation: Operation) -> Judgement:
    """LiteRT's delegate puts a reshape before a Dense layer that puts out two axes, and so outside of any cluster."""
    if not operation.keeps_rank:
        return Judgement(
            Role.NONE, "is a Dense layer of 2 axes, and the sparse path has 4", "keep dimensions: keepdims=True"
        )
    return Judgement(Role.INSIDE)


def _judge_binary(operation: Operation) -> Judgement:
    ranks = [len(shape) for shape in operation.shapes]
    name = "sum" if operation.kind == "ADD" else "product"
    if operation.constants and ranks != [4, 4]:
        remedy = f"fold the constant into a convolution beside it; {_MEND} where that is exact"
        return Judgement(Role.NONE, f"is a {name} with a constant of {min(ranks)} axes", remedy)
    if ranks != [4, 4]:
        remedy = f"keep dimensions, as with GlobalAveragePooling2D(keepdims=True); {_MEND}"
        return Judgement(Role.NONE, f"is a {name} of tensors of {ranks[0]} and {ranks[1]} axes", remedy)
    # Whichever of the two is constant, XNNPACK looks at the shape of the first.
    if operation.constants and sum(extent != 1 for extent in operation.shapes[0]) > 1:
        remedy = "fold the constant into a convolution beside it"
        return Judgement(Role.NONE, f"is a {name} with a constant", remedy)
    return Judgement(Role.INSIDE)


def _judge_resize(operation: Operation) -> Judgement:
    rows, columns = operation.shapes[0][1:3]
    if rows == 1 or columns == 1:
        return Judgement(Role.NONE, f"resizes {rows}x{columns}", "resize an image of 2x2 or more")
    return Judgement(Role.INSIDE)


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
