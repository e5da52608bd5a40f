"""The kernels that can be pruned: which variables of a layer, how they lie in memory, and which channels they read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

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


@dataclasses.dataclass(frozen=True)
class KernelRule:
    """Where a layer class keeps its only kernel, which reads the first argument of a call.

    Attributes:
        variable: the attribute that holds the kernel.
        find_layout: given a layer and its kernel's shape, how the kernel lies in memory.
        find_axes: given a layer, and how many axes its input and its output have, the axes of the kernel's channels.
    """

    variable: str = "kernel"
    find_layout: Callable[[Layer, tuple[int, ...]], Layout] = find_matrix_layout
    find_axes: Callable[[Layer, int, int], ChannelAxes] = find_format_axes

    signal_range: ClassVar[tuple[int, int | None]] = (0, 1)
    """As in `ChannelRule`: a kernel reads the first argument of a call."""

    def kernel(self, layer: Layer) -> Variable:
        """The kernel variable of a layer of this class."""
        return getattr(layer, self.variable)

    def layout(self, layer: Layer) -> Layout:
        """How the kernel of a layer lies in memory."""
        return self.find_layout(layer, tuple(self.kernel(layer).shape))

    def kernels(self, layer: Layer) -> list[LayerKernel]:
        """The kernels of a layer that can be pruned at the moment."""
        return [LayerKernel("", self.kernel(layer), self.layout(layer))]

    def find_obstacle(self, layer: Layer) -> str | None:
        """Why the layer's kernel cannot be pruned at the moment, or None where it can."""
        return find_obstacle(layer, lambda: [self.kernel(layer)])


def find_obstacle(layer: Layer, find_variables: Callable[[], Iterable[Variable]]) -> str | None:
    """Why kernels of a layer cannot be pruned at the moment, or None where they can.

    Args:
        layer: the layer.
        find_variables: gives the kernels; called if the layer is built.
    """
    if not layer.built:
        return "the layer is not built"
    if not all(map(compat.is_kernel_variable, find_variables())):
        return "its kernel is not a floating-point variable (LoRA or quantization is on): prune before it"
    return None


def weight_matrices(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    """The variables that are weight matrices: those of two axes or more that are not biases."""
    return tuple(v for v in variables if len(v.shape) > 1 and "bias" not in compat.variable_name(v))
