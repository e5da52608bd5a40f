"""The rows of numbers that a kernel is multiplied by, at a call of its layer.

A kernel's weights, brought into one matrix for each group (`Layout.to_matrices`), are multiplied by rows: the inputs of
a Dense layer, or the patches that a convolution reads at each position.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.model_graph import Kernel, KernelStep, Recipe, RuleStep

_MAX_NUMBERS = 1 << 24
"""How many numbers the rows that are made at once hold at most: 64 MiB in float32."""


class RowReader(abc.ABC):
    """Turns what a layer is called with into the rows that one of its kernels is multiplied by.

    Attributes:
        layer: the layer that is called.
        groups: into how many groups its channels are divided.
        row_size: how many numbers a row of one group has.
    """

    layer: Layer
    groups: int
    row_size: int

    @abc.abstractmethod
    def read(self, inputs: tf.Tensor) -> tf.Tensor:
        """The rows of some samples: `(groups, positions, row_size)`, in the dtype of the inputs.

        Args:
            inputs: the first input of a call, samples first.
        """

    def read_in_parts(self, inputs: tf.Tensor) -> Iterator[tf.Tensor]:
        """The rows, part after part, so that memory is bounded.

        Args:
            inputs: as in `read`. Numbers of another kind than float64 are read as float32.

        Yields:
            As `read` gives them.
        """
        inputs = inputs if inputs.dtype == tf.float64 else tf.cast(inputs, tf.float32)
        numbers = self.count_numbers(inputs[:1])
        size = max(1, _MAX_NUMBERS // numbers)
        for first in range(0, inputs.shape[0], size):
            yield self.read(inputs[first : first + size])

    def sum_squares(self, inputs: tf.Tensor) -> tuple[tf.Tensor, int]:
        """The sum of the squares of each number of the rows.

        Args:
            inputs: as in `read`.

        Returns:
            Float64 of shape `(groups, row_size)`, and how many rows are added up.
        """
        rows = self.read(tf.square(tf.cast(inputs, tf.float64)))
        return tf.reduce_sum(rows, axis=1), rows.shape[1]

    @abc.abstractmethod
    def count_numbers(self, sample: tf.Tensor) -> int:
        """How many numbers the rows of one sample hold."""


@dataclasses.dataclass(frozen=True)
class ChannelReader(RowReader):
    """Reads the channels of each position, as Dense and EinsumDense do.

    Attributes:
        axes: the axes of the channels, in the order of the layout's channels, counted from the end.
    """

    layer: Layer
    groups: int
    row_size: int
    axes: tuple[int, ...]

    def read(self, inputs: tf.Tensor) -> tf.Tensor:
        """As `RowReader.read`."""
        rank = inputs.shape.rank
        axes = [axis % rank for axis in self.axes]
        order = [*(axis for axis in range(rank) if axis not in axes), *axes]
        moved = inputs if order == list(range(rank)) else tf.transpose(inputs, order)
        rows = tf.reshape(moved, (-1, self.groups, self.row_size))
        return rows[tf.newaxis, :, 0] if self.groups == 1 else tf.transpose(rows, (1, 0, 2))

    def count_numbers(self, sample: tf.Tensor) -> int:
        """As `RowReader.count_numbers`."""
        return math.prod(sample.shape)


@dataclasses.dataclass(frozen=True)
class PatchReader(RowReader):
    """Reads the patches of a convolution.

    Attributes:
        taps: the sizes of a filter's axes.
        strides: how far apart patches are, by axis.
        dilations: how far apart the taps of a filter are, by axis.
        padding: "valid", "same" or "causal".
        channels_first: whether channels come before positions.
    """

    layer: Layer
    groups: int
    row_size: int
    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    channels_first: bool

    def read(self, inputs: tf.Tensor) -> tf.Tensor:
        """As `RowReader.read`."""
        patches = tf.stack(list(self._shift(inputs)), axis=-2)
        taps, channels = patches.shape[-2:]
        rows = tf.reshape(patches, (-1, taps, self.groups, channels // self.groups))
        return tf.reshape(tf.transpose(rows, (2, 0, 1, 3)), (self.groups, -1, self.row_size))

    def sum_squares(self, inputs: tf.Tensor) -> tuple[tf.Tensor, int]:
        """As `RowReader.sum_squares`."""
        squares = tf.reduce_sum(tf.square(tf.cast(inputs, tf.float64)), axis=0, keepdims=True)
        sums = tf.stack([tf.reduce_sum(read, axis=range(read.shape.rank - 1)) for read in self._shift(squares)])
        by_group = tf.transpose(tf.reshape(sums, (len(sums), self.groups, -1)), (1, 0, 2))
        count = inputs.shape[0] * self.count_numbers(inputs[:1]) // (self.groups * self.row_size)
        return tf.reshape(by_group, (self.groups, self.row_size)), count

    def _shift(self, inputs: tf.Tensor) -> Iterator[tf.Tensor]:
        """For each tap what it reads at each position: `(samples, *positions, channels)`."""
        if self.channels_first:
            inputs = tf.transpose(inputs, (0, *range(2, inputs.shape.rank), 1))
        positions, padding = self._find_positions(inputs.shape[1:-1])
        padded = tf.pad(inputs, [(0, 0), *padding, (0, 0)])
        for tap in itertools.product(*map(range, self.taps)):
            places = [slice(None)]
            for index, stride, dilation, count in zip(tap, self.strides, self.dilations, positions, strict=True):
                first = index * dilation
                places.append(slice(first, first + (count - 1) * stride + 1, stride))
            yield padded[tuple(places)]

    def count_numbers(self, sample: tf.Tensor) -> int:
        """As `RowReader.count_numbers`."""
        sizes = sample.shape[2:] if self.channels_first else sample.shape[1:-1]
        return math.prod(self._find_positions(sizes)[0]) * self.groups * self.row_size

    def _find_positions(self, sizes: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """How many positions there are along each axis, and by how much each is padded before and behind."""
        positions, padding = [], []
        for size, taps, stride, dilation in zip(sizes, self.taps, self.strides, self.dilations, strict=True):
            extent = (taps - 1) * dilation + 1
            if self.padding == "same":
                count = -(-size // stride)
                missing = max((count - 1) * stride + extent - size, 0)
                padding.append((missing // 2, missing - missing // 2))
            elif self.padding == "causal":
                count = (size - 1) // stride + 1
                padding.append((extent - 1, 0))
            else:
                count = (size - extent) // stride + 1
                padding.append((0, 0))
            positions.append(count)
        return positions, padding


def find_reader(recipe: Recipe, number: int) -> RowReader | str:
    """What reads the rows of a kernel, or why nothing does.

    Args:
        recipe: the recipe.
        number: the kernel's number.
    """
    kernel = recipe.kernels[number]
    steps = [step for step in recipe.steps if isinstance(step, (KernelStep, RuleStep)) and step.kernel == number]
    if not steps:
        return kernel.unreached_reason or "no call of its layer is known"
    if kernel.is_tied:
        return "another layer has it too"
    if not compat.has_keras_call(kernel.layer):
        return f"what a {type(kernel.layer).__name__} multiplies it with is known to its own call alone"
    if _is_layer_kernel(kernel) and hasattr(kernel.layer, "kernel_size"):
        return _find_patch_reader(kernel)
    if isinstance(steps[0], RuleStep) or kernel.layout.plain.shape[:-2]:
        return f"the rows that a {type(kernel.layer).__name__} multiplies it with cannot be read"
    if any(isinstance(step, KernelStep) and step.is_transposed for step in steps):
        return "it is used in both directions"
    if _adds_up_axes(kernel.layer):
        return "its equation adds up axes that the kernel has not"
    if not (_is_layer_kernel(kernel) or _is_cell_kernel(kernel)) or not steps[0].read_axes:
        return f"the rows that a {type(kernel.layer).__name__} multiplies it with are no input of the layer"
    groups = kernel.layout.plain.groups
    return ChannelReader(kernel.layer, groups, kernel.layout.inputs // groups, steps[0].read_axes)


def _is_layer_kernel(kernel: Kernel) -> bool:
    """Whether it is what Keras's layers call their kernel; tf_keras has another name for that of a depthwise layer."""
    names = ("kernel", "depthwise_kernel")
    is_separable = hasattr(kernel.layer, "pointwise_kernel")
    return not is_separable and any(getattr(kernel.layer, name, None) is kernel.variable for name in names)


