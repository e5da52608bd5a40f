"""Linear maps of energies: what the layers between kernels do to the energies of channels, and their transposes.

A map takes a vector for each of its inputs, and gives one. Incoming energies flow forward through `apply`; outgoing
energies flow back through `transpose`. Both take NumPy arrays, where an update runs on the host, or tensors, where it
is part of a graph. A vector of length 1 stands for any number of channels that are all alike.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tf_lap import compat

Array: TypeAlias = Any
"""Float32 numbers: a NumPy array, or a tensor."""
Reader: TypeAlias = Callable[[Any], Array]
"""Reads a variable, or a number: `compat.value` as a tensor, `compat.host_value` as a NumPy array."""


def array_module(array: Array) -> Any:
    """The module that works on an array: NumPy or TensorFlow."""
    return tf if tf.is_tensor(array) else np


def reader_for(energy: Array) -> Reader:
    """The function that reads variables into arrays of an energy's kind."""
    return compat.host_value if isinstance(energy, np.ndarray) else compat.value


class EnergyMap(abc.ABC):
    """A linear map of energies."""

    @abc.abstractmethod
    def apply(self, *energies: Array) -> Array:
        """The energies of the output, given those of the inputs.

        Args:
            energies: float32 vectors of shape `(channels,)` or `(1,)`, one for each input.
        """

    @abc.abstractmethod
    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The outgoing energy of each input, given that of the output.

        Args:
            outgoing: a float32 vector, one number a channel of the output.
            energies: the arguments of `apply`. Only their lengths and kind count.

        Returns:
            A float32 vector for each input, as long as its energy.
        """

    @abc.abstractmethod
    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Which channels of the inputs each channel of the output is made of.

        Args:
            outputs: the number of channels of the output.
            inputs: for each input the number of its channels; 1 where they are all alike.

        Returns:
            For each input int64 `(outputs, n)`: the numbers of its channels, and -1 for none.
        """

    def freeze(self, read: Reader) -> EnergyMap:
        """The same map with the present values of its variables, for a sweep that goes through it twice.

        Args:
            read: reads variables.
        """
        return self

    def then(self, following: EnergyMap) -> EnergyMap:
        """The map that applies `following` to the output of this one."""
        if isinstance(self, Identity) or isinstance(following, Identity):
            return following if isinstance(self, Identity) else self
        return Chain(self, following)


@dataclasses.dataclass(frozen=True)
class Identity(EnergyMap):
    """Passes the energies of one input through unchanged."""

    def apply(self, *energies: Array) -> Array:
        """The energies, unchanged."""
        (energy,) = energies
        return energy

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The outgoing energies, unchanged."""
        return (outgoing,)

    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Each channel is made of itself."""
        (channels,) = inputs
        return (_trace_each(outputs, channels),)


@dataclasses.dataclass(frozen=True, eq=False)
class Gather(EnergyMap):
    """Each output channel takes the energy of one channel of the input, the mean of several, or none.

    Attributes:
        index: int, `(outputs,)` or `(outputs, n)`: the number of the input channel, or of the n input channels whose
            mean counts; -1 for an output channel without energy.
    """

    index: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[int], move: Callable[[np.ndarray], np.ndarray]) -> EnergyMap:
        """The map that moves channels as a function moves the numbers of an array.

        Args:
            sizes: the sizes of the axes that the input's channels lie on.
            move: takes an int64 array of these sizes, which holds the number of each input channel, and gives an
                array of any shape that holds, for each output channel, the number of the input channel it takes, or -1.
        """
        numbers = np.arange(int(np.prod(sizes, dtype=np.int64))).reshape(tuple(sizes))
        index = np.asarray(move(numbers)).reshape(-1)
        return Identity() if np.array_equal(index, numbers.reshape(-1)) else cls(index)

    def apply(self, *energies: Array) -> Array:
        """The energies of the input channels in the index, or their means."""
        (energy,) = energies
        if isinstance(energy, np.ndarray):
            gathered = np.append(energy, np.float32(0))[self.index]
            return gathered.mean(axis=1, dtype=np.float32) if gathered.ndim > 1 else gathered
        length = energy.shape[0]
        index = tf.constant(np.where(self.index < 0, length, self.index), tf.int64)
        gathered = tf.gather(tf.concat([energy, tf.zeros([1])], axis=0), index)
        return tf.reduce_mean(gathered, axis=1) if self.index.ndim > 1 else gathered

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """For each input channel the sum over all output channels that take it."""
        length = energies[0].shape[0]
        is_mean = self.index.ndim > 1
        share = outgoing / self.index.shape[1] if is_mean else outgoing
        index = np.where(self.index < 0, length, self.index)
        if isinstance(outgoing, np.ndarray):
            shares = np.broadcast_to(share[:, np.newaxis], index.shape) if is_mean else share
            sums = np.bincount(index.reshape(-1), shares.reshape(-1), minlength=length + 1)
            return (sums[:length].astype(np.float32),)
        shares = tf.repeat(share, self.index.shape[1]) if is_mean else share
        flat = tf.constant(index.reshape(-1), tf.int64)
        return (tf.math.unsorted_segment_sum(shares, flat, tf.constant(length + 1, tf.int64))[:length],)

    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Each channel is made of those that it takes."""
        return (self.index.reshape(len(self.index), -1),)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelScale(EnergyMap):
    """Each channel's energy times a factor, which is read when energies flow.

    Attributes:
        factors: given a reader of variables, computes the factors: float32, of shape `(channels,)` or `(1,)`.
    """

    factors: Callable[[Reader], Array]

    def freeze(self, read: Reader) -> EnergyMap:
        """The map with the present factors."""
        factors = self.factors(read)
        return ChannelScale(lambda _: factors)

    def apply(self, *energies: Array) -> Array:
        """The energies times the factors."""
        (energy,) = energies
        return energy * self.factors(reader_for(energy))

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The outgoing energies times the factors."""
        return (shrink(outgoing * self.factors(reader_for(outgoing)), energies[0]),)

    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Each channel is made of itself."""
        (channels,) = inputs
        return (_trace_each(outputs, channels),)


@dataclasses.dataclass(frozen=True)
class Sum(EnergyMap):
    """The sum of several maps, one for each input. A vector of length 1 counts for every channel.

    Attributes:
        parts: the map of each input.
    """

    parts: tuple[EnergyMap, ...]

    def freeze(self, read: Reader) -> EnergyMap:
        """The sum of the frozen maps."""
        return Sum(tuple(part.freeze(read) for part in self.parts))

    def apply(self, *energies: Array) -> Array:
        """The sum of the maps' outputs."""
        mapped = [part.apply(energy) for part, energy in zip(self.parts, energies, strict=True)]
        return sum(mapped[1:], start=mapped[0])

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The outgoing energies, back through each map."""
        return [
            part.transpose(shrink(outgoing, part.apply(energy)), energy)[0]
            for part, energy in zip(self.parts, energies, strict=True)
        ]

    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Each channel is made of what every part makes it of."""
        return [part.trace(outputs, channels)[0] for part, channels in zip(self.parts, inputs, strict=True)]


