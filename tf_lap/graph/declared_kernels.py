"""Kernels that a custom layer declares by tfmot's method `get_prunable_weights`, which names no axes."""

from __future__ import annotations

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Boundary, Shape, format_axis
from tf_lap.graph.composite import CompositeRule, LayerSteps, Target, begin_outputs, end_inputs, follow_side_by_side
from tf_lap.graph.kernels import ChannelAxes, LayerKernel, weight_matrices
from tf_lap.graph.layouts import Layout

UNKNOWN_AXES = "get_prunable_weights does not say what it reads and puts out; tf_lap.register_kernel can"


def find_declared_matrices(layer: Layer) -> tuple[Variable, ...]:
    """The weight matrices that a layer declares and owns itself; none of a layer that is not built."""
    if not hasattr(layer, "get_prunable_weights") or not layer.built:
        return ()
    owned = {id(variable) for variable in compat.own_weights(layer)}
    declared = [variable for variable in layer.get_prunable_weights() if id(variable) in owned]
    return tuple(variable for variable in weight_matrices(declared) if compat.is_kernel_variable(variable))


def find_declared_rule(layer: Layer) -> CompositeRule | None:
    """The rule of a layer without another one, whose only weight matrix is one of two axes that it declares."""
    matrices = find_declared_matrices(layer)
    if len(matrices) != 1 or len(matrices[0].shape) != 2:
        return None
    # Where there are others, here or in layers inside, what reads what is not known.
    return _RULE if len(weight_matrices(compat.weights(layer))) == 1 else None


def _find_kernels(layer: Layer) -> list[LayerKernel]:
    return [LayerKernel("", matrix, Layout(tuple(matrix.shape))) for matrix in find_declared_matrices(layer)]


def _follow(steps: LayerSteps) -> list[Target]:
    """A matrix `(inputs, outputs)`. On a side where it does not fit the layer's channels, it stands at a boundary."""
    (kernel,) = _find_kernels(steps.layer)
    inputs, outputs = kernel.layout.shape
    first, output = steps.call.inputs[0], steps.call.outputs[0]
    reads, puts_out = _find_axis(steps.layer, first.shape, inputs), _find_axis(steps.layer, output.shape, outputs)
    reason = f"its matrix of shape {kernel.layout.shape} does not fit its channels, and {UNKNOWN_AXES}"
    if reads is None and puts_out is None:
        raise Boundary(reason)
    if reads is not None and puts_out is not None:
        return follow_side_by_side(steps, [(kernel, ChannelAxes((reads,), (puts_out,)))])
    reason = f"{type(steps.layer).__name__} {steps.path!r}: {reason}"
    end_inputs(steps, reason, [] if reads is None else [first])
    if reads is None:
        source, reads = steps.begin((None, inputs), reason), 1
    else:
        source = steps.read(first)
    shape = (None, outputs) if puts_out is None else output.shape
    target = steps.use_kernel(kernel, source, ChannelAxes((reads,), (puts_out or 1,)), shape)
    if puts_out is None:
        steps.end(target, reason)
        return begin_outputs(steps, reason, [])
    return begin_outputs(steps, reason, [target])


def _find_axis(layer: Layer, shape: Shape, channels: int) -> int | None:
    """The channel axis of a tensor that has so many channels; None where it has others, or none."""
    axis = format_axis(layer, len(shape)) if len(shape) > 1 else None
    return axis if axis is not None and shape[axis] == channels else None


_RULE = CompositeRule(_follow, _find_kernels)