def _is_cell_kernel(kernel: Kernel) -> bool:
    """Whether it is what the only cell of a recurrent layer multiplies the layer's input with."""
    cell = getattr(kernel.layer, "cell", None)
    return cell is not None and getattr(cell, "kernel", None) is kernel.variable and not hasattr(cell, "kernel_size")


def _adds_up_axes(layer: Layer) -> bool:
    """Whether a layer with an equation adds up positions of its input: a row is then a sum over them."""
    operands, _, output = getattr(layer, "equation", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    return any(label.isalpha() and label not in kernel + output for label in inputs)


def _find_patch_reader(kernel: Kernel) -> RowReader | str:
    layer, plain = kernel.layer, kernel.layout.plain
    if plain.swapped:
        return "the patches of a transposed convolution are not read"
    if hasattr(layer, "cell"):
        return "the patches of a recurrent convolution are not read"
    taps = plain.shape[:-2]
    return PatchReader(
        layer,
        plain.groups,
        math.prod(taps) * plain.shape[-2],
        taps,
        _spread(layer.strides, len(taps)),
        _spread(layer.dilation_rate, len(taps)),
        layer.padding,
        getattr(layer, "data_format", None) == "channels_first",
    )


def _spread(sizes: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (sizes,) * count if isinstance(sizes, int) else tuple(sizes)
