"""What graph resolution knows of a tensor and of a layer's call, and the pieces that channel rules are made of.

Every tensor of a network carries a vector of energies, one number a channel. At resolution time only
its shape and its channel axis are known (`Signal`); a rule turns the call of a layer into a `Flow`,
which says where the channels of the output lie and how to compute its energies when the sweep runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap.graph.energy_maps import Array, EnergyMap, Gather, Identity, Reader, Scale, Sum, library

Shape = tuple[int | None, ...]


class Boundary(Exception):
    """Raised by a rule that cannot follow channels through a call; its text is the reason users read."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A tensor: its shape (batch axis first) and the axes of its channels.

    Most often there is one such axis. Where a Dense layer's units are reshaped to an image, there are several, and the
    energy is a vector over all places on them, in row-major order. There is none where all channels are alike, as in a
    network's input: the energy is then a vector of length 1 that stands for any number of channels on any axis. An
    axis of size 1 is left out.
    """

    shape: Shape
    axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(a for a in sorted(self.axes) if self.shape[a] != 1))

    def sizes(self) -> tuple[int, ...]:
        """The sizes of the channel axes.

        Raises:
            Boundary: one is not known.
        """
        sizes = tuple(self.shape[a] for a in self.axes)
        if None in sizes:
            raise Boundary(f"its input {_show(self.shape)} carries channels on {_axes(self.axes)} of unknown size")
        return sizes  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, an operation or a function.

    Attributes:
        layer: what is called.
        inputs: those of its input tensors that carry channels, as signals.
        outputs: the shapes of its output tensors.
        arguments: all arguments of the call by name, tensors among them.
    """

    layer: Any
    inputs: tuple[Signal, ...]
    outputs: tuple[Shape, ...]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def output(self) -> Shape:
        """The shape of its first output."""
        return self.outputs[0]

    def option(self, *names: str) -> Any:
        """What the call, or the layer or operation itself, says under the first of these names that it has.

        Keras 3 keeps what an operation was made with in attributes; TensorFlow's functions are called with it.
        """
        for name in names:
            if name in self.arguments:
                return self.arguments[name]
            if hasattr(self.layer, name):
                return getattr(self.layer, name)
        return None


@dataclasses.dataclass(frozen=True)
class Flow:
    """The resolved rule of one output of a call: its channel axes, and what becomes of the inputs' energies."""

    axes: tuple[int, ...]
    energy_map: EnergyMap


Flows = Flow | Sequence[Flow]
"""The flow of a call's only output, or one for each of its outputs."""


@dataclasses.dataclass(frozen=True)
class ChannelRule:
    """How calls of one class, or of one function, pass channels on.

    Attributes:
        flow: turns a call into the flows of its outputs, or raises Boundary.
        arguments: the first and behind the last of the call's arguments that carry channels, as its signature lists
            them. The others are bounds, shapes, rates and the like, and no signals. A mask is never one.
    """

    flow: Callable[[Call], Flows]
    arguments: tuple[int, int | None] = (0, 1)


def format_axis(layer: Any, rank: int) -> int:
    """The channel axis that a layer's `data_format` names, in a tensor of `rank` axes."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def require_axis(signal: Signal, axis: int, what: str) -> None:
    """Raises Boundary unless `axis` is among a signal's channel axes, or of size 1, or all channels are alike."""
    axis %= len(signal.shape)
    if signal.axes and axis not in signal.axes and signal.shape[axis] != 1:
        raise Boundary(f"{what} axis {axis}, but its input carries channels on {_axes(signal.axes)}")


def on_axis(signal: Signal, axis: int, what: str) -> Flow:
    """The flow to one channel axis: places on the others are positions of a channel, whose mean energy counts.

    Raises:
        Boundary: as `require_axis`.
    """
    require_axis(signal, axis, what)
    return averaged(signal, {axis % len(signal.shape)})


def averaged(signal: Signal, kept: Iterable[int]) -> Flow:
    """The flow to those of a signal's channel axes that are kept: the mean energy over the others."""
    axes = tuple(a for a in signal.axes if a in set(kept))
    if axes == signal.axes:
        return Flow(axes, Identity())
    sizes, others = signal.sizes(), [i for i, a in enumerate(signal.axes) if a not in axes]
    numbers = np.moveaxis(np.arange(math.prod(sizes)).reshape(sizes), others, range(-len(others), 0))
    return Flow(axes, Gather(numbers.reshape(-1, math.prod(sizes[i] for i in others))))


def summed(inputs: Sequence[Signal], rank: int) -> Flow:
    """The flow of a sum of tensors that broadcast together (aligned from the last axis) to `rank` axes.

    Raises:
        Boundary: their channels lie on different axes.
    """
    places = [tuple(a + rank - len(s.shape) for a in s.axes) for s in inputs]
    axes = max(places, key=len)
    if not all(set(own) <= set(axes) for own in places):
        raise Boundary(f"its inputs carry channels on different axes {sorted(set().union(*places))}")
    if all(own in (axes, ()) for own in places):
        return Flow(axes, Sum((Identity(),) * len(inputs)) if len(inputs) > 1 else Identity())
    shapes = [spanned(s.sizes(), own, axes) for s, own in zip(inputs, places, strict=True)]
    full = np.broadcast_shapes(*map(tuple, shapes))
    parts = [
        Gather.of(s.sizes(), lambda numbers, shape=shape: np.broadcast_to(numbers.reshape(shape), full))
        for s, shape in zip(inputs, shapes, strict=True)
    ]
    return Flow(axes, Sum(tuple(parts)))


