"""What goes through a model's layers when it is run on data: how often units are active, how the loss curves."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.graph.kernels import Layout
from tf_lap.graph.model_graph import Kernel, KernelStep, Recipe, RuleStep
from tf_lap.graph.rule_tables import has_activation, is_activation
from tf_lap.warn import warn

_AT_ONCE = 50  # samples; of each the gradient of every kernel is held
Batch = Sequence[np.ndarray]
"""The inputs of a model, in their order, with a batch."""


def activity(model: Any, recipe: Recipe, data: Sequence[Batch]) -> list[tf.Tensor]:
    """For each kernel the root of how often each of its output units is active, `(outputs,)`.

    A unit is active where the activation behind its kernel (and behind the normalization and the sums between) puts
    out more than zero. In a convolution the roots are averaged over positions, as in Park et al.'s code, and of a
    shared layer over its uses. A kernel without an activation before the next kernel has ones; so has one whose
    activation cannot be measured, in a custom layer or behind what mixes or joins channels, and a warning says so.
    """
    watched = {i: _activations(recipe, i, kernel) for i, kernel in enumerate(recipe.kernels)}
    layers = {id(layer): layer for uses in watched.values() for layer, _ in uses}
    counts: dict[int, list[tf.Tensor]] = {}
    for batch in data:
        seen: dict[int, list[tf.Tensor]] = {key: [] for key in layers}
        with contextlib.ExitStack() as stack:
            stack.enter_context(exporting.states_kept(model))
            stack.enter_context(exporting.in_float32(model))
            for key, layer in layers.items():
                stack.enter_context(compat.intercepted(layer, _count(seen[key]), False))
            exporting.outputs(model, batch)
        for key, active in seen.items():
            counts[key] = [a + b for a, b in zip(counts[key], active, strict=True)] if key in counts else active
    samples = sum(len(batch[0]) for batch in data)
    roots = {
        key: [tf.reduce_mean(tf.sqrt(c / samples), axis=list(range(c.shape.rank - 1))) for c in each]
        for key, each in counts.items()
    }
    uses = Counter(id(step.layer) for step in recipe.steps if isinstance(step, RuleStep))
    uses.update({id(kernel.layer): kernel.uses for kernel in recipe.kernels})
    roots = {key: _by_use(calls, uses[key]) for key, calls in roots.items()}
    return [_gain(kernel, watched[i], roots) for i, kernel in enumerate(recipe.kernels)]


def _count(active: list[tf.Tensor]) -> Callable[[Any, Any], None]:
    return lambda _, out: active.append(tf.reduce_sum(tf.cast(out > 0, tf.float32), axis=0))


def _by_use(calls: Sequence[tf.Tensor], uses: int) -> Sequence[tf.Tensor]:
    """One entry for each use in the model's graph: a layer inside TimeDistributed is called for each time step."""
    steps = len(calls) // uses
    if steps < 2:
        return calls
    return [tf.reduce_mean(tf.stack(calls[i * steps : (i + 1) * steps]), axis=0) for i in range(uses)]


def _gain(kernel: Kernel, uses: Sequence[tuple[Any, int]], roots: Mapping[int, Sequence[tf.Tensor]]) -> tf.Tensor:
    outputs = kernel.layout.outputs
    found = [roots[id(layer)][call] for layer, call in uses if call < len(roots[id(layer)])]
    if len(found) < len(uses) or any(root.shape != (outputs,) for root in found):
        warn(f"how often the units of layer {kernel.path!r} are active cannot be measured: they count as always active")
        return tf.ones([outputs])
    return tf.reduce_mean(tf.stack(found), axis=0) if found else tf.ones([outputs])


def _activations(recipe: Recipe, number: int, kernel: Kernel) -> list[tuple[Any, int]]:
    """What activates a kernel's outputs, for each of its uses, and in which of that layer's calls."""
    found = []
    for step in recipe.steps:
        if isinstance(step, KernelStep) and step.kernel == number:
            if has_activation(kernel.layer):
                found.append((kernel.layer, step.use))
            else:
                found += _next_activation(recipe, step.target)
    return found


def _next_activation(recipe: Recipe, tensor: int) -> list[tuple[Any, int]]:
    reached, calls = {tensor}, Counter()
    for step in recipe.steps:
        if isinstance(step, RuleStep):
            if reached & set(step.sources):
                if is_activation(step.layer):
                    return [(step.layer, calls[id(step.layer)])]
                reached.add(step.target)
            calls[id(step.layer)] += 1
    return []


