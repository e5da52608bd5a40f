"""The paper's experiments: a network, its data, and the settings of the authors' code."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lap.reproduce import networks
from tf_lap.reproduce.datasets import CLASSES, CommandError, check_part, load_npz_task, open_npz, standardize
from tf_lap.reproduce.training import Prepare

HIDDEN = (500,) * 4  # neurons of the perceptron's hidden layers
_SAMPLES = 10_000  # that scores are measured over
# How far to prune by default.
ROUNDS = {"mnist": tuple(range(4, 11)), "cifar10": tuple(range(10, 25, 2))}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What to train, and how.

    Attributes:
        name: the data's name and the network's.
        arrays: `x_train`, `y_train`, `x_test`, `y_test`; the test images as the network takes them.
        build: makes a fresh network.
        rates: the fraction of its weights that each layer loses in a round; layers without a rate stay whole.
        learning_rate: Adam's.
        steps: of training before pruning, and after it.
        prepare: what is done to each batch of training images.
        plain: makes what the network takes from images as they are stored.
        settings: further settings that tell the experiment from others.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    build: Callable[[], keras.Model]
    rates: networks.Rates
    learning_rate: float
    steps: tuple[int, int]
    prepare: Prepare | None = None
    plain: Callable[[Any], Any] = np.asarray
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_steps(self, steps: int) -> Experiment:
        """The same experiment with this number of steps before pruning, and after it in proportion."""
        before, after = self.steps
        return dataclasses.replace(self, steps=(steps, max(1, round(steps * after / before))))

    def pick_samples(self) -> np.ndarray:
        """Evenly spaced training images, as the network takes them, that scores are measured over."""
        x = self.arrays["x_train"]
        picked = np.linspace(0, len(x) - 1, min(len(x), _SAMPLES)).astype(int)
        return np.asarray(self.plain(x[picked]))

    def sparsities(self, rounds: int) -> dict[str, float]:
        """The fraction of zeros in each layer after some rounds."""
        return networks.sparsities(self.rates, rounds)


def mnist(data: Path | None) -> Experiment:
    """The fully connected network: 784-500-500-500-500-10, Adam 0.0012, 50,000 steps before and after.

    Args:
        data: an npz file in the layout of `keras.datasets.mnist`; downloaded where it is None.

    Raises:
        CommandError: the file cannot be read, or is not of that layout.
    """
    arrays = standardize(_download(keras.datasets.mnist)) if data is None else load_npz_task(data).arrays
    widths = (arrays["x_train"].shape[1], *HIDDEN, CLASSES)
    return Experiment(
        f"mnist perceptron {'-'.join(map(str, widths))}",
        arrays,
        functools.partial(networks.perceptron, widths),
        networks.perceptron_rates(len(HIDDEN)),
        0.0012,
        (50_000, 50_000),
    )


_NETWORKS: dict[str, tuple[Callable[[float], keras.Model], networks.Rates, tuple[int, int]]] = {
    "conv6": (networks.conv6, networks.conv6_rates(), (30_000, 20_000)),
    "vgg11": (functools.partial(networks.vgg, "vgg11"), networks.vgg_rates("vgg11"), (35_000, 25_000)),
    "vgg16": (functools.partial(networks.vgg, "vgg16"), networks.vgg_rates("vgg16"), (50_000, 35_000)),
    "vgg19": (functools.partial(networks.vgg, "vgg19"), networks.vgg_rates("vgg19"), (60_000, 40_000)),
    "resnet18": (networks.resnet18, networks.resnet18_rates(), (35_000, 25_000)),
}
# The authors' constants for CIFAR-10.
_MEAN, _DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


def cifar10(data: Path | None, network: str, width: float) -> Experiment:
    """A convolutional network on CIFAR-10: Adam 0.0003, crops of padded images and flips.

    Args:
        data: an npz file with the arrays of `keras.datasets.cifar10`, images as numbers or as JPEG (`jpeg_train` and
            `offsets_train`, and the same of test); downloaded where it is None.
        network: "conv6", "vgg11", "vgg16", "vgg19" or "resnet18".
        width: scales its channels.

    Raises:
        CommandError: the file cannot be read, or is not of that layout.
    """
    arrays = dict(_download(keras.datasets.cifar10) if data is None else _read_cifar10(data))
    build, rates, steps = _NETWORKS[network]
    arrays["x_test"] = _normalize(arrays["x_test"]).numpy()
    return Experiment(
        f"cifar10 {network}" + (f" width {width:g}" if width != 1 else ""),
        arrays,
        functools.partial(build, width),
        rates,
        0.0003,
        steps,
        _augment,
        _normalize,
        {"network": network, "width": width},
    )


def _download(dataset: Any) -> dict[str, np.ndarray]:
    try:
        (x, y), (x_test, y_test) = dataset.load_data()
    except Exception as error:  # a download raises many kinds of errors; the remedy is the same
        raise CommandError(f"the data cannot be downloaded ({error}): pass --data FILE") from error
    return {"x_train": x, "y_train": y.ravel().astype(np.int32), "x_test": x_test, "y_test": y_test.ravel()}


def _read_cifar10(path: Path) -> dict[str, np.ndarray]:
    layout = "expected x_train, y_train, x_test and y_test as keras.datasets.cifar10 has them, or jpeg_ and offsets_"
    with open_npz(path, layout) as archive:
        arrays: dict[str, np.ndarray] = {}
        for part in ("train", "test"):
            if f"jpeg_{part}" in archive:
                arrays[f"x_{part}"] = _decode_jpeg(archive[f"jpeg_{part}"], archive[f"offsets_{part}"])
            else:
                arrays[f"x_{part}"] = archive[f"x_{part}"]
            arrays[f"y_{part}"] = np.ravel(archive[f"y_{part}"]).astype(np.int32)
            check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"], (32, 32, 3))
    return arrays


def _decode_jpeg(jpeg: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Images `(images, rows, columns, channels)` in uint8, from one stream of bytes and the offsets of its images."""
    stream = jpeg.tobytes()
    spans = itertools.pairwise(offsets)
    return np.stack([tf.io.decode_jpeg(stream[start:end]).numpy() for start, end in spans])


def _normalize(images: Any) -> tf.Tensor:
    return (tf.cast(images, tf.float32) / 255.0 - _MEAN) / _DEVIATION


def _augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Each image normalized, padded by four pixels, cropped to its size at random, and flipped or not.

    Args:
        images: numbers from 0 to 255 `(images, side, side, channels)`.
        seed: two whole numbers, which settle crops and flips.

    Returns:
        Float32, of the shape of `images`.
    """
    count, side = tf.shape(images)[0], images.shape[1]
    padded = _normalize(tf.pad(images, [[0, 0], [4, 4], [4, 4], [0, 0]]))
    corner = tf.random.stateless_uniform([count, 2], seed, 0, 9, tf.int32)
    rows = corner[:, :1] + tf.range(side)
    columns = corner[:, 1:] + tf.range(side)
    flip = tf.random.stateless_uniform([count, 1], seed + 1) < 0.5
    columns = tf.where(flip, tf.reverse(columns, [1]), columns)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)