@dataclasses.dataclass(frozen=True)
class Chain(EnergyMap):
    """One map, and then another of one input."""

    first: EnergyMap
    second: EnergyMap

    def freeze(self, read: Reader) -> EnergyMap:
        """The chain of the frozen maps."""
        return Chain(self.first.freeze(read), self.second.freeze(read))

    def apply(self, *energies: Array) -> Array:
        """The second map's output for the first map's output."""
        return self.second.apply(self.first.apply(*energies))

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The outgoing energies, back through the second map and then through the first."""
        (between,) = self.second.transpose(outgoing, self.first.apply(*energies))
        return self.first.transpose(between, *energies)

    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Each channel is made of what the channels that it takes between the maps are made of."""
        channels = len(self.first.apply(*(np.ones(count, np.float32) for count in inputs)))
        (between,) = self.second.trace(outputs, channels)
        return [
            np.append(made_of, np.full((1, made_of.shape[1]), -1), axis=0)[between].reshape(outputs, -1)
            for made_of in self.first.trace(channels, *inputs)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Function(EnergyMap):
    """A linear function of tensors that a user wrote; its transpose comes from automatic differentiation.

    Attributes:
        function: takes float32 tensors of shape `(channels,)` or `(1,)`, and gives one.
    """

    function: Callable[..., tf.Tensor]

    def apply(self, *energies: Array) -> Array:
        """The function's output."""
        mapped = self.function(*map(tf.convert_to_tensor, energies))
        return np.asarray(mapped) if isinstance(energies[0], np.ndarray) else mapped

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The function's derivative by each input, times the outgoing energies."""
        # Two inputs may be the same tensor. Each gets its own copy, so that each has its own derivative.
        inputs = [tf.identity(tf.convert_to_tensor(energy)) for energy in energies]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            mapped = self.function(*inputs)
        gradients = tape.gradient(
            mapped, inputs, tf.convert_to_tensor(outgoing), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return list(map(np.asarray, gradients)) if isinstance(outgoing, np.ndarray) else gradients

    def trace(self, outputs: int, *inputs: int) -> Sequence[np.ndarray]:
        """Each channel may be made of all channels: the function does not say."""
        return [np.tile(np.arange(channels), (outputs, 1)) for channels in inputs]


def _trace_each(outputs: int, inputs: int) -> np.ndarray:
    """Each channel of the output made of its own channel of the input, or of the one that stands for all."""
    return np.arange(outputs).reshape(-1, 1) % inputs


def shrink(outgoing: Array, energy: Array) -> Array:
    """Outgoing energies in the length of an incoming energy.

    An incoming energy of length 1 stands for all channels alike: its outgoing energy is the sum over them.

    Args:
        outgoing: float32, `(channels,)`.
        energy: the incoming energy, `(channels,)` or `(1,)`.
    """
    if energy.shape[0] == outgoing.shape[0]:
        return outgoing
    return outgoing.sum(keepdims=True) if isinstance(outgoing, np.ndarray) else tf.reduce_sum(outgoing, keepdims=True)
