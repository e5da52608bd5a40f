"""Which channels of each tensor, and which places on the axes of each kernel, are left when classes are removed."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from tf_lap.graph.channels import Shape
from tf_lap.graph.coupling import Coupling
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
    def kernel_axes(self) -> tuple[Axes, ...]:
        """For each kernel and each axis of it which of its places stay."""
        every = []
        for number, kernel in enumerate(self.recipe.kernels):
            weights = kernel.layout.find_between(self.kernel_inputs(number), self.kernel_outputs(number))
            sized = zip(_find_places(weights), kernel.layout.shape, strict=True)
            every.append(tuple(np.broadcast_to(places, size) for places, size in sized))
        return tuple(every)


def _find_places(kept: np.ndarray) -> Axes:
    """For each axis of an array which of its places hold any True."""
    axes = range(kept.ndim)
    return tuple(np.asarray(kept.any(axis=tuple(other for other in axes if other != axis))) for axis in axes)
