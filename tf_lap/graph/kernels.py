"""The kernels that can be pruned: which variables of a layer, how they lie in memory, and which channels they read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import format_axis
from tf_lap.graph.layouts import Layout


class ChannelAxes(NamedTuple):
    """On which axes of its input and its output a kernel's channels lie, in the order of the layout's channels."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class LayerKernel(NamedTuple):
    """A kernel of a layer.

    Attributes:
        name: what follows the layer's path; empty for a layer's only kernel.
        variable: the kernel.
        layout: how it lies in memory.
        is_opt_in: whether it is pruned only where filters or a mapping of sparsities name it.
    """

    name: str
    variable: Variable
    layout: Layout
    is_opt_in: bool = False


def find_format_axes(layer: Layer, input_rank: int, output_rank: int) -> ChannelAxes:
    """The one axis that the layer's `data_format` names, the last by default, on either side."""
    return ChannelAxes((format_axis(layer, input_rank),), (format_axis(layer, output_rank),))


def find_matrix_layout(layer: Layer, shape: tuple[int, ...]) -> Layout:
    """The layout of a Dense or convolution layer's kernel."""
    return Layout(shape, groups=getattr(layer, "groups", 1) or 1)


def find_transposed_layout(layer: Layer, shape: tuple[int, ...]) -> Layout:
    """The layout of a transposed convolution's kernel: outputs come before inputs."""
    return Layout(shape, True, getattr(layer, "groups", 1) or 1)


def weight_matrices(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    """The variables that are weight matrices: those of two axes or more that are not biases."""
    return tuple(v for v in variables if len(v.shape) > 1 and "bias" not in compat.variable_name(v))
