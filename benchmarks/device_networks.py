"""The smallest networks that show what XNNPACK's sparse path takes, and what blocks it: one for each rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

layers = keras.layers
Tensor = Any

WIDTH = 192
"""Channels of the 1x1 convolutions, which take most of the time."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with one property, all else as XNNPACK wants it.

    Attributes:
        between: is given what the first 1x1 convolutions put out, and what it returns the last ones read.
        stem: makes the first convolution.
        end: makes the outputs of what the last 1x1 convolution puts out.
        shape: of the image.
        sparsity: of the 1x1 kernels.
        head_sparsity: of Dense kernels.
        quantization: of the files.
    """

    between: Callable[[Tensor], Tensor] = lambda x: x
    stem: Callable[[Tensor], Tensor] = lambda x: convolve(pad(x, 1), 3, strides=2)
    end: Callable[[Tensor], Tensor] = lambda x: layers.Dense(10)(mean(x))
    shape: tuple[int, int, int] = (64, 64, 3)
    sparsity: float = 0.95
    head_sparsity: float = 0.95
    quantization: Any = None


def pad(x: Tensor, padding: Any) -> Tensor:
    """Zeros around an image."""
    return layers.ZeroPadding2D(padding)(x)


def convolve(x: Tensor, taps: int, **settings: Any) -> Tensor:
    """A convolution that is not pruned."""
    return layers.Conv2D(16, taps, name="stem", **settings)(x)


def depthwise(taps: int, **settings: Any) -> Callable[[Tensor], Tensor]:
    """A depthwise convolution."""
    padding = settings.pop("zeros", None)

    def apply(x: Tensor) -> Tensor:
        x = x if padding is None else pad(x, padding)
        return layers.DepthwiseConv2D(taps, **settings)(x)

    return apply


def pointwise(x: Tensor, width: int = WIDTH, **settings: Any) -> Tensor:
    """A 1x1 convolution that is pruned."""
    return layers.Conv2D(width, 1, **settings)(x)


def squeeze(x: Tensor) -> Tensor:
    """The means of channels, with their dimensions."""
    return layers.GlobalAveragePooling2D(keepdims=True)(x)


def gate(x: Tensor) -> Tensor:
    """Channels scaled by what two 1x1 convolutions make of their means."""
    scale = pointwise(pointwise(squeeze(x), 16, activation="relu"), activation="sigmoid")
    return layers.Multiply()([x, scale])


def dense_gate(x: Tensor) -> Tensor:
    """Channels scaled by what a Dense layer makes of their means."""
    return layers.Multiply()([x, layers.Dense(WIDTH, activation="sigmoid")(squeeze(x))])


def flat_gate(x: Tensor) -> Tensor:
    """The same with means that keep no dimensions."""
    scale = layers.Dense(WIDTH, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    return layers.Multiply()([x, layers.Reshape((1, 1, WIDTH))(scale)])


def mean(x: Tensor) -> Tensor:
    """The means of channels, without dimensions."""
    return layers.GlobalAveragePooling2D()(x)


def resize(interpolation: str) -> Callable[[Tensor], Tensor]:
    """Halves an image and doubles it."""
    return lambda x: layers.UpSampling2D(2, interpolation=interpolation)(depthwise(3, strides=2, zeros=1)(x))


def make(case: Case) -> keras.Model:
    """The network of a case, with random weights of which some are zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(case.shape)
    x = pointwise(layers.ReLU()(case.stem(inputs)), activation="relu")
    x = case.between(pointwise(x, activation="relu"))
    x = pointwise(pointwise(x, activation="relu"), activation="relu")
    model = keras.Model(inputs, case.end(x))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        is_pointwise = type(layer) is layers.Conv2D and tuple(layer.kernel_size) == (1, 1)
        if is_pointwise or isinstance(layer, layers.Dense):
            sparsity = case.sparsity if is_pointwise else case.head_sparsity
            kernel = layer.kernel.numpy()
            kernel[rng.random(kernel.shape) < sparsity] = 0
            layer.kernel.assign(kernel)
    return model


TAKEN = {
    "what qualifies": Case(),
    "float16": Case(quantization="float16"),
    "depthwise 3x3, stride 1, 'same'": Case(depthwise(3, padding="same")),
    "depthwise 3x3, stride 2, padded by 1": Case(depthwise(3, strides=2, zeros=1)),
    "depthwise 5x5, stride 1, 'same'": Case(depthwise(5, padding="same")),
    "depthwise 5x5, stride 2, padded by 2": Case(depthwise(5, strides=2, zeros=2)),
    "sum of two tensors": Case(lambda x: layers.Add()([x, pointwise(x)])),
    "product of two tensors": Case(lambda x: layers.Multiply()([x, pointwise(x)])),
    "hard-swish": Case(lambda x: layers.Activation("hard_swish")(x)),
    "sigmoid": Case(lambda x: layers.Activation("sigmoid")(x)),
    "ReLU6": Case(lambda x: layers.ReLU(6.0)(x)),
    "GELU": Case(lambda x: layers.Activation("gelu")(x)),
    "bilinear resizing": Case(resize("bilinear")),
    "gate of 1x1 convolutions": Case(gate),
    "gate of a Dense layer that keeps dimensions": Case(dense_gate),
    "sum over rows and columns at the end": Case(end=lambda x: keras.ops.sum(x, axis=(1, 2))),
    "mean over all axes at the end": Case(end=lambda x: keras.ops.mean(x, axis=(1, 2, 3))),
    "mean over channels at the end, square image": Case(end=lambda x: keras.ops.mean(x, axis=3)),
    "Dense head of 1000, no zeros": Case(end=lambda x: layers.Dense(1000)(mean(x)), head_sparsity=0.0),
    "mean that keeps dimensions as output": Case(end=squeeze),
    "mean that keeps dimensions, then flat": Case(end=lambda x: layers.Dense(10)(layers.Flatten()(squeeze(x)))),
}
"""What the sparse path takes."""

