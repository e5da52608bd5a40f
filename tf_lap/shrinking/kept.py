"""Which channels of each tensor, and which places on the axes of each kernel, are left when classes are removed."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from tf_lap.graph.channels import Shape
from tf_lap.graph.coupling import Coupling
from tf_lap.graph.layouts import Layout
from tf_lap.graph.model_graph import Recipe

Axes = tuple[np.ndarray, ...]
"""For each axis of an array which of its places are left: bool, of the axis's size."""


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """What is left of a model without some classes of channels.

    Attributes:
        recipe: the model's recipe.
        coupling: its classes of channels.
        is_kept: for each class whether it stays: bool, `(classes,)`.
    """

    recipe: Recipe
    coupling: Coupling
    is_kept: np.ndarray

    def channels(self, tensor: int) -> np.ndarray:
        """Which channels of a tensor stay: bool, in the order of its classes."""
        return self.is_kept[self.coupling.tensor_classes[tensor]]

    def places(self, tensor: int) -> dict[int, np.ndarray]:
        """For each channel axis of a tensor which of its places stay: those of which any channel does."""
        signal = self.recipe.signals[tensor]
        sizes = [signal.shape[axis] or 0 for axis in signal.axes]
        kept = self.channels(tensor)
        if not sizes or len(kept) != math.prod(sizes):  # channels that are all alike, or on an axis of open size
            return {}
        return dict(zip(signal.axes, _find_places(kept.reshape(sizes)), strict=True))

    def shape(self, tensor: int) -> Shape:
        """The shape of a tensor with the channels that stay."""
        sizes = list(self.recipe.signals[tensor].shape)
        for axis, places in self.places(tensor).items():
            sizes[axis] = int(places.sum())
        return tuple(sizes)

    def kernel_inputs(self, kernel: int) -> np.ndarray:
        """Which input channels of a kernel stay: bool, `(inputs,)`."""
        return self.is_kept[self.coupling.kernel_inputs[kernel]]

    def kernel_outputs(self, kernel: int) -> np.ndarray:
        """Which output channels of a kernel stay: bool, `(outputs,)`."""
        return self.is_kept[self.coupling.kernel_outputs[kernel]]

    @functools.cached_property
    def _kernel_axes(self) -> dict[int, Axes]:
        return {}

    def kernel_axes(self, kernel: int) -> Axes:
        """For each axis of a kernel which of its places stay."""
        if kernel not in self._kernel_axes:
            layout = self.recipe.kernels[kernel].layout
            shape = layout.shape
            axes = _find_places(spread_weights(layout, self.kernel_inputs(kernel), self.kernel_outputs(kernel)))
            self._kernel_axes[kernel] = tuple(
                np.broadcast_to(places, size) for places, size in zip(axes, shape, strict=True)
            )
        return self._kernel_axes[kernel]


def spread_weights(layout: Layout, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Which weights of a kernel lie between an input and an output of some: bool, with a size of 1 at its taps.

    Args:
        layout: the kernel's.
        inputs: which input channels count, bool, `(inputs,)`.
        outputs: which output channels count, bool, `(outputs,)`.
    """
    plain = layout.plain
    of_group = layout.outputs // plain.groups
    matrix = np.repeat(inputs.reshape(plain.groups, -1), of_group, axis=0).T & outputs
    if plain.swapped:
        matrix = matrix.T
    if not layout.roles:
        return matrix.reshape((1,) * (len(layout.shape) - 2) + matrix.shape)
    without_taps = tuple(1 if role == "t" else size for size, role in zip(layout.shape, layout.roles, strict=True))
    return np.asarray(dataclasses.replace(layout, shape=without_taps).from_plain(matrix))


def _find_places(kept: np.ndarray) -> Axes:
    """For each axis of an array which of its places hold any True."""
    axes = range(kept.ndim)
    return tuple(np.asarray(kept.any(axis=tuple(other for other in axes if other != axis))) for axis in axes)
