"""How the loss of a model curves over data: the diagonal of the Gauss-Newton matrix."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.layouts import Layout
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.samples import Batch
from tf_lap.scores.base import register
from tf_lap.scores.weights import Lookahead, Magnitude

_MAX_SAMPLES = 50  # run at once: for each of them the gradient of every kernel is held


@register("obd")
@dataclasses.dataclass(frozen=True)
class OBD(Magnitude):
    """Optimal brain damage: `w^2 h / 2`, h the diagonal of the Gauss-Newton matrix of the softmax cross-entropy.

    LeCun, Denker, Solla: "Optimal Brain Damage", 1989. The score is the root of it, which ranks the same. It is
    measured at each update, over the data that `prune`, `Pruner` or `LAPCallback` is given: see
    `tf_lap.scores.curvature`. Serves Dense and Conv2D layers.
    """

    norm_order: ClassVar[int] = 4
    needs_data: ClassVar[bool] = True

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What each target is multiplied by, by its number: float32, in its shape."""
        diagonals = measure_curvature(model, recipe, targets, data)
        return {number: tf.sqrt(diagonal / 2) for number, diagonal in diagonals.items()}


@register("obd_lookahead")
@dataclasses.dataclass(frozen=True)
class OBDLookahead(Lookahead):
    """Lookahead over kernels `|w| sqrt(h)`, h as in `OBD`: the product of both in Park et al."""

    needs_data: ClassVar[bool] = True

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What kernels are multiplied by, by their numbers: float32, in their shapes.

        Besides the targets these are all other kernels that have a curvature, because they are neighbours.
        """
        numbers = [number for number, kernel in enumerate(recipe.kernels) if number in targets or has_curvature(kernel)]
        diagonals = measure_curvature(model, recipe, numbers, data)
        return {number: tf.sqrt(diagonal) for number, diagonal in diagonals.items()}


def measure_curvature(
    model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
) -> dict[int, tf.Tensor]:
    """For each target the diagonal of the Gauss-Newton matrix of the softmax cross-entropy.

    It is `sum over classes c of p_c * (d log p_c / d w)^2`, summed over samples. One back-propagation for each class
    computes it exactly. Outputs that are probabilities are used as they are; otherwise `p` is their softmax. In a
    piecewise linear network the matrix is the Hessian itself.

    Args:
        model: the model.
        recipe: its graph.
        targets: the numbers of the kernels in the recipe.
        data: batches of its inputs.

    Returns:
        By the numbers of the kernels float32 tensors of their shapes.

    Raises:
        ValueError: a kernel that is neither of a Dense nor of a Conv2D layer, or an output that is not
            `(batch, classes)`.
    """
    kernels = {number: recipe.kernels[number] for number in targets}
    for kernel in kernels.values():
        if not has_curvature(kernel):
            raise ValueError(
                f"the curvature of layer {kernel.path!r} ({type(kernel.layer).__name__}) is not known: Dense and "
                "Conv2D without groups and with channels last are served; leave it out with filters, or use "
                "score='lookahead' without data"
            )
    diagonals = {number: tf.zeros(kernel.layout.shape) for number, kernel in kernels.items()}
    with exporting.states_kept(model), exporting.in_float32(model):
        for batch in data:
            samples = len(batch[0])
            size = samples if exporting.has_fixed_batch(model) else _MAX_SAMPLES
            for start in range(0, samples, size):
                part = [array[start : start + size] for array in batch]
                for number, squares in _square_gradients(model, kernels, part):
                    diagonals[number] += squares
    return diagonals


def has_curvature(kernel: Kernel) -> bool:
    """Whether `measure_curvature` serves a kernel."""
    layer, layout = kernel.layer, kernel.layout
    names = {cls.__name__ for cls in type(layer).__mro__}
    is_plain = bool(names & {"Dense", "Conv2D"}) and not layout.swapped and layout.groups == 1
    return is_plain and getattr(layer, "data_format", None) != "channels_first"


def _square_gradients(model: Model, kernels: Mapping[int, Kernel], batch: Batch) -> Iterator[tuple[int, tf.Tensor]]:
    """Runs a batch, and gives what each class adds to the diagonal of each kernel that the model calls.

    Args:
        model: the model.
        kernels: the kernels, by their numbers.
        batch: its inputs.

    Yields:
        The number of a kernel, and a float32 tensor of its shape.
    """
    inputs: dict[int, list[tf.Tensor]] = {number: [] for number in kernels}
    outputs: dict[int, list[tf.Tensor]] = {number: [] for number in kernels}
    with tf.GradientTape(persistent=True) as tape:
        with contextlib.ExitStack() as stack:
            for number, kernel in kernels.items():

                def record(x: Any, output: Any, number: int = number, kernel: Kernel = kernel) -> None:
                    with tape.stop_recording():
                        inputs[number].append(_extract_patches(kernel.layer, kernel.layout, x))
                    outputs[number].append(output)

                stack.enter_context(compat.intercepted(kernel.layer, record, True))
            log_p, p = _compute_log_probabilities(model, exporting.tensors(model, batch))
        terms = tf.unstack(tf.sqrt(p) * log_p, axis=1)
    called = {number: calls for number, calls in outputs.items() if calls}
    for term in terms:
        output_gradients = tape.gradient(
            term, list(called.values()), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        for number, output_gradient in zip(called, output_gradients, strict=True):
            yield number, _sum_squares(kernels[number].layout, inputs[number], output_gradient)


def _compute_log_probabilities(model: Model, outputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """The logarithms of the class probabilities, and the probabilities as constants: `(batch, classes)`, float32.

    Args:
        model: the model.
        outputs: its outputs, by name.

    Raises:
        ValueError: the model has several outputs, or one that is not `(batch, classes)`.
    """
    shapes = [tuple(output.shape) for output in outputs.values()]
    last = getattr(getattr(model, "layers", [None])[-1], "activation", None)
    is_sigmoid = getattr(last, "__name__", "") == "sigmoid"
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 2 or is_sigmoid:
        raise ValueError(
            f"the model puts out {len(shapes)} tensors of shapes {shapes}{' behind a sigmoid' if is_sigmoid else ''}: "
            "optimal brain damage needs one, of shape (batch, classes), two classes or more, logits or their softmax. "
            "For other models use score='lookahead', without data"
        )
    (output,) = (tf.cast(tensor, tf.float32) for tensor in outputs.values())
    sums = tf.reduce_sum(output, axis=1)
    are_probabilities = bool(tf.reduce_all(output >= 0) & tf.reduce_all(tf.abs(sums - 1) < 1e-2))
    if are_probabilities:
        log_p = tf.math.log(tf.maximum(output, np.finfo(np.float32).tiny))
    else:
        log_p = tf.nn.log_softmax(output)
    return log_p, tf.stop_gradient(tf.exp(log_p))


def _extract_patches(layer: Layer, layout: Layout, x: Any) -> tf.Tensor:
    """The inputs that a kernel is multiplied by, float32: `(batch, inputs)`, or `(batch, positions, taps * inputs)`."""
    x = tf.cast(x, tf.float32)
    if len(layout.shape) == 4:
        strides, rates = [1, *layer.strides, 1], [1, *layer.dilation_rate, 1]
        x = tf.image.extract_patches(x, [1, *layer.kernel_size, 1], strides, rates, layer.padding.upper())
    return x if x.shape.rank == 2 else tf.reshape(x, (x.shape[0], -1, x.shape[-1]))


def _sum_squares(layout: Layout, inputs: Sequence[tf.Tensor], output_gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The squares of each sample's gradient by a kernel, summed over the samples: float32, of the kernel's shape.

    Args:
        layout: the kernel's.
        inputs: for each call of the layer what `_extract_patches` gives.
        output_gradients: for each call the gradient by its output, `(batch, *positions, outputs)`.
    """
    if len(inputs) == 1 and inputs[0].shape.rank == 2:  # a gradient is a product, and so is its square
        return tf.matmul(tf.square(inputs[0]), tf.square(tf.cast(output_gradients[0], tf.float32)), transpose_a=True)
    kernel_gradients = []
    for x, output_gradient in zip(inputs, output_gradients, strict=True):
        x = x[:, tf.newaxis] if x.shape.rank == 2 else x
        by_position = tf.reshape(
            tf.cast(output_gradient, tf.float32), (output_gradient.shape[0], -1, output_gradient.shape[-1])
        )
        kernel_gradients.append(tf.matmul(x, by_position, transpose_a=True))
    return tf.reshape(tf.reduce_sum(tf.square(tf.add_n(kernel_gradients)), axis=0), layout.shape)
