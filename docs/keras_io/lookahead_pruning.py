"""
Title: Prune, shrink and ship a Keras model with lookahead pruning
Author: The tf_lap contributors
Date created: 2026/11/28
Last modified: 2026/11/28
Description: Train a network on MNIST, halve its multiply-accumulates, zero most of its weights, write a TFLite file.
Accelerator: None
"""

"""
## Introduction

Pruning removes weights from a trained network. *Magnitude* pruning removes the smallest ones of each layer.
*Lookahead* pruning ([Park et al., ICLR 2020](https://openreview.net/forum?id=ryl3ygHYDB)) also looks at the layers
before and after: a weight counts as `|w|` times the norm of what feeds its input channel, times the norm of what reads
its output channel.

This guide goes the whole way with [tf_lap](../index.md), on the TensorFlow backend of Keras 3:

1. train a dense network,
2. prune whole channels while it trains on, and *shrink* it to a smaller plain Keras model,
3. prune single weights of the smaller model, and fine-tune it,
4. export it to TFLite, checked against the Keras model.
"""

"""
## Setup

```shell
pip install "tf-lap[demo]"
```
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tf_lap
from keras import layers

keras.utils.set_random_seed(0)

"""
## Data

The first 12,000 images of MNIST are enough here. Where the environment variable `TF_LAP_MNIST` names an npz file in
the layout of `keras.datasets.mnist`, nothing is downloaded.
"""

path = os.environ.get("TF_LAP_MNIST")
if path:
    with np.load(path) as file:
        x_train, y_train = file["x_train"], file["y_train"]
        x_test, y_test = file["x_test"], file["y_test"]
else:
    (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()

x_train = x_train[:12000, ..., np.newaxis].astype("float32") / 255
y_train = y_train[:12000]
x_test = x_test[..., np.newaxis].astype("float32") / 255
print(len(x_train), "images to train with,", len(x_test), "to test with")

"""
## A dense network

Two convolutions and a residual block, so that channels are coupled: what the stem and the block put out is added up,
and a channel of the one can only go together with that of the other.
"""

inputs = keras.Input((28, 28, 1))
x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
block = layers.Conv2D(64, 3, padding="same", activation="relu", name="widen")(x)
block = layers.Conv2D(32, 3, padding="same", name="narrow")(block)
x = layers.ReLU()(layers.Add()([x, block]))
x = layers.Flatten()(layers.MaxPooling2D(2)(x))
x = layers.Dense(128, activation="relu", name="hidden")(x)
model = keras.Model(inputs, layers.Dense(10, name="head")(x), name="digits")


def compile_model(model, learning_rate):
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def measure_accuracy(model):
    return model.evaluate(x_test, y_test, batch_size=256, verbose=0)[1]


compile_model(model, 1e-3)
model.fit(x_train, y_train, batch_size=64, epochs=3, verbose=0)
dense_accuracy = measure_accuracy(model)
dense_cost = tf_lap.cost(model)
print(f"right: {dense_accuracy:.1%}; {dense_cost.weights:,} weights, {dense_cost.macs:,} multiply-accumulates")

"""
## Which channels go together

`channel_groups` finds them. A group that is blocked stays whole, and says why: the outputs of the head are those of
the network.
"""

for group in tf_lap.channel_groups(model).values():
    print(group.name, group.width, group.producers, group.blocked or "can be pruned")

"""
## Prune channels, and shrink

`fit_budget` finds how many channels each group may keep so that half of the multiply-accumulates stay, here in
multiples of 8. `LAPCallback` prunes them step by step while the network trains on. Up to here the network has its full
size: what is pruned is zero. `shrink` makes the smaller network. It is plain Keras, and compiled as the model is.
"""

channels = tf_lap.patterns.Channels(round_to=8)
budget = tf_lap.Pruner(model, pattern=channels).fit_budget({"macs": 0.5})
compile_model(model, 5e-4)
pruning = tf_lap.LAPCallback(budget, pattern=channels)
model.fit(x_train, y_train, batch_size=64, epochs=3, callbacks=[pruning], verbose=0)
print(pruning.report.channels.summary)

small = tf_lap.shrink(model)
small_accuracy = measure_accuracy(small)
small_cost = tf_lap.cost(small)
print(f"right: {small_accuracy:.1%}; {small_cost.weights:,} weights, {small_cost.macs:,} multiply-accumulates")

"""
## Prune weights, and fine-tune

Now 80% of the weights that are left, in blocks of four inputs of one output, the shape that TFLite multiplies without
its zeros in Dense layers. A second fit fine-tunes. `PreserveSparsity` keeps the zeros; without it the optimizer would
train them away.
"""

compile_model(small, 5e-4)
pruning = tf_lap.LAPCallback(0.8, pattern="block:1x4")
small.fit(x_train, y_train, batch_size=64, epochs=3, callbacks=[pruning], verbose=0)
print(pruning.report)

compile_model(small, 1e-4)
small.fit(x_train, y_train, batch_size=64, epochs=1, callbacks=[tf_lap.PreserveSparsity()], verbose=0)
sparse_accuracy = measure_accuracy(small)
print(f"right: {sparse_accuracy:.1%}")

"""
The layers, and how many of their weights are zero:
"""

tf_lap.plot_sparsity(pruning.report)

"""
## Export

`export_tflite` converts the model, runs the file, and compares it with Keras before it puts it at its path. With
`sparse=True` zeros are left out of the file. By default that is measured, and done where the file does not get slower
by more than a fifth. `report.gain` says in a line how much smaller the file is, and how fast.
"""

small.save("digits.keras")
report = tf_lap.export_tflite(
    small, "digits.tflite", representative_dataset=x_train[:256], batch_size=1, sparse=True, verbose=0
)
print(f"dense weights: {dense_cost.bytes:,} bytes; digits.tflite: {report.file_bytes:,} bytes")

"""
## What was gained

One run, one seed. The networks further down have trained for longer, too.
"""

print(f"{'network':8} {'right':>7} {'weights':>9} {'not zero':>9} {'multiply-accumulates':>20}")
sparse_cost = tf_lap.cost(small)
for name, accuracy, cost in (
    ("dense", dense_accuracy, dense_cost),
    ("small", small_accuracy, small_cost),
    ("sparse", sparse_accuracy, sparse_cost),
):
    print(f"{name:8} {accuracy:7.1%} {cost.weights:9,} {cost.nonzero:9,} {cost.macs:20,}")

"""
## Where to go on

- [Early stopping and checkpoints](../guides/checkpoints.md) in the second fit.
- [What to take](../choosing.md): which score, allocation and repair.
- [Channels and shrink](../guides/channels.md), and [pruning without training](../guides/repair.md).
- [TFLite](../export.md), and [what is fast on phones and in browsers](../devices.md).
"""
