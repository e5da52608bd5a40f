"""Depthwise and separable convolutions: a filter for each channel, and a kernel behind it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Flow, format_axis
from tf_lap.graph.composite import CompositeRule, LayerSteps, Target
from tf_lap.graph.energy_maps import Array, ChannelScale, Identity, Reader
from tf_lap.graph.flows import reduce_to_axis, repeat_channels
from tf_lap.graph.kernels import LayerKernel, find_format_axes, find_matrix_layout
from tf_lap.graph.layer_rules import square
from tf_lap.graph.layouts import Layout


def make_depthwise_rule(kernel_name: str) -> CompositeRule:
    """The rule of depthwise convolutions that keep their kernel in an attribute of this name."""

    def find_kernels(layer: Layer) -> list[LayerKernel]:
        return [_describe_filters(getattr(layer, kernel_name), "")]

    def follow(steps: LayerSteps) -> list[Target]:
        (filters,) = find_kernels(steps.layer)
        return [_convolve(steps, filters, steps.call.outputs[0].shape)]

    return CompositeRule(follow, find_kernels, (0, 1))


def find_separable_kernels(layer: Layer) -> list[LayerKernel]:
    """The kernels of a separable convolution: the pointwise one has the layer's path alone."""
    pointwise = layer.pointwise_kernel
    return [
        LayerKernel("", pointwise, find_matrix_layout(None, tuple(pointwise.shape))),
        _describe_filters(layer.depthwise_kernel, "depthwise_kernel"),
    ]


def follow_separable(steps: LayerSteps) -> list[Target]:
    """A depthwise convolution, and then a convolution of one tap."""
    pointwise, filters = find_separable_kernels(steps.layer)
    output = steps.call.outputs[0].shape
    shape = list(output)  # the pointwise kernel moves nothing: strides are the depthwise kernel's
    shape[format_axis(steps.layer, len(shape))] = pointwise.layout.inputs
    between = _convolve(steps, filters, tuple(shape))
    return [steps.use_kernel(pointwise, between, find_format_axes(steps.layer, len(shape), len(output)), output)]


def _describe_filters(variable: Variable, name: str) -> LayerKernel:
    """A depthwise kernel `(*taps, channels, multiplier)`: each channel is a group of its own."""
    roles = "t" * (len(variable.shape) - 2) + "go"
    return LayerKernel(name, variable, Layout.of(tuple(variable.shape), roles), is_opt_in=True)


def _convolve(steps: LayerSteps, filters: LayerKernel, shape: tuple[int | None, ...]) -> int:
    """The sum of squares of each channel's taps. A depth multiplier repeats channels.

    Args:
        steps: what steps are added with.
        filters: the depthwise kernel.
        shape: that of the tensor which it puts out.

    Returns:
        That tensor.
    """
    source = steps.read(next(iter(steps.call.arguments.values())))
    signal = steps.signal(source)
    axis = format_axis(steps.layer, len(signal.shape))
    reduced = reduce_to_axis(signal, axis, "convolves")
    if reduced.axes != signal.axes:
        source = steps.apply([source], signal.shape, reduced)
    kernel = filters.variable
    *taps, channels, multiplier = kernel.shape
    repeated = repeat_channels(channels, multiplier) if reduced.axes else Identity()

    def filter_energies(read: Reader) -> Array:
        squares, tap_axes = square(read(kernel)), tuple(range(len(taps)))
        if isinstance(squares, np.ndarray):
            return squares.sum(axis=tap_axes).reshape(-1)
        return tf.reshape(tf.reduce_sum(squares, axis=tap_axes), [-1])

    return steps.apply([source], shape, Flow((axis,), repeated.then(ChannelScale(filter_energies))), filters)