def curvature(model: Any, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]) -> dict[int, tf.Tensor]:
    """For each target the diagonal of the Gauss-Newton matrix of the softmax cross-entropy, in the kernel's shape.

    Summed over samples: `sum over classes c of p_c * (d log p_c / d w)^2`, exact, by one back-propagation a class.
    Where a model's output are probabilities they are taken as they are, otherwise its softmax. In a piecewise linear
    network the matrix is the Hessian itself.

    Args:
        model: the model.
        recipe: it resolved.
        targets: which kernels.
        data: batches of its inputs.

    Raises:
        ValueError: a kernel that is neither of a Dense nor of a Conv2D layer, or an output that is not
            `(batch, classes)`.
    """
    kernels = {i: recipe.kernels[i] for i in targets}
    for kernel in kernels.values():
        if not has_curvature(kernel):
            raise ValueError(
                f"the curvature of layer {kernel.path!r} ({type(kernel.layer).__name__}) is not known: Dense and "
                "Conv2D without groups and with channels last are served; leave it out with filters, or use "
                "score='lookahead' without data"
            )
    found = {i: tf.zeros(kernel.layout.shape) for i, kernel in kernels.items()}
    with exporting.states_kept(model), exporting.in_float32(model):
        for whole in data:
            size = len(whole[0]) if exporting.has_fixed_batch(model) else _AT_ONCE
            for start in range(0, len(whole[0]), size):
                for i, more in _curvature(model, kernels, [array[start : start + size] for array in whole]):
                    found[i] += more
    return found


def _curvature(model: Any, kernels: Mapping[int, Kernel], batch: Batch) -> Iterator[tuple[int, tf.Tensor]]:
    inputs: dict[int, list[tf.Tensor]] = {i: [] for i in kernels}
    outputs: dict[int, list[tf.Tensor]] = {i: [] for i in kernels}
    with tf.GradientTape(persistent=True) as tape:
        with contextlib.ExitStack() as stack:
            for i, kernel in kernels.items():

                def record(x: Any, out: Any, i: int = i, kernel: Kernel = kernel) -> None:
                    with tape.stop_recording():
                        inputs[i].append(_patches(kernel.layer, kernel.layout, x))
                    outputs[i].append(out)

                stack.enter_context(compat.intercepted(kernel.layer, record, True))
            log_p, p = _log_probabilities(model, exporting.tensors(model, batch))
        terms = tf.unstack(tf.sqrt(p) * log_p, axis=1)
    called = {i: outs for i, outs in outputs.items() if outs}
    for term in terms:
        slopes = tape.gradient(term, list(called.values()), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for i, slope in zip(called, slopes, strict=True):
            yield i, _squared_gradients(kernels[i].layout, inputs[i], slope)


def has_curvature(kernel: Kernel) -> bool:
    """Whether `curvature` serves a kernel."""
    layer, layout = kernel.layer, kernel.layout
    names = {cls.__name__ for cls in type(layer).__mro__}
    plain = bool(names & {"Dense", "Conv2D"}) and not layout.swapped and layout.groups == 1
    return plain and getattr(layer, "data_format", None) != "channels_first"


def _log_probabilities(model: Any, answers: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    shapes = [tuple(value.shape) for value in answers.values()]
    last = getattr(getattr(model, "layers", [None])[-1], "activation", None)
    sigmoid = getattr(last, "__name__", "") == "sigmoid"
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 2 or sigmoid:
        raise ValueError(
            f"the model puts out {len(shapes)} tensors of shapes {shapes}{' behind a sigmoid' if sigmoid else ''}: "
            "optimal brain damage needs one, of shape (batch, classes), two classes or more, logits or their softmax. "
            "For other models use score='lookahead', without data"
        )
    (out,) = (tf.cast(value, tf.float32) for value in answers.values())
    sums = tf.reduce_sum(out, axis=1)
    are_probabilities = bool(tf.reduce_all(out >= 0) & tf.reduce_all(tf.abs(sums - 1) < 1e-2))
    log_p = tf.math.log(tf.maximum(out, np.finfo(np.float32).tiny)) if are_probabilities else tf.nn.log_softmax(out)
    return log_p, tf.stop_gradient(tf.exp(log_p))


def _patches(layer: Any, layout: Layout, x: Any) -> tf.Tensor:
    """What a kernel is multiplied with: `(batch, inputs)`, or `(batch, positions, taps and inputs)`."""
    x = tf.cast(x, tf.float32)
    if len(layout.shape) == 4:
        strides, rates = [1, *layer.strides, 1], [1, *layer.dilation_rate, 1]
        x = tf.image.extract_patches(x, [1, *layer.kernel_size, 1], strides, rates, layer.padding.upper())
    return x if x.shape.rank == 2 else tf.reshape(x, (x.shape[0], -1, x.shape[-1]))


def _squared_gradients(layout: Layout, inputs: Sequence[tf.Tensor], slopes: Sequence[tf.Tensor]) -> tf.Tensor:
    """The squares of each sample's gradient by a kernel, summed over the samples."""
    if len(inputs) == 1 and inputs[0].shape.rank == 2:  # a gradient is a product, and so is its square
        return tf.matmul(tf.square(inputs[0]), tf.square(tf.cast(slopes[0], tf.float32)), transpose_a=True)
    gradients = []
    for x, slope in zip(inputs, slopes, strict=True):
        x = x[:, tf.newaxis] if x.shape.rank == 2 else x
        by_position = tf.reshape(tf.cast(slope, tf.float32), (slope.shape[0], -1, slope.shape[-1]))
        gradients.append(tf.matmul(x, by_position, transpose_a=True))
    return tf.reshape(tf.reduce_sum(tf.square(tf.add_n(gradients)), axis=0), layout.shape)
