"""What the commands train on: data from a file or from a package."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tf_lap.cli.errors import CommandError as CommandError

CLASSES = 10
HIDDEN_LAYERS = 4
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# As `Task.rounds`. After fewer rounds the two methods hardly differ, with the authors' code as well.
DIGITS_ROUNDS = (6, 7, 8)
MNIST_ROUNDS = (7, 8, 9)


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train, and how far to prune it.

    Attributes:
        name: the data's name.
        arrays: `x_train` and `x_test`, float32 `(images, pixels)`, and `y_train` and `y_test`, integers `(images,)`.
        width: neurons in a hidden layer.
        rounds: how far to prune: after t rounds a layer keeps 0.5^t of its weights, and the last layer 0.75^t.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    width: int
    rounds: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The network's layers: pixels, hidden neurons, classes."""
        return (self.arrays["x_train"].shape[1], *[self.width] * HIDDEN_LAYERS, CLASSES)

    @property
    def title(self) -> str:
        """The data's name and the network's shape."""
        return f"{self.name}, perceptron {'-'.join(map(str, self.widths))}"


def load_digits_task() -> Task:
    """scikit-learn's handwritten digits: 1,297 images to train and 500 to test, a split that is always the same.

    Raises:
        CommandError: scikit-learn is missing.
    """
    require("sklearn")
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[500:], order[:500]
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return Task("digits", standardize(arrays), 300, DIGITS_ROUNDS)


def load_npz_task(path: Path) -> Task:
    """The data of an npz file in the layout of `keras.datasets.mnist`.

    Raises:
        CommandError: no such file, or not of that layout.
    """
    layout = f"expected the npz layout of keras.datasets.mnist, with the arrays {', '.join(ARRAYS)}"
    with open_npz(path, layout) as archive:
        missing = [name for name in ARRAYS if name not in archive]
        if missing:
            raise CommandError(f"--data {path}: has no {', '.join(missing)}; {layout}")
        arrays = {name: archive[name] for name in ARRAYS}
    for part in ("train", "test"):
        check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"], (28, 28))
    return Task(path.stem, standardize(arrays), 500, MNIST_ROUNDS)


@contextlib.contextmanager
def open_npz(path: Path, layout: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Opens an npz file.

    Args:
        path: the file.
        layout: what it should hold, for errors.

    Raises:
        CommandError: no such file, or it cannot be read, or the block reads an array that is not in it.
    """
    try:
        with path.open("rb") as file, np.load(file) as archive:
            yield archive
    except FileNotFoundError as error:
        raise CommandError(f"--data {path}: no such file") from error
    except KeyError as error:
        raise CommandError(f"--data {path}: {error.args[0]}; {layout}") from error
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # TypeError and AttributeError: an npy file loads as an array, which is no archive.
        raise CommandError(f"--data {path}: cannot be read ({error}); {layout}") from error


def check_part(path: Path, part: str, x: np.ndarray, y: np.ndarray, image: tuple[int, ...]) -> None:
    """Raises CommandError unless `x` holds finite images of a shape, and `y` a class for each of them."""
    if x.ndim != 1 + len(image) or x.shape[1:] != image or x.dtype.kind not in "uif" or not len(x):
        raise CommandError(
            f"--data {path}: x_{part} has shape {x.shape} and dtype {x.dtype}; expected numbers, "
            f"(images, {', '.join(map(str, image))})"
        )
    if not np.isfinite(x).all():
        raise CommandError(f"--data {path}: x_{part} holds NaN or infinity")
    if y.shape != (len(x),) or y.dtype.kind not in "ui":
        raise CommandError(
            f"--data {path}: y_{part} has shape {y.shape} and dtype {y.dtype}; expected integers of shape ({len(x)},), "
            f"one for each image of x_{part}"
        )
    if y.min() < 0 or y.max() >= CLASSES:
        raise CommandError(
            f"--data {path}: y_{part} holds labels from {y.min()} to {y.max()}; expected 0 to {CLASSES - 1}"
        )


def standardize(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Images as rows of pixels, less the mean of the training images, over their standard deviation.

    Args:
        arrays: `x_train` and `x_test`, images of any shape and dtype, and `y_train` and `y_test`, integers.

    Returns:
        Images in float32 `(images, pixels)`, labels in int32 `(images,)`.
    """
    labels = {name: array.astype(np.int32) for name, array in arrays.items() if name.startswith("y")}
    pixels = {name: arrays[name].reshape(len(arrays[name]), -1).astype(np.float32) for name in ("x_train", "x_test")}
    mean, deviation = pixels["x_train"].mean(), pixels["x_train"].std() or np.float32(1)
    return {**labels, **{name: (images - mean) / deviation for name, images in pixels.items()}}


def require(package: str) -> None:
    """Raises CommandError where a package is missing."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        remedy = 'pip install "tf_lap[demo]"'
        raise CommandError(f"{package} is needed and cannot be imported ({error}): {remedy}") from error


def check_writable(output: Path) -> None:
    """Makes a folder, and raises CommandError where nothing can be written in it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise CommandError(f"--output {output}: cannot be written ({error.strerror or error})") from error
