"""tfmot's pruning of a small convolutional network for MNIST, and the same with lookahead: a single name changes.

    python examples/tfmot_migration.py --data=mnist.npz

The pipeline is that of tfmot's guide "Pruning in Keras example": train, wrap, fine-tune with UpdatePruningStep, strip,
convert, compress. It runs twice on the same trained network, with `prune_low_magnitude` and with `prune_lookahead`.
Without --data, the file comes from tf_keras.datasets.
"""

import gzip
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from absl import app, flags

import tf_lap

DATA = flags.DEFINE_string("data", None, "An npz file in the layout of tf_keras.datasets.mnist.")
SPARSITY = flags.DEFINE_float("sparsity", 0.8, "The fraction of zeros in each layer.", 0.5, 1.0)
EPOCHS = flags.DEFINE_integer("epochs", 4, "Epochs of training before pruning, and again while pruning.", 1)
IMAGES = flags.DEFINE_integer("images", 60000, "How many images to train with.", 1000)

BATCH = 128
BEFORE = tfmot.sparsity.keras.prune_low_magnitude
AFTER = tf_lap.prune_lookahead


def network() -> tf_keras.Model:
    """The network of tfmot's guide."""
    return tf_keras.Sequential(
        [
            tf_keras.layers.InputLayer(input_shape=(28, 28)),
            tf_keras.layers.Reshape((28, 28, 1)),
            tf_keras.layers.Conv2D(12, 3, activation="relu"),
            tf_keras.layers.MaxPooling2D(),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(10),
        ]
    )


def load_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images in [0, 1] and labels, to train with and to test with."""
    if DATA.value is None:
        (x, y), (x_test, y_test) = tf_keras.datasets.mnist.load_data()
    else:
        with np.load(DATA.value) as file:
            x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return (x[: IMAGES.value] / 255.0, y[: IMAGES.value]), (x_test / 255.0, y_test)


def compile_model(model: tf_keras.Model) -> tf_keras.Model:
    """Compiles with the same optimizer and loss for all models."""
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(), loss, metrics=["accuracy"])
    return model


def prune_and_train(
    prune: Callable[..., Any], trained: tf_keras.Model, train: tuple[np.ndarray, np.ndarray]
) -> tf_keras.Model:
    """Runs tfmot's pipeline with a function that wraps a model for pruning."""
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    steps = -(-len(train[0]) // BATCH) * EPOCHS.value
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.5, SPARSITY.value, begin_step=0, end_step=steps // 2, frequency=max(1, steps // 40)
    )
    model = compile_model(prune(model, pruning_schedule=schedule))
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.fit(*train, batch_size=BATCH, epochs=EPOCHS.value, callbacks=callbacks, verbose=0)
    return compile_model(tfmot.sparsity.keras.strip_pruning(model))


def print_row(name: str, model: tf_keras.Model, test: tuple[np.ndarray, np.ndarray]) -> None:
    """Prints the zeros, the size of the TFLite file and the accuracy of a model."""
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    zeros = 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels)
    file = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    accuracy = model.evaluate(*test, verbose=0)[1]
    print(f"{name:20} {zeros:8.2%} {len(file):12,} {len(gzip.compress(file)):12,} {accuracy:10.2%}")


def main(argv: list[str]) -> None:
    """Trains once, prunes twice, prints a table."""
    del argv
    train, test = load_mnist()
    tf_keras.utils.set_random_seed(0)
    trained = compile_model(network())
    trained.fit(*train, batch_size=BATCH, epochs=EPOCHS.value, verbose=0)
    rows = {"dense": trained}
    for prune in (BEFORE, AFTER):
        rows[prune.__name__] = prune_and_train(prune, trained, train)
    print(f"{'':20} {'zeros':>8} {'TFLite bytes':>12} {'gzipped':>12} {'accuracy':>10}")
    for name, model in rows.items():
        print_row(name, model, test)


if __name__ == "__main__":
    app.run(main)
