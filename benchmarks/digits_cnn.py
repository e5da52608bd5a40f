"""A small convolutional network on a part of MNIST, in both kinds of Keras: its data, its training, its zeros."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

TRAINED, TESTED = 12_000, 5_000
BATCH = 64
STEPS_PER_EPOCH = -(-TRAINED // BATCH)
RATE = 1e-3
DENSE_EPOCHS, PRUNING_EPOCHS = 2, 3
END_STEP, FREQUENCY = 2 * STEPS_PER_EPOCH, 20
DATA = "TF_LAP_MNIST"


class Digits(NamedTuple):
    """Images of 28 by 28 by 1 in [0, 1], float32, and their labels, int64."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Measured(NamedTuple):
    """What a network is worth, and how sparse its kernels are.

    Attributes:
        right: the fraction of test images that it gets right.
        zeros: how many weights of its kernels are zero, counted in the weights.
        weights: how many weights its kernels have.
    """

    right: float
    zeros: int
    weights: int


def load() -> Digits:
    """The first images of MNIST, from the npz file that TF_LAP_MNIST names, or from keras.datasets."""
    if path := os.environ.get(DATA):
        with np.load(path) as file:
            (x, y), (x_test, y_test) = ((file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test"))
    else:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    return Digits(_scale(x[:TRAINED]), y[:TRAINED].astype(int), _scale(x_test[:TESTED]), y_test[:TESTED].astype(int))


def _scale(images: np.ndarray) -> np.ndarray:
    return images[..., np.newaxis].astype(np.float32) / 255


def network(kind: Any) -> Any:
    """The network; `kind` is keras or tf_keras. Its kernels have 56,592 weights."""
    layers = kind.layers
    return kind.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu", name="conv_1"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu", name="conv_2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, name="head"),
        ]
    )


def batches(digits: Digits, seed: int, epochs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of a training, shuffled anew for each epoch: the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(digits.x))
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            yield digits.x[places], digits.y[places]


def fit(model: Any, kind: Any, digits: Digits, seed: int, epochs: int, callbacks: Sequence[Any] = ()) -> None:
    """Trains with a new Adam, and batches that depend on the seed alone."""
    loss = kind.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kind.optimizers.Adam(RATE), loss, jit_compile=False)
    steps = -(-len(digits.x) // BATCH)
    model.fit(
        batches(digits, seed, epochs),
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,
        callbacks=list(callbacks),
        verbose=0,
    )


def train_dense(digits: Digits, seed: int) -> list[np.ndarray]:
    """The weights of a network that was trained without pruning."""
    keras.utils.set_random_seed(seed)
    model = network(keras)
    fit(model, keras, digits, 1000 + seed, DENSE_EPOCHS)
    return model.get_weights()


def measure(model: Any, digits: Digits) -> Measured:
    """A network's accuracy on the test images, and the zeros in its kernels."""
    logits = model.predict(digits.x_test, batch_size=500, verbose=0)
    right = float(np.mean(logits.argmax(axis=-1) == digits.y_test))
    kernels = [w for w in model.get_weights() if w.ndim > 1]
    return Measured(right, *count_zeros(kernels))


def count_zeros(kernels: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many weights of some kernels are zero, and how many there are."""
    return sum(int(np.sum(w == 0)) for w in kernels), sum(w.size for w in kernels)


def describe() -> str:
    """The setting, in words."""
    return (
        f"MNIST, the first {TRAINED:,} images to train and {TESTED:,} to test; convolutions of 16 and 32 channels, "
        f"Dense layers of 64 and 10; {DENSE_EPOCHS} dense epochs, the same weights to all"
    )
