"""Linear maps of energies: what the layers between kernels do to the energies of channels, and their transposes.

A map takes a vector for each of its inputs, and gives one. Energies flow forward through `apply`, and what is read of
them flows back through `transpose`. Both take NumPy arrays, where an update runs on the host, or tensors, where it is
part of a graph. A vector of length 1 stands for any number of channels that are all alike.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat

Array = Any
"""Float32 numbers: a NumPy array, or a tensor."""
Reader = Callable[[Any], Array]
"""Reads a variable, or a number: `compat.value` as a tensor, `compat.host_value` as a NumPy array."""


def library(array: Array) -> Any:
    """The module that works on an array: NumPy or TensorFlow."""
    return tf if tf.is_tensor(array) else np


def reader(energy: Array) -> Reader:
    """What reads variables into arrays of an energy's kind."""
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
        """What is read of each input, given what is read of the output.

        Args:
            outgoing: a float32 vector, one number a channel of the output.
            energies: those that `apply` was given: their lengths count.
        """

    def read(self, value: Reader) -> EnergyMap:
        """The same map with its numbers as they are now, for a sweep that goes through it twice.

        Args:
            value: reads variables.
        """
        return self

    def then(self, following: EnergyMap) -> EnergyMap:
        """The map that applies `following` to what this one gives."""
        if isinstance(self, Identity) or isinstance(following, Identity):
            return following if isinstance(self, Identity) else self
        return Chain(self, following)


@dataclasses.dataclass(frozen=True)
class Identity(EnergyMap):
    """Passes the energies of one input through unchanged."""

    def apply(self, *energies: Array) -> Array:
        """The energies as they are."""
        (energy,) = energies
        return energy

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """What is read, as it is."""
        return (outgoing,)


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
            move: given the numbers of the channels in an array of these sizes, gives those of the output's.
        """
        numbers = np.arange(int(np.prod(sizes, dtype=np.int64))).reshape(tuple(sizes))
        index = np.asarray(move(numbers)).reshape(-1)
        return Identity() if np.array_equal(index, numbers.reshape(-1)) else cls(index)

    def apply(self, *energies: Array) -> Array:
        """The energies of the channels that are taken."""
        (energy,) = energies
        if isinstance(energy, np.ndarray):
            taken = np.append(energy, np.float32(0))[self.index]
            return taken.mean(axis=1, dtype=np.float32) if taken.ndim > 1 else taken
        length = energy.shape[0]
        places = tf.constant(np.where(self.index < 0, length, self.index), tf.int64)
        taken = tf.gather(tf.concat([energy, tf.zeros([1])], axis=0), places)
        return tf.reduce_mean(taken, axis=1) if self.index.ndim > 1 else taken

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """What is read of each input channel, by all the output channels that took it."""
        length = energies[0].shape[0]
        several = self.index.ndim > 1
        share = outgoing / self.index.shape[1] if several else outgoing
        places = np.where(self.index < 0, length, self.index)
        if isinstance(outgoing, np.ndarray):
            shares = np.broadcast_to(share[:, np.newaxis], places.shape) if several else share
            read = np.bincount(places.reshape(-1), shares.reshape(-1), minlength=length + 1)
            return (read[:length].astype(np.float32),)
        shares = tf.repeat(share, self.index.shape[1]) if several else share
        flat = tf.constant(places.reshape(-1), tf.int64)
        return (tf.math.unsorted_segment_sum(shares, flat, tf.constant(length + 1, tf.int64))[:length],)


@dataclasses.dataclass(frozen=True, eq=False)
class Scale(EnergyMap):
    """Each channel's energy times a number, which is read when energies flow.

    Attributes:
        factors: given what reads variables, gives the numbers, of shape `(channels,)` or `(1,)`.
    """

    factors: Callable[[Reader], Array]

    def read(self, value: Reader) -> EnergyMap:
        """The numbers as they are now."""
        factors = self.factors(value)
        return Scale(lambda _: factors)

    def apply(self, *energies: Array) -> Array:
        """The energies times the numbers."""
        (energy,) = energies
        return energy * self.factors(reader(energy))

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """What is read times the numbers."""
        return (shrunk(outgoing * self.factors(reader(outgoing)), energies[0]),)


@dataclasses.dataclass(frozen=True)
class Sum(EnergyMap):
    """The sum of several maps, one for each input. A vector of length 1 counts for every channel.

    Attributes:
        parts: the map of each input.
    """

    parts: tuple[EnergyMap, ...]

    def read(self, value: Reader) -> EnergyMap:
        """The sum of the maps as they are now."""
        return Sum(tuple(part.read(value) for part in self.parts))

    def apply(self, *energies: Array) -> Array:
        """The sum of what the maps give."""
        mapped = [part.apply(energy) for part, energy in zip(self.parts, energies, strict=True)]
        return sum(mapped[1:], start=mapped[0])

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """What is read through each map."""
        return [
            part.transpose(shrunk(outgoing, part.apply(energy)), energy)[0]
            for part, energy in zip(self.parts, energies, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Chain(EnergyMap):
    """One map, and then another of one input."""

    first: EnergyMap
    second: EnergyMap

    def read(self, value: Reader) -> EnergyMap:
        """Both as they are now."""
        return Chain(self.first.read(value), self.second.read(value))

    def apply(self, *energies: Array) -> Array:
        """What the second gives of what the first gives."""
        return self.second.apply(self.first.apply(*energies))

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """Back through the second, then through the first."""
        (between,) = self.second.transpose(outgoing, self.first.apply(*energies))
        return self.first.transpose(between, *energies)


@dataclasses.dataclass(frozen=True, eq=False)
class Function(EnergyMap):
    """A linear function of tensors that a user wrote; its transpose is taken by automatic differentiation.

    Attributes:
        function: takes float32 tensors of shape `(channels,)` or `(1,)`, and gives one.
    """

    function: Callable[..., tf.Tensor]

    def apply(self, *energies: Array) -> Array:
        """What the function gives."""
        mapped = self.function(*map(tf.convert_to_tensor, energies))
        return np.asarray(mapped) if isinstance(energies[0], np.ndarray) else mapped

    def transpose(self, outgoing: Array, *energies: Array) -> Sequence[Array]:
        """The function's derivative, times what is read."""
        # One of its own for each input, also where several are the same: each has a derivative of its own.
        inputs = [tf.identity(tf.convert_to_tensor(energy)) for energy in energies]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            mapped = self.function(*inputs)
        read = tape.gradient(
            mapped, inputs, tf.convert_to_tensor(outgoing), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [np.asarray(each) for each in read] if isinstance(outgoing, np.ndarray) else read


def shrunk(read: Array, energy: Array) -> Array:
    """What is read of an energy of length 1, where it was taken for that of every channel: the sum."""
    if energy.shape[0] == read.shape[0]:
        return read
    return read.sum(keepdims=True) if isinstance(read, np.ndarray) else tf.reduce_sum(read, keepdims=True)
