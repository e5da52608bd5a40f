"""Prunes a perceptron in blocks that TFLite runs fast, fine-tunes it, and exports it in every quantization.

    python examples/export_tflite.py --sparsity=0.9 --output=exported

Trains on scikit-learn's handwritten digits, or fine-tunes a model of them that --model names. Needs scikit-learn and
the LiteRT interpreter: pip install "tf_lap[demo]".
"""

from pathlib import Path

import keras
import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

import tf_lap

SPARSITY = flags.DEFINE_float("sparsity", 0.9, "The fraction of zeros in each layer.")
EPOCHS = flags.DEFINE_integer("epochs", 15, "Epochs of training, and again of pruning and fine-tuning.", 1)
WIDTH = flags.DEFINE_integer("width", 512, "Neurons in a hidden layer.", 1)
MODEL = flags.DEFINE_string("model", None, "A saved Keras model to prune in place of one trained here.")
OUTPUT = flags.DEFINE_string("output", "exported", "The folder for the TFLite files.")

QUANTIZATIONS = (None, "dynamic_range", "float16", "int8")


def network() -> keras.Model:
    """A perceptron for images of 8 by 8 pixels."""
    hidden = [keras.layers.Dense(WIDTH.value, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


def fit(model: keras.Model, x: np.ndarray, y: np.ndarray, callbacks: list[keras.callbacks.Callback]) -> None:
    """Trains with a fresh optimizer."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(x, y, batch_size=32, epochs=EPOCHS.value, callbacks=callbacks, verbose=0)


def accuracy(file: Path, x: np.ndarray, y: np.ndarray) -> float:
    """The fraction of images that a file gets right."""
    interpreter = Interpreter(model_path=str(file))
    runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    (answers,) = runner(**{name: x}).values()
    return float(np.mean(np.argmax(answers, axis=-1) == y))


def main(argv: list[str]) -> None:
    """Trains or loads a model, prunes, fine-tunes and exports it, and prints a table."""
    del argv
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    (x, y), (x_test, y_test) = (images[500:], labels[500:]), (images[:500], labels[:500])
    if MODEL.value is None:
        model = network()
        fit(model, x, y, [])
    else:
        model = keras.saving.load_model(MODEL.value)
    dense = keras.models.clone_model(model)
    dense.set_weights(model.get_weights())

    # Two thirds of the epochs prune, the rest fine-tune at full sparsity.
    schedule = tf_lap.LookaheadPruningSchedule(
        SPARSITY.value, end_step=2 * EPOCHS.value * -(-len(x) // 32) // 3, frequency=20
    )
    fit(model, x, y, [tf_lap.LAPCallback(schedule, pattern="block:1x4")])

    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    print(f"{'file':26} {'bytes':>10} {'gzipped':>10} {'milliseconds':>12} {'accuracy':>9}")
    gains = {}
    for name, exported in (("dense", dense), ("sparse", model)):
        for quantization in QUANTIZATIONS:
            file = output / f"{name}_{quantization or 'float32'}.tflite"
            report = tf_lap.export_tflite(exported, file, quantization=quantization, representative_dataset=x)
            report = report.timed()
            gains[file.name] = report.gain
            milliseconds = report.latency.file.median
            fraction_right = accuracy(file, x_test, y_test)
            size = f"{report.file_bytes:10,} {report.gzip_bytes:10,}"
            print(f"{file.name:26} {size} {milliseconds:12.4f} {fraction_right:9.1%}")
    for name, gain in gains.items():
        print(f"{name}: {gain}")


if __name__ == "__main__":
    app.run(main)
