"""Rules of products: einsum and matmul of tensors, attention, and dense kernels with an equation.

Where two tensors that carry channels are multiplied, as queries and keys are, each is read by what is put into the
other. The product is bilinear, and the kernels of queries and keys are one operator, `Wq Wk^T`. The product, attention
scores, tells positions apart and carries no channels. Where such scores are multiplied with one tensor, they average
its positions: energy passes unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.arguments import read_constant_shape
from tf_lap.graph.channels import Boundary, Flow, Signal
from tf_lap.graph.composite import LayerSteps, Target
from tf_lap.graph.einsum import Equation, read_equation
from tf_lap.graph.energy_maps import ChannelScale, EnergyMap, Gather, Identity
from tf_lap.graph.flows import scale_signal, transpose_signal
from tf_lap.graph.kernels import ChannelAxes
from tf_lap.graph.layer_rules import square
from tf_lap.graph.layouts import Layout

Labels = Sequence[str]
"""The names of a tensor's axes in an equation."""


def find_einsum_layout(layer: Layer, shape: tuple[int, ...]) -> Layout:
    """The layout of an EinsumDense layer's kernel, read from its equation.

    An axis that only the input shares is contracted: an input. One that only the output shares is an output. One that
    both share runs along: a group.
    """
    operands, _, output = layer.equation.replace(" ", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    return Layout.of_axes(shape, (label in inputs for label in kernel), (label in output for label in kernel))


def find_einsum_axes(layer: Layer, input_rank: int, output_rank: int) -> ChannelAxes:
    """The axes of an EinsumDense layer's channels, in the order of its kernel's.

    Raises:
        Boundary: the equation takes a diagonal.
    """
    equation = _read(layer.equation, [input_rank, len(layer.kernel.shape)])
    inputs, kernel = equation.operands
    along = [label for label in kernel if label in inputs and label in equation.output]
    read = [label for label in kernel if label in inputs and label not in along]
    put = [label for label in kernel if label in equation.output and label not in along]
    return ChannelAxes(
        tuple(inputs.index(label) for label in (*along, *read)),
        tuple(equation.output.index(label) for label in (*along, *put)),
    )


def follow_einsum(steps: LayerSteps) -> list[Target]:
    """`einsum` of tensors."""
    arguments = dict(steps.call.arguments)
    equation = arguments.pop("equation", None) or steps.layer.subscripts
    operands = [value for name, value in arguments.items() if name not in ("name", "kwargs")]
    return [_multiply(steps, operands, _read(equation, [len(_shape_of(operand)) for operand in operands]))]


def follow_matmul(steps: LayerSteps) -> list[Target]:
    """A matrix product over the last axis of one tensor and the last but one of the other."""
    left, right, *_ = steps.call.arguments.values()
    ranks = [len(_shape_of(left)), len(_shape_of(right))]
    if min(ranks) < 2:
        raise Boundary("multiplies a vector")
    first = "ji" if steps.argument("transpose_a") or steps.argument("adjoint_a") else "ij"
    second = "kj" if steps.argument("transpose_b") or steps.argument("adjoint_b") else "jk"
    return [_multiply(steps, [left, right], _read(f"...{first},...{second}->...ik", ranks))]


def follow_dot_product_attention(steps: LayerSteps) -> list[Target]:
    """Attention of queries `(batch, positions, heads, channels)`; a head of keys and values may serve several."""
    query, key, value = (steps.argument(name) for name in ("query", "key", "value"))
    heads = query.shape[2]
    positions = (*query.shape[:3], key.shape[1])
    sources = [steps.source(query)]
    for tensor in (key, value):
        source = steps.source(tensor)
        if source is not None and tensor.shape[2] != heads:
            source = _repeat_heads(steps, source, heads)
        sources.append(source)
    steps.note_product((*positions, query.shape[-1]), sources[0])
    steps.note_product((*positions, value.shape[-1]), sources[2])
    if sources[0] is not None and sources[1] is not None:
        _pair(steps, sources[0], "btnh", sources[1], "bsnh", _find_scale(steps, query.shape[-1]), is_by_head=True)
    heads_axis = 2
    steps.builder.add_tie((source, heads_axis) for source in sources if source is not None)
    if sources[2] is None:
        return [None]
    flow = _pass_through(steps.signal(sources[2]), "bsnh", "btnh")
    # A graph that Keras keeps gives the output the width of the queries, whatever the width of the values.
    return [steps.apply([sources[2]], (*query.shape[:-1], value.shape[-1]), flow)]


def follow_attention(steps: LayerSteps) -> list[Target]:
    """An Attention layer: queries meet keys where scores are their product, and values pass through."""
    is_product = steps.layer.score_mode == "dot"
    return _attend(steps, is_product)


def follow_additive_attention(steps: LayerSteps) -> list[Target]:
    """An AdditiveAttention layer: the squares of its scale read queries and keys, and values pass through."""
    return _attend(steps, is_product=False, scale=getattr(steps.layer, "scale", None))


def _attend(steps: LayerSteps, is_product: bool, scale: Variable | None = None) -> list[Target]:
    """Adds the steps of a layer that attends without kernels to queries, values, and keys where they are others.

    Scores that are a sum over channels tell positions apart, as a product does: queries and keys end there. A scale of
    all scores tells no channels apart.

    Args:
        steps: those of the call.
        is_product: whether scores are products of queries and keys.
        scale: what multiplies each channel before a sum, `(channels,)`; None where nothing does.
    """
    query, value, *others = next(iter(steps.call.arguments.values()))
    source = steps.source(value)
    value_flow = None if source is None else _pass_through(steps.signal(source), "bsd", "btd")
    _note_attention(steps, query, others[0] if others else value, value)
    scored = [number for tensor in (query, *(others or [value])) if (number := steps.source(tensor)) is not None]
    if is_product and len(scored) == 2:
        _pair(steps, scored[0], "btd", scored[1], "bsd")
    else:
        for number in scored:
            if scale is not None:
                flow = scale_signal(steps.signal(number), tuple(scale.shape), lambda read: square(read(scale)))
                number = steps.apply([number], steps.signal(number).shape, flow)
            steps.end(number, f"{type(steps.layer).__name__} {steps.path!r}: its scores are a sum over channels")
    first, *others_out = steps.call.outputs
    attended = None if source is None or value_flow is None else steps.apply([source], first.shape, value_flow)
    return [attended, *[None] * len(others_out)]


def _note_attention(steps: LayerSteps, query: Any, key: Any, value: Any) -> None:
    """Notes the products of `(batch, positions, channels)` queries with keys, and of their scores with values."""
    shapes = [_find_shape(operand) for operand in (query, key, value)]
    for operand, shape in ((query, shapes[0]), (value, shapes[2])):
        has_axes = all(len(shape) == 3 for shape in shapes)
        sizes = (*shapes[0][:2], shapes[1][1], shape[2]) if has_axes else (None,)
        steps.note_product(sizes, steps.source(operand))


def _find_scale(steps: LayerSteps, width: int | None) -> float:
    """The factor of attention scores; 1 where it is known only when the model runs.

    Args:
        steps: those of the call.
        width: of a head. By default the factor is the root of 1 over it.
    """
    scale = steps.argument("scale")
    if scale is None:
        return 1.0 if width is None else width**-0.5
    return float(scale) if isinstance(scale, (int, float)) else 1.0


def _repeat_heads(steps: LayerSteps, source: int, heads: int | None) -> int:
    """A tensor whose heads (axis 2) are repeated, so that there are as many as of queries."""
    signal = steps.signal(source)
    groups = signal.shape[2]
    if heads is None or groups is None:
        raise Boundary("has an unknown number of heads")
    shape = (*signal.shape[:2], heads, *signal.shape[3:])
    if 2 not in signal.axes:
        return steps.apply([source], shape, Flow(signal.axes, Identity()))
    place = signal.axes.index(2)
    repeat = Gather.of(signal.sizes(), lambda numbers: np.repeat(numbers, heads // groups, axis=place))
    return steps.apply([source], shape, Flow(signal.axes, repeat))


def _read(equation: str, ranks: Sequence[int]) -> Equation:
    """An equation.

    Raises:
        Boundary: it takes a diagonal, or does not fit.
    """
    try:
        return read_equation(equation, ranks)
    except ValueError as error:
        raise Boundary(str(error)) from error


def _shape_of(operand: Any) -> tuple[int | None, ...]:
    """The shape of an operand of a product.

    Raises:
        Boundary: it is not known.
    """
    shape = _find_shape(operand)
    if not shape:
        raise Boundary("multiplies by a tensor whose axes are not known")
    return shape


def _find_shape(operand: Any) -> tuple[int | None, ...]:
    """The shape of an operand; empty where it is not known."""
    return tuple(operand.shape if isinstance(operand, compat.Tensor) else read_constant_shape(operand) or ())


def _multiply(steps: LayerSteps, operands: Sequence[Any], equation: Equation) -> Target:
    """Adds the steps of a product, and returns what it puts out; None for the product of two that carry channels."""
    carrying = [
        (source, labels)
        for operand, labels in zip(operands, equation.operands, strict=True)
        if (source := steps.source(operand)) is not None
    ]
    _note_product(steps, operands, equation, carrying[0][0] if carrying else None)
    match carrying:
        case [(source, labels)]:
            pairs = zip(operands, equation.operands, strict=True)
            others = [other for operand, other in pairs if steps.source(operand) is None]
            if any(labels[axis] in other for axis in steps.signal(source).axes for other in others):
                steps.wall([source], "it is multiplied with a tensor that has as many channels")
            flow = _pass_through(steps.signal(source), labels, equation.output)
            return steps.apply([source], steps.call.outputs[0].shape, flow)
        case [(left, left_labels), (right, right_labels)]:
            _pair(steps, left, left_labels, right, right_labels)
            for number, labels in carrying:
                if any(labels[axis] in equation.output for axis in steps.signal(number).axes):
                    steps.wall([number], "its product with another tensor has as many channels")
            return None
    raise Boundary(f"multiplies {len(carrying)} tensors that carry channels")


def _note_product(steps: LayerSteps, operands: Sequence[Any], equation: Equation, tensor: int | None) -> None:
    """Notes a product by an equation. Axes of size 1 are stretched to those that they meet."""
    sizes: dict[str, list[int | None]] = {}
    for operand, labels in zip(operands, equation.operands, strict=True):
        for label, size in zip(labels, _shape_of(operand), strict=True):
            sizes.setdefault(label, []).append(size)
    steps.note_product(
        [None if None in extents else max(size or 0 for size in extents) for extents in sizes.values()], tensor
    )


def _pass_through(signal: Signal, labels: Labels, output: Labels) -> Flow:
    """The flow of a tensor that is multiplied with weights of positions: its channels go where their axes go.

    Raises:
        Boundary: the product sums over a channel axis.
    """
    for axis in signal.axes:
        if labels[axis] not in output:
            raise Boundary(f"multiplies its channels (axis {axis}) with a matrix that is no kernel")
    kept = [axis for axis, label in enumerate(labels) if label in output]
    order = sorted(kept, key=lambda axis: list(output).index(labels[axis]))
    flow = transpose_signal(signal, [*order, *(axis for axis in range(len(labels)) if axis not in kept)])
    return Flow(tuple(list(output).index(labels[order[place]]) for place in flow.axes), flow.energy_map)


def _pair(
    steps: LayerSteps,
    left: int,
    left_labels: Labels,
    right: int,
    right_labels: Labels,
    factor: float = 1.0,
    is_by_head: bool = False,
) -> None:
    """Adds the product of two tensors that carry channels, times a factor."""
    energy_map = match_channels(steps.signal(left), left_labels, steps.signal(right), right_labels)
    if factor != 1:
        energy_map = energy_map.then(ChannelScale(lambda read: read(factor**2)))
    steps.multiply(left, right, energy_map, is_by_head)


def match_channels(left: Signal, left_labels: Labels, right: Signal, right_labels: Labels) -> EnergyMap:
    """The map from the energies of `right` to what is read of `left`.

    A channel of `left` is multiplied with the channels of `right` that have the same place on the axes which both
    share: the sum of their energies reads it.

    Raises:
        Boundary: a channel axis has an unknown size.
    """
    left_sizes = dict(zip((left_labels[axis] for axis in left.axes), left.sizes(), strict=True))
    right_sizes = dict(zip((right_labels[axis] for axis in right.axes), right.sizes(), strict=True))
    shared = [label for label in right_sizes if label in left_sizes]
    others = [label for label in right_sizes if label not in left_sizes]
    places = list(right_sizes)
    numbers = np.arange(math.prod(right_sizes.values())).reshape(list(right_sizes.values()))
    by_shared = numbers.transpose([places.index(label) for label in (*shared, *others)])
    by_shared = by_shared.reshape([*(right_sizes[label] for label in shared), -1])
    ascending = [label for label in left_sizes if label in shared]
    by_left = by_shared.transpose([*(shared.index(label) for label in ascending), len(shared)])
    by_left = by_left.reshape([*(left_sizes[label] if label in shared else 1 for label in left_sizes), -1])
    count = by_left.shape[-1]
    index = np.broadcast_to(by_left, (*left_sizes.values(), count)).reshape(-1, count)
    if count > 1:
        return Gather(index).then(ChannelScale(lambda read: read(float(count))))
    flat = index.reshape(-1)
    return Identity() if np.array_equal(flat, np.arange(numbers.size)) else Gather(flat)
