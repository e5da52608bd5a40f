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
from tf_lap.scale import Scale

Norms = list[tuple[tf.Tensor, tf.Tensor]]
Energies = tuple[list[tf.Tensor], list[tf.Tensor]]
Uses = Sequence[Sequence[tf.Tensor]]
"""For each kernel a vector for each of its uses."""


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


def sweep(recipe: Recipe, norms: Norms, scale: Scale | None = None) -> Energies:
    """The energies around every use of every kernel.

    Args:
        recipe: the resolved model.
        norms: what each kernel reads and puts out, as `kernel_norms` gives it.
        scale: what the norms are measured with; None where weights are measured as they are.

    Returns:
        Two lists with an entry for each kernel: incoming energies `(uses, inputs)` and outgoing
        energies `(uses, outputs)`, float32.
    """
    read = [[norm[0]] * kernel.uses for kernel, norm in zip(recipe.kernels, norms, strict=True)]
    put = [[norm[1]] * kernel.uses for kernel, norm in zip(recipe.kernels, norms, strict=True)]
    return _around(recipe, norms, read, put, 1.0 if scale is None else scale.end())


def far_sweep(
    recipe: Recipe, weights: Sequence[tf.Tensor], distance: int | None, scale: Scale | None = None
) -> Energies:
    """The energies around every use of every kernel when energy flows on through neighbouring kernels.

    A kernel puts out its squares times the energy of its inputs, in place of its squares alone: at distance 2 the
    neighbours' neighbours count, and so on.

    Args:
        recipe: the resolved model.
        weights: the values of its kernels.
        distance: how many kernels energy comes from on either side, 1 or more; None: all the way.
        scale: what the weights were multiplied by; None where they are as they are.

    Returns:
        As `sweep`; all the way, each kernel's are divided by a number, which ranks its weights the same.
    """
    kernels = recipe.kernels
    scale = scale or Scale((0,) * len(kernels))
    squares = [kernel.layout.squares(w) for kernel, w in zip(kernels, weights, strict=True)]
    if distance is None:
        return _all_the_way(recipe, squares, scale)
    squares = [matrix * scale.factor(i) for i, matrix in enumerate(squares)]
    norms = [kernel.layout.sums((matrix, matrix)) for kernel, matrix in zip(kernels, squares, strict=True)]
    around = sweep(recipe, norms, scale)
    for kernels_passed in range(2, distance + 1):
        sides = list(zip(kernels, squares, *around, strict=True))
        put = [[k.layout.put_on(m, use) for use in tf.unstack(incoming)] for k, m, incoming, _ in sides]
        read = [[k.layout.put_back(m, use) for use in tf.unstack(outgoing)] for k, m, _, outgoing in sides]
        around = _around(recipe, norms, read, put, scale.end(kernels_passed))
    return around


