"""The sweep: energies flow forward through a recipe, and their transpose flows back by differentiation.

The incoming energy of a tensor is what producers put into its channels; the outgoing energy is what
consumers read from them. Forward, every step is linear. With a loss that adds up what each kernel and each end
of the network reads, `sum over readers of <read, energy>`, the derivative with respect to what a kernel put out
*is* its outgoing energy, so the two directions cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph import Read, Recipe, Rule, Wall, resolve

Norms = list[tuple[tf.Tensor, tf.Tensor]]
Energies = tuple[list[tf.Tensor], list[tf.Tensor]]


class ChannelEnergies(NamedTuple):
    """The energies around a kernel: squared Frobenius norms, one number a channel.

    Attributes:
        incoming: what is put into each of the kernel's input channels: float32, shape `(channels,)`, or
            `(uses, channels)` for a layer used several times.
        outgoing: what is read from each of its output channels, shaped alike.
    """

    incoming: np.ndarray
    outgoing: np.ndarray


def kernel_norms(recipe: Recipe) -> Norms:
    """For each kernel the energies that it reads, `(inputs,)`, and puts out, `(outputs,)`, in one pass over it."""
    return [kernel.layout.norms(compat.value(kernel.variable)) for kernel in recipe.kernels]


def sweep(recipe: Recipe, norms: Norms) -> Energies:
    """The energies around every use of every kernel.

    Args:
        recipe: the resolved model.
        norms: what each kernel reads and puts out, as `kernel_norms` gives it.

    Returns:
        Two lists with an entry for each kernel: incoming energies `(uses, inputs)` and outgoing
        energies `(uses, outputs)`, float32.
    """
    incoming: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    sources: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    energy: list[tf.Tensor] = [tf.ones([1])] * recipe.tensors
    loss = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for step in recipe.steps:
            match step:
                case Read(kernel=kernel, source=source, target=target):
                    read, put = norms[kernel]
                    arriving = tf.broadcast_to(energy[source], tf.shape(read))
                    incoming[kernel].append(arriving)
                    loss.append(tf.reduce_sum(arriving * read))
                    # A leaf of its own for each use, so that a shared kernel's uses can be told apart.
                    leaf = tf.identity(put)
                    tape.watch(leaf)
                    sources[kernel].append(leaf)
                    energy[target] = leaf
                case Rule(sources=inputs, target=target, transform=transform):
                    energy[target] = transform(*(energy[s] for s in inputs))
                case Wall(sources=inputs):
                    loss += [tf.reduce_sum(energy[s]) for s in inputs]
        loss += [tf.reduce_sum(energy[tensor]) for tensor, _ in recipe.outputs]
        total = tf.add_n(loss) if loss else tf.zeros([])
    outgoing = tape.gradient(total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [_stack(e, n[0]) for e, n in zip(incoming, norms, strict=True)], [
        _stack(e, n[1]) for e, n in zip(outgoing, norms, strict=True)
    ]


def _stack(uses: Sequence[tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    # A kernel whose surroundings are not known stands between ones on both sides.
    return tf.stack(uses) if uses else tf.ones_like(like)[tf.newaxis]


def channel_energies(model: Any) -> dict[str, ChannelEnergies]:
    """The energies around each kernel of a model: what lookahead scores multiply a weight by, squared.

    Example:

    >>> energies = tf_lap.channel_energies(model)
    >>> energies["dense_1"].incoming.shape  # the layer has 32 inputs
    (32,)

    Args:
        model: a built Keras model.

    Returns:
        A dictionary from layer path to `ChannelEnergies`, in topological order.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    recipe = resolve(model)
    incoming, outgoing = sweep(recipe, kernel_norms(recipe))
    return {
        kernel.path: ChannelEnergies(_used(back), _used(ahead))
        for kernel, back, ahead in zip(recipe.kernels, incoming, outgoing, strict=True)
    }


def _used(energies: tf.Tensor) -> np.ndarray:
    array = energies.numpy()
    return array[0] if len(array) == 1 else array
