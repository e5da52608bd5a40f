"""What goes through a model's layers when it is run on data: how often units are active, how the loss curves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.graph import Kernel, Read, Recipe, Rule
from tf_lap.kernels import Layout

_AT_ONCE = 50  # samples; of each the gradient of every kernel is held
_LINEAR = ("linear", "identity")
_ACTIVATIONS = [
    "Activation",
    "ReLU",
    "LeakyReLU",
    "PReLU",
    "ELU",
    "Softmax",
    "Relu",
    "Relu6",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Silu",
    "LogSigmoid",
    "LeakyRelu",
    "HardSigmoid",
    "HardSilu",
    "Elu",
    "Selu",
    "Gelu",
    "Celu",
    "HardTanh",
    "Tanh",
    "TFOpLambda",
]

Batch = Sequence[np.ndarray]
"""The inputs of a model, in their order, with a batch."""


def activity(model: Any, recipe: Recipe, data: Sequence[Batch]) -> list[tf.Tensor]:
    """For each kernel the root of how often each of its output units is active, `(outputs,)`.

    A unit is active where the activation behind its kernel (and behind the normalization and the sums between) puts
    out more than zero. In a convolution the roots are averaged over positions, as in Park et al.'s code. A kernel
    without an activation before the next kernel has ones.
    """
    watched = {i: found for i, kernel in enumerate(recipe.kernels) if (found := _activation(recipe, i, kernel))}
    layers = list({id(layer): layer for uses in watched.values() for layer in uses}.values())
    counts: dict[int, list[tf.Tensor]] = {}
    samples = 0
    for batch in data:
        samples += len(batch[0])
        with _recorded(layers) as calls:
            exporting.outputs(model, batch)
        for layer in layers:
            active = [tf.reduce_sum(tf.cast(out > 0, tf.float32), axis=0) for _, out in calls[id(layer)]]
            before = counts.get(id(layer), [tf.zeros([])] * len(active))
            counts[id(layer)] = [b + a for b, a in zip(before, active, strict=True)]
    roots = {
        key: tf.add_n([tf.reduce_mean(tf.sqrt(c / samples), axis=list(range(c.shape.rank - 1))) for c in each])
        / len(each)
        for key, each in counts.items()
    }
    return [
        tf.add_n([roots[id(layer)] for layer in watched[i]]) / len(watched[i])
        if i in watched
        else tf.ones([kernel.layout.outputs])
        for i, kernel in enumerate(recipe.kernels)
    ]


def _activation(recipe: Recipe, number: int, kernel: Kernel) -> list[Any]:
    """The layers that activate a kernel's outputs, one for each use; none where a use has none."""
    found = []
    for step in recipe.steps:
        if isinstance(step, Read) and step.kernel == number:
            own = getattr(getattr(kernel.layer, "activation", None), "__name__", "linear") not in _LINEAR
            layer = kernel.layer if own else _next_activation(recipe, step.target)
            if layer is None:
                return []
            found.append(layer)
    return found


def _next_activation(recipe: Recipe, tensor: int) -> Any | None:
    reached = {tensor}
    for step in recipe.steps:
        sources = {step.source} if isinstance(step, Read) else set(step.sources)
        if isinstance(step, Rule) and sources & reached:
            if type(step.layer).__name__ in _ACTIVATIONS:
                return step.layer
            reached.add(step.target)
        elif sources & reached:  # a kernel or a wall reads it before any activation does
            return None
    return None


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
    layers = {i: recipe.kernels[i].layer for i in targets}
    for i, layer in layers.items():
        _check_served(recipe.kernels[i].path, layer)
    found = {i: tf.zeros(recipe.kernels[i].layout.shape) for i in targets}
    for whole in data:
        for start in range(0, len(whole[0]), _AT_ONCE):
            batch = [array[start : start + _AT_ONCE] for array in whole]
            with tf.GradientTape(persistent=True) as tape, _recorded(list(layers.values()), linear=True) as calls:
                answers = exporting.tensors(model, batch)
                log_p, p = _log_probabilities(answers)
                terms = tf.unstack(tf.sqrt(p) * log_p, axis=1)
            for term in terms:
                outputs = [[out for _, out in calls[id(layer)]] for layer in layers.values()]
                slopes = tape.gradient(term, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                for (i, layer), slope in zip(layers.items(), slopes, strict=True):
                    inputs = [x for x, _ in calls[id(layer)]]
                    found[i] += _squared_gradients(layer, recipe.kernels[i].layout, inputs, slope)
            del tape
    return found


def _check_served(path: str, layer: Any) -> None:
    name = next((cls.__name__ for cls in type(layer).__mro__ if cls.__name__ in ("Dense", "Conv2D")), None)
    swapped = any(cls.__name__.endswith("Transpose") for cls in type(layer).__mro__)
    if name is None or swapped or getattr(layer, "groups", 1) != 1 or _channels_first(layer):
        raise ValueError(
            f"the curvature of layer {path!r} ({type(layer).__name__}) is not known: Dense and Conv2D without groups "
            "and with channels last are served; leave it out with filters, or use score='lookahead'"
        )


def _channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _log_probabilities(answers: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    shapes = [tuple(value.shape) for value in answers.values()]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(
            f"the model puts out {len(shapes)} tensors of shapes {shapes}: optimal brain damage needs one, of shape "
            "(batch, classes), logits or probabilities"
        )
    (out,) = (tf.cast(value, tf.float32) for value in answers.values())
    sums = tf.reduce_sum(out, axis=1)
    are_probabilities = bool(tf.reduce_all(out >= 0) & tf.reduce_all(tf.abs(sums - 1) < 1e-3))
    log_p = tf.math.log(tf.maximum(out, np.finfo(np.float32).tiny)) if are_probabilities else tf.nn.log_softmax(out)
    return log_p, tf.stop_gradient(tf.exp(log_p))


def _squared_gradients(layer: Any, layout: Layout, inputs: Sequence[Any], slopes: Sequence[Any]) -> tf.Tensor:
    """The squares of each sample's gradient by a kernel, summed over the samples."""
    gradients = []
    for x, slope in zip(inputs, slopes, strict=True):
        x, slope = tf.cast(x, tf.float32), tf.cast(slope, tf.float32)
        if len(layout.shape) == 4:
            x = tf.image.extract_patches(
                x,
                [1, *layer.kernel_size, 1],
                [1, *layer.strides, 1],
                [1, *layer.dilation_rate, 1],
                layer.padding.upper(),
            )
        elif x.shape.rank == 2 and len(inputs) == 1:  # a gradient is a product, and so is its square
            return tf.matmul(tf.square(x), tf.square(slope), transpose_a=True)
        x, slope = (tf.reshape(t, (t.shape[0], -1, t.shape[-1])) for t in (x, slope))
        gradients.append(tf.matmul(x, slope, transpose_a=True))
    return tf.reshape(tf.reduce_sum(tf.square(tf.add_n(gradients)), axis=0), layout.shape)


@contextlib.contextmanager
def _recorded(layers: Sequence[Any], *, linear: bool = False) -> Iterator[dict[int, list[tuple[Any, Any]]]]:
    """Writes down what goes into layers and comes out, by their ids, in the order of calls.

    Args:
        layers: the layers.
        linear: what comes out before the layer's own activation.
    """
    calls: dict[int, list[tuple[Any, Any]]] = {id(layer): [] for layer in layers}
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(compat.intercepted(layer, calls[id(layer)], linear))
        yield calls