def spanned(sizes: Sequence[int], own: Sequence[int], axes: Sequence[int]) -> list[int]:
    """The sizes on `axes` of energies that lie on the axes `own`: 1 on those that are not among them."""
    return [sizes[list(own).index(a)] if a in own else 1 for a in axes]


def scaled(signal: Signal, shape: Shape, squares: Callable[[Reader], Array]) -> Flow:
    """The flow of multiplying by a constant or a learned scale.

    Args:
        signal: what is multiplied.
        shape: the scale's shape, aligned with the signal's from the last axis.
        squares: given what reads variables, gives the squared scale when the sweep runs: of that shape, or a vector
            where one axis alone is wide.

    Along the channel axes the scale acts channel by channel; along other axes, where a channel has
    many positions, its mean square counts. Where all channels are alike, the scale tells them apart.
    """
    before = len(signal.shape) - len(shape)
    if before < 0:
        raise Boundary(f"scaled by an array of {len(shape)} axes, more than its own {len(signal.shape)}")
    wide = {i + before: size for i, size in enumerate(shape) if size != 1}
    axes = signal.axes or tuple(a for a in wide if a > 0)
    others = [a - before for a in wide if a not in axes]
    factors = [wide.get(a, 1) for a in axes]
    sizes = list(signal.sizes()) if len(axes) > 1 and signal.axes else factors

    def channel_factors(value: Reader) -> Array:
        square = squares(value)
        arrays = library(square)
        if others:
            square = np.mean(square, axis=tuple(others)) if arrays is np else tf.reduce_mean(square, axis=others)
        factor = arrays.reshape(square, factors or [1])
        return arrays.reshape(arrays.broadcast_to(factor, sizes), [-1]) if len(axes) > 1 else factor

    return Flow(axes, Scale(channel_factors))


def reshaped(signal: Signal, output: Shape) -> Flow:
    """The flow of a row-major reshape, exact wherever axes are split into factors, or joined from them.

    The channel axes of the input and the axes of the output are cut into common factors. An axis of the output carries
    channels if one of its factors comes from a channel axis of the input; over its other factors the channels repeat.

    Raises:
        Boundary: the axes have no common factors, so that no axis of the output tells channels apart.
    """
    if not signal.axes:
        return Flow((), Identity())
    mixes = Boundary(
        f"reshapes {_show(signal.shape)} with channels on {_axes(signal.axes)} to {_show(output)}, which mixes channels"
    )
    before, after = _strides(signal.shape), _strides(output)
    if not all(axis in before for axis in signal.axes):
        raise mixes
    carrying = _runs([before[axis] for axis in signal.axes])
    cuts = sorted({1, *(end for ends in (*carrying, *after.values()) for end in ends)})
    factors = list(itertools.pairwise(cuts))[::-1]
    channel = [any(start <= low and high <= end for start, end in carrying) for low, high in factors]
    targets = {_axis_of(factor, after) for factor, carries in zip(factors, channel, strict=True) if carries}
    if None in targets:
        raise mixes
    axes = tuple(sorted(targets))  # type: ignore[type-var]
    top = max([before[a][1] for a in signal.axes] + [after[a][1] for a in axes])
    if any(high % low for low, high in factors if high <= top):
        raise mixes
    places = [
        (high // low, carries)
        for (low, high), carries in zip(factors, channel, strict=True)
        if _axis_of((low, high), after) in axes
    ]
    if all(carries for _, carries in places):
        return Flow(axes, Identity())
    narrow = [size if carries else 1 for size, carries in places]
    full = [size for size, _ in places]
    return Flow(axes, Gather.of(narrow, lambda numbers: np.broadcast_to(numbers, full)))


def _strides(shape: Shape) -> dict[int, tuple[int, int]]:
    """For each axis behind the batch, from the last to the first of unknown size: how many elements one step along it
    passes, and how many the whole axis.
    """
    strides, passed = {}, 1
    for axis in range(len(shape) - 1, 0, -1):
        size = shape[axis]
        if size is None:
            break
        strides[axis] = passed, passed * size
        passed *= size
    return strides


def _runs(strides: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The strides of axes, with those that follow one another joined: their elements are numbered on."""
    runs: list[tuple[int, int]] = []
    for start, end in strides:
        if runs and runs[-1][0] == end:
            start, end = start, runs.pop()[1]
        runs.append((start, end))
    return runs


def _axis_of(factor: tuple[int, int], strides: Mapping[int, tuple[int, int]]) -> int | None:
    """The axis that a factor, from one number of elements to another, is a part of."""
    low, high = factor
    return next((axis for axis, (start, end) in strides.items() if start <= low and high <= end), None)


def spread(channels: int, inner: int) -> EnergyMap:
    """The map that repeats each of `(channels,)` energies `inner` times in a row."""
    return Gather.of([channels], lambda numbers: np.repeat(numbers, inner))


def moved(signal: Signal, order: Sequence[int]) -> Flow:
    """The flow of a transposition: the channels go where their axes go."""
    places = [list(order).index(axis) for axis in signal.axes]
    axes = tuple(sorted(places))
    if list(axes) == places:
        return Flow(axes, Identity())
    swap = [places.index(axis) for axis in axes]
    return Flow(axes, Gather.of(signal.sizes(), lambda numbers: np.transpose(numbers, swap)))


def _axes(axes: Sequence[int]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {list(axes)}"


def _show(shape: Shape) -> str:
    return f"({', '.join('None' if d is None else str(d) for d in shape)})"