BLOCKED = {
    "60% zeros": Case(sparsity=0.6),
    "60% zeros, Dense head of 1000 at 99%": Case(
        end=lambda x: layers.Dense(1000)(mean(x)), sparsity=0.6, head_sparsity=0.99
    ),
    "75% zeros, gate of a Dense layer without zeros": Case(dense_gate, sparsity=0.75, head_sparsity=0.0),
    "int8": Case(quantization="int8", head_sparsity=0.0),
    "stem pads 'same' at stride 2": Case(stem=lambda x: convolve(x, 3, strides=2, padding="same")),
    "stem pads below and on the right alone": Case(stem=lambda x: convolve(pad(x, ((0, 1), (0, 1))), 3, strides=2)),
    "stem of stride 1": Case(stem=lambda x: layers.MaxPooling2D()(convolve(x, 3, padding="same"))),
    "stem 5x5": Case(stem=lambda x: convolve(pad(x, 2), 5, strides=2)),
    "image of 4 channels": Case(shape=(64, 64, 4)),
    "concatenation": Case(lambda x: layers.Concatenate()([x, pointwise(x, 16)])),
    "difference of two tensors": Case(lambda x: layers.Subtract()([x, pointwise(x)])),
    "product with a number": Case(lambda x: layers.Add()([pointwise(x), layers.Activation("sigmoid")(x) * 0.3])),
    "PReLU": Case(lambda x: layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")(x)),
    "gate of a Dense layer without dimensions": Case(flat_gate),
    "maximum at the end": Case(end=lambda x: layers.GlobalMaxPooling2D()(x)),
    "average pooling at the end": Case(end=lambda x: layers.Flatten()(layers.AveragePooling2D(32)(x))),
    "an output on the way": Case(end=lambda x: [x, mean(x)]),
}
"""What makes the network run dense."""

FAILING = {
    "3x3 convolution between": Case(lambda x: pointwise(layers.Conv2D(16, 3, padding="same", name="full")(x))),
    "1x1 convolution of stride 2": Case(lambda x: pointwise(x, strides=2)),
    "1x1 convolution of 2 groups": Case(lambda x: pointwise(x, groups=2)),
    "depthwise 3x3, stride 2, 'same'": Case(depthwise(3, strides=2, padding="same")),
    "depthwise 5x5, stride 2, 'same'": Case(depthwise(5, strides=2, padding="same")),
    "depthwise 3x3, not padded": Case(depthwise(3)),
    "depthwise 7x7": Case(depthwise(7, padding="same")),
    "depthwise 3x3, dilated": Case(depthwise(3, padding="same", dilation_rate=2)),
    "depthwise multiplier 2": Case(depthwise(3, padding="same", depth_multiplier=2)),
    "max pooling": Case(lambda x: layers.MaxPooling2D()(x)),
    "cropping": Case(lambda x: layers.Cropping2D(1)(x)),
    "softmax between": Case(lambda x: layers.Softmax()(x)),
    "nearest resizing": Case(resize("nearest")),
    "1x1 convolution behind the mean": Case(end=lambda x: layers.Flatten()(pointwise(squeeze(x), 10))),
    "1x1 convolution behind the mean of as many rows as channels": Case(
        end=lambda x: layers.Flatten()(pointwise(squeeze(pointwise(x, 32)), 10))
    ),
    "Dense layer that keeps dimensions behind the mean": Case(end=lambda x: layers.Dense(10)(squeeze(x))),
    "gate without a convolution": Case(lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(squeeze(x))])),
    "sigmoid behind a mean that keeps dimensions": Case(
        end=lambda x: layers.Dense(10)(layers.Flatten()(layers.Activation("sigmoid")(squeeze(x))))
    ),
    "softmax behind a mean that keeps dimensions": Case(end=lambda x: layers.Softmax()(squeeze(x))),
    "mean of means that keep dimensions": Case(end=lambda x: layers.Dense(10)(mean(squeeze(x)))),
    "sum of means that keep dimensions": Case(
        end=lambda x: layers.Flatten()(layers.Add()([squeeze(x), squeeze(pointwise(x))]))
    ),
    "gate at the end, without a mean": Case(end=lambda x: layers.Multiply()([x, pointwise(squeeze(x))])),
    "mean over rows alone": Case(end=lambda x: keras.ops.mean(x, axis=1)),
    "mean over columns alone": Case(end=lambda x: keras.ops.mean(x, axis=2)),
    "mean over channels, image not square": Case(end=lambda x: keras.ops.mean(x, axis=3), shape=(64, 32, 3)),
}
"""What the sparse path fails at, or computes wrongly: such files are written with their zeros."""

CASES = TAKEN | BLOCKED | FAILING
