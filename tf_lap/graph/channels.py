"""What graph resolution knows of a tensor and of a layer's call, and what a channel rule makes of them.

Every tensor of a network carries a vector of energies, one number a channel. When a model is resolved, only
the tensor's shape and its channel axes are known (`Signal`). A rule turns the call of a layer into a `Flow`,
which says where the channels of the output lie, and how the sweep computes its energies. The parts that rules
build their flows from are in `flows`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tf_lap.compat.types import Layer
from tf_lap.graph.energy_maps import EnergyMap

Shape: TypeAlias = tuple[int | None, ...]
"""The shape of a symbolic tensor, batch axis first; None for an axis of unknown size."""


class Boundary(Exception):
    """Raised by a rule that cannot follow channels through a call; its text is the reason users read."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A tensor: its shape (batch axis first) and the axes of its channels.

    Most often there is one such axis. There are several where a Dense layer's units are reshaped to an image: the
    energy is then a vector over all places on these axes, in row-major order. There is none where all channels are
    alike, as in a network's input: the energy is then a vector of length 1, which stands for any number of channels
    on any axis. An axis of size 1 is left out.
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
        sizes = tuple(size for axis in self.axes if (size := self.shape[axis]) is not None)
        if len(sizes) < len(self.axes):
            shape = format_shape(self.shape)
            raise Boundary(f"its input {shape} carries channels on {format_axes(self.axes)} of unknown size")
        return sizes


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, an operation or a function.

    Attributes:
        layer: what is called.
        inputs: its input tensors that carry channels, as signals.
        outputs: the shapes of its output tensors.
        arguments: all arguments of the call by name, tensors among them.
    """

    layer: Layer
    inputs: tuple[Signal, ...]
    outputs: tuple[Shape, ...]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def output(self) -> Shape:
        """The shape of its first output."""
        return self.outputs[0]

    def option(self, *names: str) -> Any:
        """The value of an option: an argument of the call, or an attribute of the layer or operation.

        Keras 3 keeps the options of an operation in attributes; TensorFlow's functions are called with them.

        Args:
            names: the names that the option may have. The first that exists counts.
        """
        for name in names:
            if name in self.arguments:
                return self.arguments[name]
            if hasattr(self.layer, name):
                return getattr(self.layer, name)
        return None


@dataclasses.dataclass(frozen=True)
class Flow:
    """The resolved rule of one output of a call.

    Attributes:
        axes: the channel axes of the output.
        energy_map: what becomes of the inputs' energies.
        fixed: why no channel can be removed from the inputs and the output, as where all of them are normalized
            together, or where the layer's settings name places among them; empty where channels can.
        tied: `(sets, n)`, numbers of channels of the only input: those of a row can only be removed together, because
            the call needs as many of one column as of another. None where there are none.
    """

    axes: tuple[int, ...]
    energy_map: EnergyMap
    fixed: str = ""
    tied: np.ndarray | None = None


Flows: TypeAlias = Flow | Sequence[Flow]
"""The flow of a call's only output, or one for each of its outputs."""

RuleFunction: TypeAlias = Callable[[Call], Flows]
"""Turns a call into the flows of its outputs, or raises Boundary."""


@dataclasses.dataclass(frozen=True)
class ChannelRule:
    """How calls of one class, or of one function, pass channels on.

    Attributes:
        flow: turns a call into the flows of its outputs, or raises Boundary.
        signal_range: which of the call's arguments carry channels, in the order of its signature: the first, and the
            one behind the last (None: all that follow). Bounds, shapes, rates and the like carry none. A mask never
            does.
    """

    flow: RuleFunction
    signal_range: tuple[int, int | None] = (0, 1)


def format_axis(layer: Layer, rank: int) -> int:
    """The channel axis that a layer's `data_format` names, in a tensor of `rank` axes."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def require_axis(signal: Signal, axis: int, action: str) -> None:
    """Checks that a signal's channels lie on an axis, among others or alone.

    Args:
        signal: what a layer reads.
        axis: the axis that the layer takes for its channels.
        action: what the layer does along the axis, for the message.

    Raises:
        Boundary: the channels lie on other axes. A size of 1, or channels that are all alike, are accepted.
    """
    axis %= len(signal.shape)
    if signal.axes and axis not in signal.axes and signal.shape[axis] != 1:
        raise Boundary(f"{action} axis {axis}, but its input carries channels on {format_axes(signal.axes)}")


def format_axes(axes: Sequence[int]) -> str:
    """Axes as a message names them."""
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {list(axes)}"


def format_shape(shape: Shape) -> str:
    """A shape as a message shows it."""
    return f"({', '.join('None' if size is None else str(size) for size in shape)})"
