"""Trains a network of depthwise-separable blocks on CIFAR-10, prunes its 1x1 kernels, and writes both for a browser.

    python examples/browser/train.py --data=cifar10.npz
    npm ci --prefix examples/browser
    python -m http.server --directory examples/browser    # then open the address that it prints

The page runs both files side by side. The data is an npz file with x_train, y_train, x_test and y_test, as
`tf-lap reproduce` reads it; without --data it is the one that TF_LAP_CIFAR10 names.
"""

import base64
import json
import os
from pathlib import Path

import keras
import numpy as np
from absl import app, flags

import tf_lap
from tf_lap.reproduce import experiments

DATA = flags.DEFINE_string("data", os.environ.get("TF_LAP_CIFAR10"), "CIFAR-10 as an npz file.")
SPARSITY = flags.DEFINE_float("sparsity", 0.9, "The fraction of the weights of 1x1 convolutions that go.")
EPOCHS = flags.DEFINE_integer("epochs", 8, "Epochs of training, and as many again with pruning and without.", 1)
QUICK = flags.DEFINE_bool("quick", False, "Few images and one epoch each, to see that it runs.")
OUTPUT = flags.DEFINE_string("output", str(Path(__file__).parent / "files"), "The folder that the page reads.")

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHOWN = 24
BATCH = 64
layers = keras.layers


def network() -> keras.Model:
    """What XNNPACK runs sparse: a 3x3 stem padded on every side, depthwise and 1x1 convolutions, a mean."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.ZeroPadding2D(1)(layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    x = layers.Conv2D(32, 3, strides=2, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for channels, stride in ((64, 1), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1)):
        x = layers.ZeroPadding2D(1)(x)
        x = layers.DepthwiseConv2D(3, strides=stride, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(channels, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    model = keras.Model(inputs, layers.Dense(len(CLASSES))(layers.GlobalAveragePooling2D()(x)))
    compile_model(model)
    return model


def compile_model(model: keras.Model) -> None:
    """Sets the loss and the optimizer."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])


def main(arguments: list[str]) -> None:
    """Trains, prunes and writes."""
    del arguments
    if DATA.value is None:
        raise app.UsageError("pass --data=FILE, or name the file in the variable TF_LAP_CIFAR10")
    images, held_back, epochs = (200, 100, 1) if QUICK.value else (20_000, 2_000, EPOCHS.value)
    arrays = experiments.cifar10(Path(DATA.value), "conv6", 1.0).arrays
    x, y = arrays["x_train"][:images].astype(np.float32), arrays["y_train"][:images]
    x_test, y_test = arrays["x_train"][-held_back:], arrays["y_train"][-held_back:]
    keras.utils.set_random_seed(0)
    dense = network()
    dense.fit(x, y, BATCH, epochs, verbose=2)
    sparse = keras.models.clone_model(dense)
    sparse.set_weights(dense.get_weights())
    compile_model(sparse)
    pruning = tf_lap.LAPCallback(SPARSITY.value, filters="xnnpack")
    sparse.fit(x, y, BATCH, epochs, verbose=2, callbacks=[pruning])
    dense.fit(x, y, BATCH, epochs, verbose=2)

    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, model in (("dense", dense), ("sparse", sparse)):
        report = tf_lap.export_tflite(model, folder / f"{name}.tflite", sparse=name == "sparse", batch_size=1)
        right = model.evaluate(x_test.astype(np.float32), y_test, verbose=0)[1]
        described[name] = {"bytes": report.file_bytes, "right": right, "tested": held_back}
        print(f"{name}: {right:.1%} of {held_back} images right, {report.file_bytes:,} bytes; {report.gain}")
    shown = [
        {"label": CLASSES[label], "pixels": base64.b64encode(image.astype(np.uint8).tobytes()).decode()}
        for image, label in zip(x_test[:SHOWN], y_test[:SHOWN], strict=True)
    ]
    what = {"classes": CLASSES, "sparsity": SPARSITY.value, "networks": described, "images": shown}
    (folder / "shown.json").write_text(json.dumps(what), encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
