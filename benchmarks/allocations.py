"""Which allocation keeps the most accuracy: small networks pruned while they train on, and once without training.

A perceptron on MNIST; a chain of convolutions with batch normalization and a residual network on a part of CIFAR-10,
in images of half the size. Beside the package's allocations there are two with floors: no kernel keeps a smaller
fraction than a quarter of that of all kernels together.

TF_LAP_CIFAR10 names an npz file with the JPEG images of CIFAR-10: `jpeg_train`, `offsets_train`, `y_train`, and the
same for the test. Fits that `RUNS` holds already are not repeated: remove the file to begin anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from benchmarks import digits_cnn, measure
from benchmarks.digits_cnn import Digits

RUNS = Path(__file__).parent / "results" / "allocations.json"
SEEDS = 2
GRADUAL, ONE_SHOT = (0.95,), (0.8,)
DENSE_EPOCHS, PRUNING_EPOCHS = 6, 3
CIFAR_TRAINED, CIFAR_TESTED = 5_000, 4_000
FLOOR = 0.25  # of the fraction that all kernels keep together


def protect(ranked: tf.Tensor, scores: tf.Tensor, fraction: float) -> tf.Tensor:
    """Comparable scores, with infinity for the largest of a kernel.

    Args:
        ranked: what is comparable.
        scores: what the kernel's weights are ranked by.
        fraction: how many of the kernel's weights are protected.
    """
    flat = tf.reshape(scores, [-1])
    protected = tf.argsort(tf.argsort(flat, direction="DESCENDING", stable=True)) < round(fraction * flat.shape[0])
    return tf.where(tf.reshape(protected, tf.shape(scores)) & (scores > 0), float("inf"), ranked)


@dataclasses.dataclass(frozen=True)
class FlooredLAMP(tf_lap.allocation.LAMP):
    """Layer-adaptive scores; the largest of each kernel stay."""

    fraction: float = 0.0

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """As `LAMP.comparable`."""
        return protect(super().comparable(scores, live, norm_order), scores, self.fraction)


@dataclasses.dataclass(frozen=True)
class FlooredGlobal(tf_lap.allocation.Global):
    """Scores divided by their norm; the largest of each kernel stay."""

    fraction: float = 0.0

    def comparable(self, scores: tf.Tensor, live: tf.Tensor, norm_order: int) -> tf.Tensor:
        """As `Global.comparable`."""
        return protect(super().comparable(scores, live, norm_order), scores, self.fraction)


ALLOCATIONS: dict[str, Callable[[float], tf_lap.allocation.Allocation]] = {
    "uniform": lambda sparsity: tf_lap.allocation.Uniform(),
    "erk": lambda sparsity: tf_lap.allocation.ERK(),
    "global": lambda sparsity: tf_lap.allocation.Global(),
    "global, floor": lambda sparsity: FlooredGlobal(FLOOR * (1 - sparsity)),
    "lamp": lambda sparsity: tf_lap.allocation.LAMP(),
    "lamp, floor": lambda sparsity: FlooredLAMP(FLOOR * (1 - sparsity)),
}
"""By name, the allocation for a final sparsity."""


def load_cifar() -> Digits:
    """A part of CIFAR-10, in images of 16 by 16 in [0, 1]."""
    with np.load(os.environ["TF_LAP_CIFAR10"]) as file:
        parts = [
            (_decode(file[f"jpeg_{part}"], file[f"offsets_{part}"], size), file[f"y_{part}"][:size].astype(np.int64))
            for part, size in (("train", CIFAR_TRAINED), ("test", CIFAR_TESTED))
        ]
    return Digits(*parts[0], *parts[1])


def _decode(jpegs: np.ndarray, offsets: np.ndarray, count: int) -> np.ndarray:
    images = [tf.io.decode_jpeg(jpegs[offsets[i] : offsets[i + 1]].tobytes()).numpy() for i in range(count)]
    return np.stack(images).reshape(count, 16, 2, 16, 2, 3).mean(axis=(2, 4), dtype=np.float32) / 255


def perceptron() -> keras.Model:
    """Dense layers on digits."""
    layers = keras.layers
    hidden = [layers.Dense(width, activation="relu") for width in (300, 100)]
    return keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), *hidden, layers.Dense(10)])


def _convolve(x: Any, channels: int, strides: int = 1) -> Any:
    x = keras.layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False)(x)
    return keras.layers.BatchNormalization(momentum=0.9)(x)


def _finish(inputs: Any, x: Any) -> keras.Model:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def chain() -> keras.Model:
    """Convolutions with batch normalization, one behind the other."""
    x = inputs = keras.Input((16, 16, 3))
    for channels, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        x = keras.layers.ReLU()(_convolve(x, channels, strides))
    return _finish(inputs, x)


def residual() -> keras.Model:
    """Residual blocks, with a convolution on the shortcut where the channels change."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.ReLU()(_convolve(inputs, 16))
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        y = keras.layers.ReLU()(_convolve(x, channels, strides))
        y = _convolve(y, channels)
        if strides > 1:
            x = keras.layers.Conv2D(channels, 1, strides=strides, use_bias=False)(x)
        x = keras.layers.ReLU()(x + y)
    return _finish(inputs, x)


