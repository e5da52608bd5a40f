"""Prunes a small convolutional network while it trains, and writes a TFLite file of it.

    python examples/prune_and_ship.py --sparsity=0.9 --output=digits.tflite

Needs scikit-learn for its handwritten digits: pip install "tf_lap[demo]".
"""

import keras
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

import tf_lap

SPARSITY = flags.DEFINE_float("sparsity", 0.9, "The fraction of zeros in each layer.")
EPOCHS = flags.DEFINE_integer("epochs", 20, "Epochs of training with pruning.", lower_bound=2)
OUTPUT = flags.DEFINE_string("output", "digits.tflite", "Where to write the TFLite file.")


def network() -> keras.Model:
    """A residual network for images of 8 by 8 pixels."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x + y)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def main(argv: list[str]) -> None:
    """Trains and prunes a model, prints the report, and writes the TFLite file."""
    del argv
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    steps = EPOCHS.value * -(-1297 // 32)
    # Two thirds of the training for pruning, the rest for fine-tuning at full sparsity.
    schedule = tf_lap.LookaheadPruningSchedule(SPARSITY.value, end_step=2 * steps // 3, frequency=20)
    pruning = tf_lap.LAPCallback(schedule)
    model.fit(images[500:], labels[500:], batch_size=32, epochs=EPOCHS.value, callbacks=[pruning], verbose=2)
    print(pruning.report)
    print(f"test accuracy: {model.evaluate(images[:500], labels[:500], verbose=0)[1]:.3f}")
    print(tf_lap.export_tflite(model, OUTPUT.value, representative_dataset=images))


if __name__ == "__main__":
    app.run(main)
