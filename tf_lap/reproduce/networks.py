"""The networks of Park et al. (ICLR 2020), as their code builds them, and how much of each layer a round drops.

Kernels and biases start by PyTorch's default for its layers, as the authors' do: uniform within 1 / sqrt(fan in) on
either side of zero. `width` scales the channels of the convolutional ones, for machines without a GPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tf_lap.reproduce.datasets import CLASSES

layers = keras.layers

Rates = Mapping[str, float]
"""The fraction of its weights that each layer loses in a round, by its path."""

_VGG = {
    "vgg11": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "vgg16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "vgg19": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}


def perceptron(widths: Sequence[int]) -> keras.Sequential:
    """A fresh perceptron with ReLU between its layers, named dense_1, dense_2 and so on."""
    stack: list[Any] = [keras.Input((widths[0],))]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        stack.append(_make_dense(inputs, outputs, f"dense_{number}", "relu" if number < len(widths) - 1 else None))
    return keras.Sequential(stack)


def perceptron_rates(hidden: int) -> Rates:
    """Half of each hidden layer, a quarter of the last layer."""
    return {**{f"dense_{number}": 0.5 for number in range(1, hidden + 1)}, f"dense_{hidden + 1}": 0.25}


def sparsities(rates: Rates, rounds: int) -> dict[str, float]:
    """The fraction of zeros in each layer after some rounds."""
    return {path: 1 - (1 - rate) ** rounds for path, rate in rates.items()}


def conv6(width: float = 1.0) -> keras.Sequential:
    """Six convolutions in three stages and three Dense layers."""
    stack: list[Any] = [keras.Input((32, 32, 3))]
    inputs, number = 3, 0
    for channels in (64, 128, 256):
        for _ in range(2):
            number += 1
            outputs = _scale_channels(channels, width)
            stack.append(_make_conv(inputs, outputs, f"conv_{number}", activation="relu"))
            inputs = outputs
        stack.append(layers.MaxPooling2D())
    inputs *= 16
    stack.append(layers.Flatten())
    for number, channels in enumerate((256, 256, CLASSES), start=1):
        last = number == 3
        outputs = channels if last else _scale_channels(channels, width)
        stack.append(_make_dense(inputs, outputs, f"dense_{number}", None if last else "relu"))
        inputs = outputs
    return keras.Sequential(stack)


def conv6_rates() -> Rates:
    """15% of each convolution, 20% of the hidden Dense layers, 10% of the last."""
    return {**{f"conv_{n}": 0.15 for n in range(1, 7)}, "dense_1": 0.2, "dense_2": 0.2, "dense_3": 0.1}


def vgg(name: str, width: float = 1.0) -> keras.Sequential:
    """VGG-11, VGG-16 or VGG-19 with batch normalization and one Dense layer, for images of 32 by 32."""
    stack: list[Any] = [keras.Input((32, 32, 3))]
    inputs, number = 3, 0
    for stage in _VGG[name]:
        for channels in stage:
            number += 1
            outputs = _scale_channels(channels, width)
            stack += [_make_conv(inputs, outputs, f"conv_{number}"), _make_normalization(), layers.ReLU()]
            inputs = outputs
        stack.append(layers.MaxPooling2D())
    return keras.Sequential([*stack, layers.Flatten(), _make_dense(inputs, CLASSES, "dense")])


def vgg_rates(name: str) -> Rates:
    """15% of each convolution, 10% of the last layer."""
    return {**{f"conv_{n}": 0.15 for n in range(1, 1 + sum(map(len, _VGG[name])))}, "dense": 0.1}


def resnet18(width: float = 1.0) -> keras.Model:
    """ResNet-18 for images of 32 by 32. Convolutions on shortcuts are named shortcut_1 and so on."""
    inputs = keras.Input((32, 32, 3))
    channels = _scale_channels(64, width)
    x = layers.ReLU()(_make_normalization()(_make_conv(3, channels, "conv_1", bias=False)(inputs)))
    number, shortcuts = 1, 0
    for stage, base in enumerate((64, 128, 256, 512)):
        for block in range(2):
            outputs, stride = _scale_channels(base, width), 2 if stage and not block else 1
            y, skip = x, x
            for step, (read, moved) in enumerate(((channels, stride), (outputs, 1))):
                number += 1
                # PyTorch pads both sides by 1. With strides, Keras's "same" pads only the far side.
                y = layers.ZeroPadding2D(1)(y)
                y = _make_conv(read, outputs, f"conv_{number}", stride=moved, bias=False, padding="valid")(y)
                y = _make_normalization()(y)
                y = y if step else layers.ReLU()(y)
            if stride != 1 or channels != outputs:
                shortcuts += 1
                skip = _make_conv(channels, outputs, f"shortcut_{shortcuts}", size=1, stride=stride, bias=False)(x)
                skip = _make_normalization()(skip)
            x = layers.ReLU()(layers.Add()([y, skip]))
            channels = outputs
    return keras.Model(inputs, _make_dense(channels, CLASSES, "dense")(layers.GlobalAveragePooling2D()(x)))


def resnet18_rates() -> Rates:
    """15% of each convolution, 10% of the last layer. The first convolution and the shortcuts stay whole."""
    return {**{f"conv_{n}": 0.15 for n in range(2, 18)}, "dense": 0.1}


def _scale_channels(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _initialize_uniformly(fan_in: int) -> dict[str, Any]:
    """The arguments of a layer that initialize kernel and bias uniformly within 1 / sqrt(fan in) of zero."""
    bound = fan_in**-0.5
    return {
        "kernel_initializer": keras.initializers.RandomUniform(-bound, bound),
        "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
    }


def _make_dense(inputs: int, outputs: int, name: str, activation: str | None = None) -> keras.layers.Layer:
    return layers.Dense(outputs, activation=activation, name=name, **_initialize_uniformly(inputs))


def _make_conv(
    inputs: int,
    outputs: int,
    name: str,
    *,
    size: int = 3,
    stride: int = 1,
    bias: bool = True,
    activation: str | None = None,
    padding: str = "same",
) -> keras.layers.Layer:
    options = {"strides": stride, "padding": padding, "use_bias": bias, "activation": activation, "name": name}
    return layers.Conv2D(outputs, size, **options, **_initialize_uniformly(inputs * math.prod((size, size))))


def _make_normalization() -> keras.layers.Layer:
    """Batch normalization as PyTorch's. A momentum of 0.1 there is 0.9 in Keras."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
