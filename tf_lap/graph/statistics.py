"""Statistics that a normalization is written out with: the mean of squares over channels, and the like.

As in layers that normalize, statistics of the data are ignored: what they scale or centre keeps its channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tf_lap import compat
from tf_lap.graph.arguments import read_constant_shape
from tf_lap.graph.channels import ChannelRule, RuleFunction
from tf_lap.graph.layer_rules import divide, elementwise, merge, multiply, normalizing, power, reduction
from tf_lap.graph.registry import find_rule

_ACTS_ON_ELEMENTS: frozenset[RuleFunction] = frozenset((elementwise, normalizing, merge, multiply, divide, power))


def find_statistics(graph: compat.Graph) -> frozenset[compat.Tensor]:
    """What reductions with `keepdims` put out that serves to scale or centre tensors alone.

    A statistic may be read, through operations on its elements, by products and quotients with wider tensors that come
    from the same tensor as itself, and by a difference between the reduced tensor and itself. What a kernel or any
    other layer reads, or what gates or is added to another tensor, is none: it is a signal.
    """
    readers: dict[compat.Tensor, list[compat.LayerCall]] = {}
    producers: dict[compat.Tensor, compat.LayerCall] = {}
    for call in graph.calls:
        producers.update(dict.fromkeys(call.outputs, call))
        for tensor in dict.fromkeys(call.inputs):
            readers.setdefault(tensor, []).append(call)
    leaving = frozenset(graph.outputs)
    return frozenset(
        call.outputs[0]
        for call in graph.calls
        if _has_rule(call, (reduction,)) and _is_statistic(call.outputs[0], call.inputs[0], readers, producers, leaving)
    )


def _is_statistic(
    tensor: compat.Tensor,
    reduced: compat.Tensor,
    readers: Mapping[compat.Tensor, list[compat.LayerCall]],
    producers: Mapping[compat.Tensor, compat.LayerCall],
    leaving: frozenset[compat.Tensor],
) -> bool:
    """Whether a tensor with axes of size 1 scales or centres other tensors alone.

    Args:
        tensor: the tensor.
        reduced: what it is a statistic of.
        readers: the calls that read each tensor.
        producers: the call that puts each tensor out; none for those that enter the graph.
        leaving: the tensors that leave the graph.
    """
    calls = readers.get(tensor, [])
    if tensor in leaving or not calls or len(tensor.shape) != len(reduced.shape):
        return False
    return all(
        _has_rule(call, _ACTS_ON_ELEMENTS)
        and (
            _is_statistic(call.outputs[0], reduced, readers, producers, leaving)
            if call.outputs[0].shape == tensor.shape
            else _scales(call, tensor, reduced, producers) or _centres(call, tensor, reduced)
        )
        for call in calls
    )


def _scales(
    call: compat.LayerCall,
    tensor: compat.Tensor,
    reduced: compat.Tensor,
    producers: Mapping[compat.Tensor, compat.LayerCall],
) -> bool:
    """Whether a call multiplies a wider tensor, which comes from what was reduced, by a statistic, or divides it."""
    operands = list(call.arguments.values())[:2]
    if _has_rule(call, (divide,)):
        if operands[1] is not tensor:
            return False
    elif not _has_rule(call, (multiply,)) or any(read_constant_shape(operand) for operand in operands):
        return False
    origins = _find_origins(reduced, producers)
    return any(other is not tensor and origins & _find_origins(other, producers) for other in call.inputs)


def _find_origins(
    tensor: compat.Tensor, producers: Mapping[compat.Tensor, compat.LayerCall]
) -> frozenset[compat.Tensor]:
    """A tensor, and those that it is computed from by operations on elements and by reductions alone."""
    origins, pending = set[compat.Tensor](), [tensor]
    while pending:
        origin = pending.pop()
        if origin not in origins:
            origins.add(origin)
            call = producers.get(origin)
            if call is not None and _has_rule(call, (*_ACTS_ON_ELEMENTS, reduction)):
                pending.extend(call.inputs)
    return frozenset(origins)


def _centres(call: compat.LayerCall, tensor: compat.Tensor, reduced: compat.Tensor) -> bool:
    """Whether a call takes a statistic from the tensor that it is a statistic of."""
    operands = list(call.arguments.values())[:2]
    is_difference = call.function == "math.subtract" or type(call.layer).__name__ == "Subtract"
    return is_difference and operands[0] is reduced and operands[1] is tensor


def _has_rule(call: compat.LayerCall, rules: Iterable[RuleFunction]) -> bool:
    rule = find_rule(call.layer)
    return isinstance(rule, ChannelRule) and rule.flow in rules