NETWORKS: dict[str, tuple[Callable[[], keras.Model], Callable[[], Digits]]] = {
    "perceptron": (perceptron, digits_cnn.load),
    "chain": (chain, load_cifar),
    "residual": (residual, load_cifar),
}
"""By name, what makes the network, and what loads its data."""


def prune(model: keras.Model, images: Digits, seed: int, name: str, sparsity: float, mode: str) -> digits_cnn.Measured:
    """Prunes a trained network by lookahead, and measures it."""
    allocation = ALLOCATIONS[name](sparsity)
    if mode == "one-shot":
        tf_lap.prune(model, sparsity, allocation=allocation)
        return digits_cnn.measure(model, images)
    steps = -(-len(images.x) // digits_cnn.BATCH)
    schedule = tf_lap.LookaheadPruningSchedule(
        sparsity, begin_step=0, end_step=steps * PRUNING_EPOCHS // 2, frequency=10
    )
    callback = tf_lap.LAPCallback(schedule, allocation=allocation)
    digits_cnn.fit(model, keras, images, seed, PRUNING_EPOCHS, [callback])
    return digits_cnn.measure(model, images)


def run() -> dict[str, Any]:
    """Does all fits that are not done yet, writing each down, and gives the fractions of images that are right."""
    runs = json.loads(RUNS.read_text(encoding="utf-8"))["runs"] if RUNS.exists() else []
    settings = [("gradual", sparsity) for sparsity in GRADUAL] + [("one-shot", sparsity) for sparsity in ONE_SHOT]
    for network, (make, load) in NETWORKS.items():
        images = load()
        for seed in range(SEEDS):
            model = _train(make, images, seed)
            dense = model.get_weights()
            todo = [(*setting, allocation) for setting in settings for allocation in ALLOCATIONS]
            for mode, sparsity, allocation in [("dense", 0.0, "none"), *todo]:
                place = {"network": network, "seed": seed, "mode": mode, "sparsity": sparsity, "allocation": allocation}
                if any(place.items() <= fit.items() for fit in runs):
                    continue
                model.set_weights(dense)
                if mode == "dense":
                    measured = digits_cnn.measure(model, images)
                else:
                    measured = prune(model, images, seed, allocation, sparsity, mode)
                runs.append({**place, **measured._asdict()})
                print(runs[-1], flush=True)
                RUNS.write_text(json.dumps({"runs": runs}, indent=2) + "\n", encoding="utf-8")
    return {
        "what": f"networks pruned by lookahead from the same trained weights, while training on for {PRUNING_EPOCHS} "
        f"epochs or once without training; the fraction of test images that is right, {SEEDS} seeds",
        "ratios": summarize(runs),
        "runs": runs,
    }


def _train(make: Callable[[], keras.Model], images: Digits, seed: int) -> keras.Model:
    """A network that was trained without pruning."""
    keras.utils.set_random_seed(seed)
    model = make()
    digits_cnn.fit(model, keras, images, 1000 + seed, DENSE_EPOCHS)
    return model


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread over seeds, by network, way of pruning, sparsity and allocation."""
    right: dict[str, list[float]] = {}
    for fit in runs:
        if fit["mode"] == "dense":
            name = f"{fit['network']}, dense"
        else:
            name = f"{fit['network']}, {fit['mode']}, {fit['sparsity']:.0%}, {fit['allocation']}"
        right.setdefault(name, []).append(fit["right"])
    return {name: measure.spread(fractions) for name, fractions in right.items()}
