"""Lookahead scores of a model's kernels, and the operators that they are checked against."""

from typing import NamedTuple

import numpy as np

import tf_lap
from tf_lap.graph.energy import far_sweep, measure_kernels, sweep
from tf_lap.graph.resolver import resolve


class Scored(NamedTuple):
    """A kernel's weights, float64, and their scores at distance 1."""

    weights: np.ndarray
    scores: np.ndarray


def randomize(model, seed=0):
    """Gives each variable of a model normal values, and its biases zero."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" not in variable.name:
            drawn = rng.standard_normal(variable.shape)
            variable.assign(np.zeros_like(drawn) if "bias" in variable.name else drawn)
    return model


def score_kernels(model):
    """The kernels of a model with their scores, by path. Energies are the same with NumPy and with TensorFlow."""
    recipe = resolve(model)
    kernel_energies = measure_kernels(recipe)
    incoming, outgoing = sweep(recipe, kernel_energies)
    on_host = sweep(recipe, [(before.numpy(), behind.numpy()) for before, behind in kernel_energies])
    for arrays, tensors in zip(on_host, (incoming, outgoing), strict=True):
        for array, tensor in zip(arrays, tensors, strict=True):
            np.testing.assert_allclose(array, tensor, rtol=1e-5)
    lookahead = tf_lap.scores.Lookahead()
    scored = {}
    for kernel, before, behind in zip(recipe.kernels, incoming, outgoing, strict=True):
        weights = kernel.variable.numpy()
        scored[kernel.path] = Scored(weights.astype(float), lookahead.score(kernel, weights, before, behind).numpy())
    return scored


def find_far_energies(model, distance):
    """For each kernel the energies around it, `(uses, inputs)` and `(uses, outputs)`, by path."""
    recipe = resolve(model)
    sides = far_sweep(recipe, [kernel.variable.value for kernel in recipe.kernels], distance)
    return {kernel.path: sides for kernel, *sides in zip(recipe.kernels, *sides, strict=True)}


def check_operator(scored, operator):
    """Zeroing a weight changes an operator by its score.

    Args:
        scored: the kernel.
        operator: gives the parts of the operator, arrays in a list, for a kernel in place of this one.
    """
    before = operator(scored.weights)
    for index in np.ndindex(scored.weights.shape):
        zeroed = scored.weights.copy()
        zeroed[index] = 0
        squares = sum(np.sum(np.square(a - b)) for a, b in zip(before, operator(zeroed), strict=True))
        np.testing.assert_allclose(scored.scores[index], np.sqrt(squares), rtol=1e-4, atol=1e-6, err_msg=str(index))


def measure_scores(model, score, x):
    """The scores of all kernels, by path, as the pruner sees them."""
    scores, kind = {}, type(tf_lap.scores.get(score))

    class Spy(kind):
        def score(self, kernel, weights, incoming, outgoing):
            scores[kernel.path] = super().score(kernel, weights, incoming, outgoing).numpy()
            return scores[kernel.path]

    tf_lap.Pruner(model, score=Spy(), data=x, filters=[kernel.path for kernel in resolve(model).kernels]).update(0.0)
    return scores