def _around(recipe: Recipe, norms: Norms, read: Uses, put: Uses, end: float) -> Energies:
    """The energies around every use of every kernel.

    Args:
        recipe: the resolved model.
        norms: what stands in for a kernel that no use is known of.
        read: what each use of a kernel reads, `(inputs,)`.
        put: what it puts out, `(outputs,)`.
        end: what the ends of the network put in and read, in each channel.
    """
    incoming: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    sources: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    energy: list[tf.Tensor] = [tf.fill([1], end)] * recipe.tensors
    loss = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for step in recipe.steps:
            match step:
                case Read(kernel=kernel, use=use, source=source, target=target):
                    arriving = tf.broadcast_to(energy[source], [recipe.kernels[kernel].layout.inputs])
                    incoming[kernel].append(arriving)
                    loss.append(tf.reduce_sum(arriving * read[kernel][use]))
                    # A leaf of its own for each use, so that a shared kernel's uses can be told apart.
                    leaf = tf.identity(put[kernel][use])
                    tape.watch(leaf)
                    sources[kernel].append(leaf)
                    energy[target] = leaf
                case Rule(sources=inputs, target=target, transform=transform):
                    energy[target] = transform(*(energy[s] for s in inputs))
                case Wall(sources=inputs):
                    loss += [tf.reduce_sum(energy[s] * end) for s in inputs]
        loss += [tf.reduce_sum(energy[tensor] * end) for tensor, _ in recipe.outputs]
        total = tf.add_n(loss) if loss else tf.zeros([])
    outgoing = tape.gradient(total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return _stacked(incoming, outgoing, norms, end)


def _all_the_way(recipe: Recipe, squares: Sequence[tf.Tensor], scale: Scale) -> Energies:
    """The energies around every use of every kernel, through all kernels before and behind it.

    Through many layers they would leave float32's range. So each tensor's energy is a vector near 1 and the logarithm
    of its scale, and so is what the ends of the network receive, of which the outgoing energies are the derivatives.
    """
    incoming: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    sources: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    scales: list[list[tf.Tensor]] = [[] for _ in recipe.kernels]
    energy = [(tf.ones([1]), tf.zeros([]))] * recipe.tensors
    ends = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for step in recipe.steps:
            match step:
                case Read(kernel=kernel, source=source, target=target):
                    layout = recipe.kernels[kernel].layout
                    arriving = tf.broadcast_to(energy[source][0], [layout.inputs])
                    incoming[kernel].append((arriving, energy[source][1]))
                    before = energy[source][1] + scale.logarithm(kernel)
                    leaf, leaf_scale = _near_one(layout.put_on(squares[kernel], arriving), before)
                    tape.watch(leaf)
                    sources[kernel].append(leaf)
                    scales[kernel].append(leaf_scale)
                    energy[target] = leaf, leaf_scale
                case Rule(sources=inputs, target=target, transform=transform):
                    parts, common = _common([energy[s] for s in inputs])
                    energy[target] = _near_one(transform(*parts), common)
                case Wall(sources=inputs):
                    ends += [energy[s] for s in inputs]
        ends += [energy[tensor] for tensor, _ in recipe.outputs]
        parts, _ = _common(ends) if ends else ([tf.zeros([1])], None)
        total = tf.add_n([tf.reduce_sum(part) for part in parts])
    outgoing = tape.gradient(total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # A derivative by a vector over its scale is as much larger.
    ahead = [list(zip(each, map(tf.negative, s), strict=True)) for each, s in zip(outgoing, scales, strict=True)]
    sides = ([_common(uses)[0] if uses else [] for uses in side] for side in (incoming, ahead))
    return _stacked(*sides, [(tf.ones([k.layout.inputs]), tf.ones([k.layout.outputs])) for k in recipe.kernels], 1.0)


Scaled = tuple[tf.Tensor, tf.Tensor]
"""An energy over its scale, and the scale's logarithm."""


_NO_SCALE = -1e30


def _near_one(energy: tf.Tensor, scale: tf.Tensor) -> Scaled:
    largest = tf.stop_gradient(tf.reduce_max(energy))
    unit = tf.where((largest > 0) & tf.math.is_finite(largest), largest, 1.0)
    # A vector of zeros has no scale: it must not set that of what it is added to.
    return energy / unit, tf.where(largest > 0, scale + tf.math.log(unit), _NO_SCALE)


def _common(energies: Sequence[Scaled]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Energies over one scale, the largest."""
    scale = tf.reduce_max(tf.stack([scale for _, scale in energies]))
    return [energy * tf.exp(each - scale) for energy, each in energies], scale


def _stacked(incoming: Sequence[Any], outgoing: Sequence[Any], norms: Norms, end: float) -> Energies:
    backs = [_stack(e, n[0], end) for e, n in zip(incoming, norms, strict=True)]
    return backs, [_stack(e, n[1], end) for e, n in zip(outgoing, norms, strict=True)]


def _stack(uses: Sequence[tf.Tensor], like: tf.Tensor, end: float) -> tf.Tensor:
    # A kernel whose surroundings are not known stands between ends on both sides.
    return tf.stack(uses) if uses else tf.fill([1, *like.shape], end)


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
