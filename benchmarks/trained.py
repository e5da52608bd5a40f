"""Small trained networks on data at hand, and that data: what pruning is compared on.

Each network is trained once for a seed and kept in a folder. MNIST and CIFAR-10 are read from the files that the
environment variables TF_LAP_MNIST and TF_LAP_CIFAR10 name. Text is the docstrings of Python's standard library.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_lap.reproduce import experiments

BATCH = 64
TEXT_LENGTH = 64


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs and labels, to train with and to test with."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """A network and what it is trained on.

    Attributes:
        build: makes the network, untrained. It puts out logits.
        load: loads the data.
        epochs: of dense training.
        rate: the learning rate that Adam begins with; it goes down to zero along a cosine.
        title: what it is, for tables.
    """

    build: Callable[[], keras.Model]
    load: Callable[[], Data]
    epochs: int
    rate: float
    title: str


def build_perceptron() -> keras.Model:
    """784-500-500-500-10 with ReLU."""
    hidden = [keras.layers.Dense(500, activation="relu") for _ in range(3)]
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), *hidden, keras.layers.Dense(10)])


def build_cnn() -> keras.Model:
    """Two convolutions and two Dense layers, 56,592 kernel weights."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )


def build_residual() -> keras.Model:
    """Three residual blocks of 16, 32 and 64 channels with batch normalization."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))

    def convolve(x: Any, channels: int, size: int = 3, strides: int = 1) -> Any:
        x = layers.Conv2D(channels, size, strides, "same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    x = layers.ReLU()(convolve(inputs, 16))
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = x if strides == 1 else convolve(x, channels, 1, strides)
        y = layers.ReLU()(convolve(x, channels, 3, strides))
        x = layers.ReLU()(layers.Add()([convolve(y, channels), shortcut]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def build_mobile() -> keras.Model:
    """Depthwise-separable blocks of 32 to 128 channels with batch normalization, as in MobileNet."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))

    def normalize(x: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))

    x = normalize(layers.Conv2D(32, 3, 2, "same", use_bias=False)(inputs))
    for channels, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        x = normalize(layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(x))
        x = normalize(layers.Conv2D(channels, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


@keras.saving.register_keras_serializable(package="benchmarks")
class AddPositions(keras.layers.Layer):
    """Adds a learned vector for each position."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the vectors."""
        self.positions = self.add_weight(shape=input_shape[1:], initializer="normal", name="positions")

    def call(self, x: Any) -> Any:
        """Adds the vectors."""
        return x + self.positions


def build_text() -> keras.Model:
    """A transformer of two blocks that predicts each next character."""
    layers = keras.layers
    inputs = keras.Input((TEXT_LENGTH,), dtype="int32")
    x = AddPositions()(layers.Embedding(96, 96)(inputs))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(4, 24)(y, y, use_causal_mask=True)
        y = layers.Dense(256, activation="gelu")(layers.LayerNormalization()(x))
        x += layers.Dense(96)(y)
    return keras.Model(inputs, layers.Dense(96)(layers.LayerNormalization()(x)))


@functools.cache
def load_mnist(images: int = 12_000, test_images: int = 5_000) -> Data:
    """The first images of MNIST, from 0 to 1."""
    with np.load(os.environ["TF_LAP_MNIST"]) as file:
        x, x_test = (file[name].astype(np.float32)[..., np.newaxis] / 255 for name in ("x_train", "x_test"))
        y, y_test = file["y_train"].astype(np.int32), file["y_test"].astype(np.int32)
    return Data(x[:images], y[:images], x_test[:test_images], y_test[:test_images])


@functools.cache
def load_cifar10(images: int = 10_000, test_images: int = 2_000) -> Data:
    """The first images of CIFAR-10, as `tf-lap reproduce` reads and standardizes them."""
    experiment = experiments.cifar10(Path(os.environ["TF_LAP_CIFAR10"]), "conv6", 1.0)
    arrays = experiment.arrays
    return Data(
        np.asarray(experiment.plain(arrays["x_train"][:images])),
        arrays["y_train"][:images],
        arrays["x_test"][:test_images],
        arrays["y_test"][:test_images],
    )


@functools.cache
def load_text() -> Data:
    """The docstrings of the modules of Python's standard library, the last tenth of them to test with."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_bytes())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts += [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    text = "\n\n".join(filter(None, texts)).encode("ascii", "replace")
    codes = np.frombuffer(text, np.uint8).astype(np.int32)
    codes = np.where(codes == 10, 95, np.clip(codes - 32, 0, 94))
    rows = codes[: len(codes) // (TEXT_LENGTH + 1) * (TEXT_LENGTH + 1)].reshape(-1, TEXT_LENGTH + 1)
    first_test = len(rows) * 9 // 10
    x, y = rows[:, :-1], rows[:, 1:]
    return Data(x[:first_test], y[:first_test], x[first_test:], y[first_test:])


TASKS = {
    "perceptron": Task(build_perceptron, lambda: load_mnist(60_000, 10_000), 3, 1e-3, "MNIST, perceptron"),
    "cnn": Task(build_cnn, load_mnist, 4, 1e-3, "MNIST, convolutions"),
    "residual": Task(build_residual, load_cifar10, 6, 3e-3, "CIFAR-10, residual network"),
    "mobile": Task(build_mobile, load_cifar10, 6, 3e-3, "CIFAR-10, depthwise-separable network"),
    "text": Task(build_text, load_text, 6, 2e-3, "text, transformer"),
}


def compile_model(model: keras.Model, rate: Any) -> None:
    """Compiles with Adam and the cross-entropy of logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=False)


def find_folder() -> Path:
    """Where trained networks are kept: the folder that `TF_LAP_MODELS` names, or one beside the results."""
    return Path(os.environ.get("TF_LAP_MODELS", Path(__file__).parent / "results" / "models"))


def train(name: str, seed: int, folder: Path) -> keras.Model:
    """A trained network of a task: loaded from the folder, or trained and kept there."""
    path = folder / f"{name}_{seed}.keras"
    if path.exists():
        return keras.models.load_model(path)
    task = TASKS[name]
    keras.utils.set_random_seed(seed)
    model, data = task.build(), task.load()
    steps = task.epochs * -(-len(data.x_train) // BATCH)
    compile_model(model, keras.optimizers.schedules.CosineDecay(task.rate, steps))
    model.fit(data.x_train, data.y_train, BATCH, task.epochs, verbose=0)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def measure_error(model: keras.Model, data: Data) -> float:
    """The percentage of wrong predictions on the test data."""
    predictions = np.argmax(model.predict(data.x_test, 500, verbose=0), axis=-1)
    return 100 * float(np.mean(predictions != data.y_test))
