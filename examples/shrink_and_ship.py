"""Removes channels from a network while it trains, shrinks it, fine-tunes it, and writes TFLite files of both.

    python examples/shrink_and_ship.py --data=cifar10.npz --output=shrunk

A network of depthwise-separable blocks, as in MobileNetV2, with half of its multiply-accumulates. Trains on CIFAR-10 in
an npz file with x_train, y_train, x_test and y_test, as `tf-lap reproduce` reads it, or on scikit-learn's handwritten
digits where no file is given. Needs scikit-learn for them, and the LiteRT interpreter: pip install "tf_lap[demo]".
"""

import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

import tf_lap
from tf_lap.reproduce import experiments

DATA = flags.DEFINE_string("data", None, "CIFAR-10 as an npz file. Without it: scikit-learn's digits.")
IMAGES = flags.DEFINE_integer("images", 20_000, "How many images to train on, at most.", 1)
EPOCHS = flags.DEFINE_integer("epochs", 6, "Epochs of training, again of pruning, and of fine-tuning.", 1)
BUDGET = flags.DEFINE_float("budget", 0.5, "The share of the multiply-accumulates that stays.")
OUTPUT = flags.DEFINE_string("output", "shrunk", "The folder for the TFLite files.")

BATCH = 64
layers = keras.layers


class Images(NamedTuple):
    """Images and labels, to train and to test with."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load() -> Images:
    """The images, in float32."""
    if DATA.value is None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = (images.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)
        return Images(images[500:], labels[500:], images[:500], labels[:500])
    experiment = experiments.cifar10(Path(DATA.value), "conv6", 1.0)
    arrays, count = experiment.arrays, IMAGES.value
    x = np.asarray(experiment.plain(arrays["x_train"][:count]))
    return Images(x, arrays["y_train"][:count], arrays["x_test"], arrays["y_test"])


def network(shape: tuple[int, ...]) -> keras.Model:
    """Inverted residual blocks: 1x1 up, depthwise, 1x1 down, and added to the stream."""

    def normalize(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(shape)
    x = layers.ReLU()(normalize(layers.Conv2D(24, 3, padding="same", use_bias=False)(inputs)))
    for channels, strides in ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1)):
        y = layers.ReLU()(normalize(layers.Conv2D(3 * x.shape[-1], 1, use_bias=False)(x)))
        y = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(y)
        y = normalize(layers.Conv2D(channels, 1, use_bias=False)(layers.ReLU()(normalize(y))))
        x = layers.Add()([x, y]) if y.shape == x.shape else y
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def fit(model: keras.Model, images: Images, rate: float, callbacks: list[keras.callbacks.Callback]) -> None:
    """Trains with a learning rate that falls to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, EPOCHS.value * -(-len(images.x) // BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(images.x, images.y, BATCH, EPOCHS.value, callbacks=callbacks, verbose=0)


class Measured(NamedTuple):
    """How a file does: the fraction of test images that are right, and the milliseconds that one takes."""

    right: float
    milliseconds: float


def measure(file: Path, images: Images) -> Measured:
    """Runs a file on the test images, one at a time, in one thread."""
    runner = Interpreter(model_path=str(file), num_threads=1).get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    answers, times = [], []
    for image in images.x_test[:1000]:
        start = time.perf_counter()
        (answer,) = runner(**{name: image[np.newaxis]}).values()
        times.append(time.perf_counter() - start)
        answers.append(np.argmax(answer))
    return Measured(float(np.mean(answers == images.y_test[: len(answers)])), 1000 * float(np.median(times)))


def main(argv: list[str]) -> None:
    """Trains, prunes, shrinks, fine-tunes and exports, and prints a table."""
    del argv
    keras.utils.set_random_seed(0)
    images = load()
    dense = network(images.x.shape[1:])
    fit(dense, images, 3e-3, [])

    pruned = keras.models.clone_model(dense)
    pruned.set_weights(dense.get_weights())
    # Which share of its channels each layer loses, so that the budget is kept.
    sparsities = tf_lap.Pruner(pruned, pattern="channels").fit_budget({"macs": BUDGET.value})
    steps = EPOCHS.value * -(-len(images.x) // BATCH)
    schedule = tf_lap.LookaheadPruningSchedule(sparsities, end_step=steps * 2 // 3, frequency=20)
    pruning = tf_lap.LAPCallback(schedule, pattern="channels")
    fit(pruned, images, 1e-3, [pruning])
    print(pruning.report.channels.summary)

    small = tf_lap.shrink(pruned)
    fit(small, images, 1e-3, [])

    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    print(f"{'file':22} {'weights':>9} {'multiplications':>15} {'bytes':>9} {'milliseconds':>12} {'right':>7}")
    for name, model in (("dense", dense), ("shrunk", small)):
        cost = tf_lap.cost(model)
        for quantization in (None, "int8"):
            file = output / f"{name}_{quantization or 'float32'}.tflite"
            report = tf_lap.export_tflite(
                model, file, quantization=quantization, representative_dataset=images.x[:500], sparse=False, verbose=0
            )
            right, milliseconds = measure(file, images)
            sizes = f"{cost.weights:9,} {cost.macs:15,} {report.file_bytes:9,}"
            print(f"{file.name:22} {sizes} {milliseconds:12.3f} {right:7.1%}")


if __name__ == "__main__":
    app.run(main)
