"""Prunes a small image transformer by magnitude and by lookahead, under the same budget, and compares their errors.

    python examples/transformer.py --data=mnist.npz --output=transformer.json

An image is cut into patches, and each patch is a position for two blocks of attention. For each seed the transformer is
trained once. Each method then prunes the same trained weights step by step while it trains on: same schedule, same
batches, same number of epochs. Without --data, the file comes from keras.datasets.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags

import tf_lap

DATA = flags.DEFINE_string("data", None, "An npz file in the layout of keras.datasets.mnist.")
SPARSITIES = flags.DEFINE_list("sparsities", ["0.9", "0.95"], "The fractions of zeros in each kernel.")
METHODS = flags.DEFINE_list("methods", ["magnitude", "lookahead"], "The scores to compare.")
SEEDS = flags.DEFINE_integer("seeds", 3, "How many seeds, from 0 on.", 1)
EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of training before pruning, and again while pruning.", 1)
IMAGES = flags.DEFINE_integer("images", 60000, "How many images to train with.", 100)
OUTPUT = flags.DEFINE_string("output", None, "Where to write all errors, as JSON.")

BATCH = 128
WIDTH, HEADS, BLOCKS = 32, 4, 2


@keras.saving.register_keras_serializable(package="transformer")
class AddPositions(keras.layers.Layer):
    """Adds a learned vector for each position."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the vectors, as many as there are positions."""
        self.positions = self.add_weight(shape=input_shape[1:], initializer="normal", name="positions")

    def call(self, x: Any) -> Any:
        """Adds the vectors."""
        return x + self.positions


def network() -> keras.Model:
    """A transformer for images of 28 by 28 pixels: 16 patches of 7 by 7."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))
    x = layers.Reshape((16, WIDTH))(layers.Conv2D(WIDTH, 7, strides=7, name="patches")(inputs))
    x = AddPositions(name="positions")(x)
    for block in range(BLOCKS):
        y = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attention_{block}")(y, y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(2 * WIDTH, activation="gelu", name=f"widen_{block}")(y)
        x += layers.Dense(WIDTH, name=f"narrow_{block}")(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, name="digits")(x))


def load_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images in [0, 1] and labels, to train with and to test with."""
    if DATA.value is None:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    else:
        with np.load(DATA.value) as file:
            x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (images[..., np.newaxis].astype("float32") / 255 for images in (x, x_test))
    return (x[: IMAGES.value], y[: IMAGES.value]), (x_test, y_test)


def fit(model: keras.Model, train: tuple[np.ndarray, np.ndarray], callbacks: list[keras.callbacks.Callback]) -> None:
    """Trains with a fresh optimizer."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(*train, batch_size=BATCH, epochs=EPOCHS.value, callbacks=callbacks, verbose=0)


def measure_error(model: keras.Model, test: tuple[np.ndarray, np.ndarray]) -> float:
    """The fraction of images that a model gets wrong."""
    return 1 - model.evaluate(*test, batch_size=500, verbose=0)[1]


def prune_and_train(
    trained: keras.Model, method: str, sparsity: float, seed: int, train: tuple[np.ndarray, np.ndarray]
) -> tuple[keras.Model, tf_lap.PruningReport]:
    """Prunes a copy of a trained model gradually, and returns it with the report."""
    keras.utils.set_random_seed(seed + 1000)
    model = network()
    model.set_weights(trained.get_weights())
    pruning = tf_lap.LAPCallback(sparsity, score=method, allocation="uniform")
    fit(model, train, [pruning])
    return model, pruning.report


def compare(seed: int, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """The errors of one seed."""
    keras.utils.set_random_seed(seed)
    dense = network()
    fit(dense, train, [])
    errors: dict[str, Any] = {"seed": seed, "dense": measure_error(dense, test), "pruned": []}
    print(f"seed {seed}: dense {errors['dense']:.2%}", flush=True)
    for sparsity in map(float, SPARSITIES.value):
        for method in METHODS.value:
            model, report = prune_and_train(dense, method, sparsity, seed, train)
            error = measure_error(model, test)
            counts = {"weights": report.weights, "zeros": report.zeros}
            errors["pruned"].append({"sparsity": sparsity, "method": method, "error": error, **counts})
            print(f"seed {seed}: {sparsity:.1%} {method} {error:.2%}", flush=True)
    return errors


def format_spread(errors: Sequence[float]) -> str:
    """The mean, and the least and the most."""
    return f"{statistics.mean(errors):.2%} ({min(errors):.2%} to {max(errors):.2%})"


def print_table(runs: Sequence[dict[str, Any]]) -> None:
    """Prints a row for each sparsity: the test error of each method, over all seeds."""
    print(f"{'sparsity':10}" + "".join(f"{method:28}" for method in METHODS.value).rstrip())
    print(f"{'none':10}{format_spread([run['dense'] for run in runs])}")
    for sparsity in map(float, SPARSITIES.value):
        cells = [
            format_spread(
                [
                    row["error"]
                    for run in runs
                    for row in run["pruned"]
                    if (row["sparsity"], row["method"]) == (sparsity, method)
                ]
            )
            for method in METHODS.value
        ]
        print(f"{sparsity:<10.1%}" + "".join(f"{cell:28}" for cell in cells).rstrip())


def main(argv: list[str]) -> None:
    """Trains and prunes for each seed, prints a table, and writes all errors."""
    del argv
    train, test = load_mnist()
    runs = [compare(seed, train, test) for seed in range(SEEDS.value)]
    print_table(runs)
    if OUTPUT.value:
        settings = {"epochs": EPOCHS.value, "images": len(train[0]), "batch_size": BATCH, "optimizer": "Adam, 0.001"}
        versions = {"tf_lap": tf_lap.__version__, "keras": keras.__version__}
        result = {"settings": settings, "versions": versions, "runs": runs}
        Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
