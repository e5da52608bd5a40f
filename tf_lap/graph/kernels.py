"""The kernels that can be pruned: which variable of which layer, and which of its axes are inputs and outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import ClassVar

import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Call, Flow


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kernel of `shape` lies in memory: `(*taps, inputs, outputs)`, or the last two swapped.

    In a grouped convolution the input axis holds the inputs of one group, and outputs are sorted by group.
    """

    shape: tuple[int, ...]
    swapped: bool = False
    groups: int = 1

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def input_axis(self) -> int:
        """The axis of the inputs (of one group), counted from the end."""
        return -1 if self.swapped else -2

    @property
    def output_axis(self) -> int:
        """The axis of the outputs, counted from the end."""
        return -2 if self.swapped else -1

    @property
    def inputs(self) -> int:
        """The number of input channels, over all groups."""
        return self.shape[self.input_axis] * self.groups

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        return self.shape[self.output_axis]

    def energies(self, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The energies of a kernel of this shape: `(inputs,)` that it reads, `(outputs,)` that it puts out.

        The energy of an input channel is the sum of squares of all weights that read it; of an output channel, of
        its filter (Park et al., section 2.2: the squared Frobenius norms of the kernel's slices).
        """
        return self.sum_squares(self.squares(kernel))

    def squares(self, kernel: tf.Tensor) -> tf.Tensor:
        """The squares of a kernel of this shape, added up over its taps.

        Args:
            kernel: floating point, of this shape.

        Returns:
            A matrix `(inputs of a group, outputs)` of the kernel's dtype.
        """
        rows = tf.reshape(kernel, (-1, self.shape[-2] * self.shape[-1]))
        matrix = tf.reshape(tf.reduce_sum(tf.square(rows), axis=0), self.shape[-2:])
        return tf.transpose(matrix) if self.swapped else matrix

    def sum_squares(self, squares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the result of `energies` from the result of `squares`."""
        return self._sum_by_input(squares), tf.reduce_sum(squares, axis=0)

    def propagate(self, squares: tf.Tensor, incoming: tf.Tensor) -> tf.Tensor:
        """The energy `(outputs,)` that a kernel puts out, given the energy of its inputs `(inputs,)`.

        Args:
            squares: the result of `squares`.
            incoming: the energy of each input, of the same dtype.
        """
        by_group = tf.reshape(squares, (-1, self.groups, self.outputs // self.groups))
        return tf.reshape(tf.einsum("gi,igo->go", tf.reshape(incoming, (self.groups, -1)), by_group), [-1])

    def propagate_back(self, squares: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """The energy `(inputs,)` that a kernel reads, given that of its outputs `(outputs,)`.

        It is the transpose of `propagate`; the arguments have the same dtypes.
        """
        return self._sum_by_input(squares * outgoing)

    def _sum_by_input(self, matrix: tf.Tensor) -> tf.Tensor:
        """The sums `(inputs,)` over the outputs of a matrix `(inputs of a group, outputs)`, group after group."""
        by_group = tf.reshape(matrix, (matrix.shape[0], self.groups, -1))
        return tf.reshape(tf.transpose(tf.reduce_sum(by_group, axis=2)), [-1])

    def outer(self, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """`incoming[j] * outgoing[k]` for the input j and output k of each weight.

        Args:
            incoming: a vector `(inputs,)`.
            outgoing: a vector `(outputs,)` of the same dtype.

        Returns:
            A matrix that broadcasts against the kernel: `(inputs of a group, outputs)`, or swapped.
        """
        if self.groups == 1:
            matrix = tf.reshape(incoming, (-1, 1)) * outgoing
            return tf.transpose(matrix) if self.swapped else matrix
        by_group = tf.reshape(incoming, (self.groups, -1, 1))
        repeated = tf.broadcast_to(by_group, (self.groups, self.inputs // self.groups, self.outputs // self.groups))
        matrix = tf.reshape(tf.transpose(repeated, (1, 0, 2)), (-1, self.outputs)) * outgoing
        return tf.transpose(matrix) if self.swapped else matrix


@dataclasses.dataclass(frozen=True)
class KernelRule:
    """Where a layer class keeps its kernel.

    Attributes:
        variable: the attribute that holds the kernel.
        swapped: whether outputs come before inputs, as in transposed convolutions.
        input_rule: the rule of what the layer does to its input before the kernel reads it; None where it does nothing.
    """

    variable: str = "kernel"
    swapped: bool = False
    input_rule: Callable[[Call], Flow] | None = None

    signal_range: ClassVar[tuple[int, int | None]] = (0, 1)
    """As in `ChannelRule`: a kernel reads the first argument of a call."""

    def kernel(self, layer: Layer) -> Variable:
        """The kernel variable of a layer of this class."""
        return getattr(layer, self.variable)

    def layout(self, layer: Layer) -> Layout:
        """How the kernel of a layer lies in memory."""
        groups = getattr(layer, "groups", 1) if self.input_rule is None else 1
        return Layout(tuple(self.kernel(layer).shape), self.swapped, groups or 1)

    def find_obstacle(self, layer: Layer) -> str | None:
        """Why the layer's kernel cannot be pruned at the moment, or None where it can."""
        if not layer.built:
            return "the layer is not built"
        if not compat.is_kernel_variable(self.kernel(layer)):
            return "its kernel is not a floating-point variable (LoRA or quantization is on): prune before it"
        return None


def weight_matrices(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    """The variables that are weight matrices: those of two axes or more that are not biases."""
    return tuple(v for v in variables if len(v.shape) > 1 and "bias" not in compat.variable_name(v))
