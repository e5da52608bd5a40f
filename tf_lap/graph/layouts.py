"""How kernels lie in memory: which of their axes are inputs, outputs, groups and taps, and the energies along them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kernel of `shape` lies in memory.

    A plain layout is `(*taps, inputs, outputs)`, or the last two swapped. In a grouped convolution the input axis holds
    the inputs of one group, and outputs are sorted by group. Any other layout says what each axis is, and has a plain
    one that its weights can be brought into.

    Attributes:
        shape: the kernel's shape.
        swapped: whether outputs come before inputs.
        groups: into how many groups inputs and outputs are divided. A group's outputs read its inputs alone.
        roles: a letter for each axis: "t" for taps, "i" for inputs, "o" for outputs, "g" for groups. Empty for a plain
            layout.
    """

    shape: tuple[int, ...]
    swapped: bool = False
    groups: int = 1
    roles: str = ""

    @classmethod
    def of(cls, shape: Sequence[int], roles: str) -> Layout:
        """The layout of a kernel whose axes have these roles: a plain one where they are taps, inputs and outputs."""
        taps = "t" * (len(shape) - 2)
        if roles in (f"{taps}io", f"{taps}oi"):
            return cls(tuple(shape), roles.endswith("oi"))
        return cls(tuple(shape), roles=roles)

    @classmethod
    def of_axes(cls, shape: Sequence[int], in_input: Iterable[bool], in_output: Iterable[bool]) -> Layout:
        """The layout of a kernel, by whether the input and the output share each axis: a group is shared by both."""
        roles = {(True, True): "g", (True, False): "i", (False, True): "o", (False, False): "t"}
        return cls.of(shape, "".join(roles[sides] for sides in zip(in_input, in_output, strict=True)))

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """For each axis of the plain layout, before neighbours are joined, the axis of the kernel that it is."""
        if not self.roles:
            return tuple(range(len(self.shape)))
        joined = "".join(role for role, _ in itertools.groupby(self.roles.replace("t", "")))
        by_role = {role: [axis for axis, letter in enumerate(self.roles) if letter == role] for role in "tigo"}
        if joined in ("io", "oi"):  # then the weights need not move
            return (*by_role["t"], *(axis for axis, letter in enumerate(self.roles) if letter != "t"))
        return (*by_role["t"], *by_role["i"], *by_role["g"], *by_role["o"])

    @property
    def is_in_order(self) -> bool:
        """Whether weights are brought into the plain layout by a reshape alone."""
        return self.order == tuple(range(len(self.shape)))

    @functools.cached_property
    def plain(self) -> Layout:
        """The plain layout. Its inputs and outputs are sorted by group, then as the kernel's axes are."""
        if not self.roles:
            return self
        sizes = {role: [self.shape[a] for a in self.order if self.roles[a] == role] for role in "tigo"}
        inputs, groups, outputs = (math.prod(sizes[role]) for role in "igo")
        moved_roles = "".join(self.roles[axis] for axis in self.order)
        swapped = not sizes["g"] and moved_roles.endswith("i")
        matrix = (outputs, inputs) if swapped else (inputs, groups * outputs)
        return Layout((*sizes["t"], *matrix), swapped, groups)

    def to_plain(self, array: Any) -> Any:
        """An array or tensor of the kernel's shape, in the plain layout."""
        if not self.roles:
            return array
        module = tf if tf.is_tensor(array) else np
        if not self.is_in_order:
            array = module.transpose(array, self.order)
        return module.reshape(array, self.plain.shape)

    def from_plain(self, array: Any) -> Any:
        """The reverse of `to_plain`."""
        if not self.roles:
            return array
        module = tf if tf.is_tensor(array) else np
        array = module.reshape(array, [self.shape[axis] for axis in self.order])
        return array if self.is_in_order else module.transpose(array, np.argsort(self.order))

    def to_matrices(self, array: np.ndarray) -> np.ndarray:
        """An array of the kernel's shape as a matrix for each group: `(groups, taps * inputs, outputs)` of a group."""
        plain = self.to_plain(array)
        plain = plain.swapaxes(-1, -2) if self.plain.swapped else plain
        by_group = plain.reshape(-1, self.plain.groups, self.outputs // self.plain.groups)
        return np.ascontiguousarray(by_group.transpose(1, 0, 2))

    def from_matrices(self, matrices: np.ndarray) -> np.ndarray:
        """The reverse of `to_matrices`."""
        shape = self.plain.shape
        plain = matrices.transpose(1, 0, 2).reshape(*shape[:-2], -1, self.outputs)
        return self.from_plain(plain.swapaxes(-1, -2) if self.plain.swapped else plain)

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def input_axis(self) -> int:
        """The axis of the inputs (of one group) of a plain layout, counted from the end."""
        return -1 if self.swapped else -2

    @property
    def output_axis(self) -> int:
        """The axis of the outputs of a plain layout, counted from the end."""
        return -2 if self.swapped else -1

    @property
    def is_grouped(self) -> bool:
        """Whether inputs and outputs are divided into groups."""
        return self.plain.groups > 1

    @property
    def inputs(self) -> int:
        """The number of input channels, over all groups."""
        plain = self.plain
        return plain.shape[plain.input_axis] * plain.groups

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        plain = self.plain
        return plain.shape[plain.output_axis]

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
        shape = self.plain.shape
        rows = tf.reshape(self.to_plain(kernel), (-1, shape[-2] * shape[-1]))
        matrix = tf.reshape(tf.reduce_sum(tf.square(rows), axis=0), shape[-2:])
        return tf.transpose(matrix) if self.plain.swapped else matrix

    def sum_squares(self, squares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the result of `energies` from the result of `squares`."""
        return self._sum_by_input(squares), tf.reduce_sum(squares, axis=0)

    def propagate(self, squares: tf.Tensor, incoming: tf.Tensor) -> tf.Tensor:
        """The energy `(outputs,)` that a kernel puts out, given the energy of its inputs `(inputs,)`.

        Args:
            squares: the result of `squares`.
            incoming: the energy of each input, of the same dtype.
        """
        groups = self.plain.groups
        by_group = tf.reshape(squares, (-1, groups, self.outputs // groups))
        return tf.reshape(tf.einsum("gi,igo->go", tf.reshape(incoming, (groups, -1)), by_group), [-1])

    def propagate_back(self, squares: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """The energy `(inputs,)` that a kernel reads, given that of its outputs `(outputs,)`.

        It is the transpose of `propagate`; the arguments have the same dtypes.
        """
        return self._sum_by_input(squares * outgoing)

    def _sum_by_input(self, matrix: tf.Tensor) -> tf.Tensor:
        """The sums `(inputs,)` over the outputs of a matrix `(inputs of a group, outputs)`, group after group."""
        by_group = tf.reshape(matrix, (matrix.shape[0], self.plain.groups, -1))
        return tf.reshape(tf.transpose(tf.reduce_sum(by_group, axis=2)), [-1])

    def outer(self, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """`incoming[j] * outgoing[k]` for the input j and output k of each weight.

        Args:
            incoming: a vector `(inputs,)`.
            outgoing: a vector `(outputs,)` of the same dtype.

        Returns:
            A tensor that broadcasts against the kernel: for a plain layout a matrix `(inputs of a group, outputs)`, or
            swapped; otherwise of the kernel's shape, with a size of 1 at its taps.
        """
        matrix = self._outer_by_group(incoming, outgoing)
        if self.plain.swapped:
            matrix = tf.transpose(matrix)
        if not self.roles:
            return matrix
        return self._without_taps().from_plain(matrix)

    def find_between(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Which weights lie between an input and an output of some.

        Args:
            inputs: which input channels count, bool, `(inputs,)`.
            outputs: which output channels count, bool, `(outputs,)`.

        Returns:
            A bool array that broadcasts to the kernel's shape, with a size of 1 at its taps.
        """
        groups = self.plain.groups
        matrix = np.repeat(inputs.reshape(groups, -1), self.outputs // groups, axis=0).T & outputs
        if self.plain.swapped:
            matrix = matrix.T
        if not self.roles:
            return matrix.reshape((1,) * (len(self.shape) - 2) + matrix.shape)
        return np.asarray(self._without_taps().from_plain(matrix))

    def _without_taps(self) -> Layout:
        """The layout of such a kernel with a size of 1 at its taps."""
        sizes = (1 if role == "t" else size for size, role in zip(self.shape, self.roles, strict=True))
        return dataclasses.replace(self, shape=tuple(sizes))

    def _outer_by_group(self, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """The products of `outer` as a matrix `(inputs of a group, outputs)`."""
        groups = self.plain.groups
        if groups == 1:
            return tf.reshape(incoming, (-1, 1)) * outgoing
        by_group = tf.reshape(incoming, (groups, -1, 1))
        repeated = tf.broadcast_to(by_group, (groups, self.inputs // groups, self.outputs // groups))
        return tf.reshape(tf.transpose(repeated, (1, 0, 2)), (-1, self.outputs)) * outgoing
