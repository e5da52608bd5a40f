"""What graph resolution knows of a tensor and of a layer's call, and the pieces that channel rules are made of.

Every tensor of a network carries a vector of energies, one number a channel. At resolution time only
its shape and its channel axis are known (`Signal`); a rule turns the call of a layer into a `Flow`,
which says where the channels of the output lie and how to compute its energies when the sweep runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Shape = tuple[int | None, ...]
Transform = Callable[..., tf.Tensor]
"""Energies of the inputs, float32 vectors, to energies of the output; linear in its arguments."""


class Boundary(Exception):
    """Raised by a rule that cannot follow channels through a call; its text is the reason users read."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A tensor: its shape (batch axis first) and the axis of its channels.

    `axis` is None where all channels are alike, as in a network's input: the energy is then a vector
    of length 1 that stands for any number of channels on any axis.
    """

    shape: Shape
    axis: int | None

    def __post_init__(self) -> None:
        if self.axis is not None and self.shape[self.axis] == 1:
            object.__setattr__(self, "axis", None)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer: its inputs as signals, the shape of its output, and its raw arguments."""

    layer: Any
    inputs: tuple[Signal, ...]
    output: Shape
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Flow:
    """The resolved rule of one call: the output's channel axis, and the transform of energies."""

    axis: int | None
    transform: Transform


def identity(energy: tf.Tensor) -> tf.Tensor:
    """Passes energies of shape `(channels,)` through unchanged."""
    return energy


def total(*energies: tf.Tensor) -> tf.Tensor:
    """Sums energies of shapes `(channels,)` or `(1,)`, broadcast over channels."""
    return sum(energies[1:], start=energies[0])


def format_axis(layer: Any, rank: int) -> int:
    """The channel axis that a layer's `data_format` names, in a tensor of `rank` axes."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def require_axis(signal: Signal, axis: int, what: str) -> None:
    """Raises Boundary unless the channels of a signal lie on `axis`, or are all alike."""
    if signal.axis is not None and signal.axis != axis % len(signal.shape):
        raise Boundary(f"{what} axis {axis % len(signal.shape)}, but its input carries channels on axis {signal.axis}")


def common_axis(inputs: Sequence[Signal], rank: int) -> int | None:
    """The channel axis of inputs that broadcast together (aligned from the last axis) to `rank` axes."""
    axes = {s.axis + rank - len(s.shape) for s in inputs if s.axis is not None}
    if len(axes) > 1:
        raise Boundary(f"its inputs carry channels on different axes {sorted(axes)}")
    return axes.pop() if axes else None


def scaled(signal: Signal, shape: Shape, squares: Callable[[], tf.Tensor]) -> Flow:
    """The flow of multiplying by a constant or a learned scale.

    Args:
        signal: what is multiplied.
        shape: the scale's shape, aligned with the signal's from the last axis.
        squares: gives the squared scale, of that shape, when the sweep runs.

    Along the channel axis the scale acts channel by channel; along other axes, where a channel has
    many positions, its mean square counts.
    """
    rank = len(signal.shape)
    if len(shape) > rank:
        raise Boundary(f"scaled by an array of {len(shape)} axes, more than its own {rank}")
    wide = [i + rank - len(shape) for i, size in enumerate(shape) if size != 1]
    axis = signal.axis
    if axis is None and len(wide) == 1 and wide[0] > 0:
        axis = wide[0]
    others = [i - (rank - len(shape)) for i in wide if i != axis]
    per_channel = axis in wide

    def transform(energy: tf.Tensor) -> tf.Tensor:
        factor = tf.reduce_mean(squares(), axis=others)
        return energy * tf.reshape(factor, [-1] if per_channel else [1])

    return Flow(axis, transform)


def reshaped(signal: Signal, output: Shape) -> Flow:
    """The flow of a row-major reshape: exact wherever one output axis alone decides the channel.

    With `s` elements behind the channel axis of the input and `t` behind an axis of the output, that
    axis carries the channels if `t` divides `s` and the axis spans whole cycles of channels. Each channel
    then repeats `s / t` times in a row, and the whole row of channels as often as the axis is wide.
    """
    if signal.axis is None:
        return Flow(None, identity)
    channels, behind = signal.shape[signal.axis], _product(signal.shape[signal.axis + 1 :])
    if channels is not None and behind is not None:
        for axis in range(len(output) - 1, 0, -1):
            width, stride = output[axis], _product(output[axis + 1 :])
            if width is None or stride is None:
                break
            if behind % stride == 0 and width % (behind // stride * channels) == 0:
                inner = behind // stride
                return Flow(axis, spread(channels, width // (inner * channels), inner))
    raise Boundary(
        f"reshapes {_show(signal.shape)} with channels on axis {signal.axis} to {_show(output)}, which mixes channels"
    )


def spread(channels: int, outer: int, inner: int) -> Transform:
    """Repeats each of `(channels,)` energies `inner` times in a row, and all of that `outer` times."""
    if outer == inner == 1:
        return identity

    def transform(energy: tf.Tensor) -> tf.Tensor:
        full = tf.broadcast_to(tf.reshape(energy, (1, -1, 1)), (outer, channels, inner))
        return tf.reshape(full, [-1])

    return transform


def moved(signal: Signal, order: Sequence[int]) -> Flow:
    """The flow of a transposition: the channels go where their axis goes."""
    return Flow(None if signal.axis is None else list(order).index(signal.axis), identity)


def _product(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]


def _show(shape: Shape) -> str:
    return f"({', '.join('None' if d is None else str(d) for d in shape)})"
