"""Training a network for so many steps, and the fraction of test images that it gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

BATCH_SIZE = 60
# How many steps Keras runs in one call of the compiled loop; more gain no more speed.
_STEPS_PER_EXECUTION = 50
_AT_ONCE = 1000

Prepare = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From a batch of images and a seed of two numbers to what the network is trained with."""


def batches(
    x: np.ndarray, y: np.ndarray, steps: int, seed: Sequence[int], prepare: Prepare | None = None
) -> tf.data.Dataset:
    """As many batches as steps, the training set shuffled anew each time it is through; the seed settles the order.

    Args:
        x: the images.
        y: their labels.
        steps: how many batches.
        seed: whole numbers.
        prepare: what is done to each batch of images.
    """
    images, labels = tf.constant(x), tf.constant(y)
    generator, wanted = np.random.default_rng(seed), steps * BATCH_SIZE
    order = np.concatenate([generator.permutation(len(x)) for _ in range(-(-wanted // len(x)))])[:wanted]

    stream = tf.constant(np.random.SeedSequence(seed).generate_state(1)[0], tf.int64)

    def batch(step: tf.Tensor, pick: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = tf.gather(images, pick)
        if prepare is not None:
            chosen = prepare(chosen, tf.stack([stream, step]))
        return chosen, tf.gather(labels, pick)

    picks = tf.data.Dataset.from_tensor_slices(order.reshape(steps, BATCH_SIZE)).enumerate()
    return picks.map(batch).prefetch(8)


def train(
    model: keras.Model,
    weights: list[np.ndarray],
    data: tf.data.Dataset,
    learning_rate: float,
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[np.ndarray]:
    """Trains the model from these weights on, with a fresh Adam, and returns the weights it ends with."""
    model.set_weights(weights)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # A few calls for each training at least: TensorFlow warns of a function that it traces nearly every time.
        steps_per_execution=max(1, min(_STEPS_PER_EXECUTION, len(data) // 4)),
        # Trainings are many and short: compiling each takes longer than it saves.
        jit_compile=False,
    )
    model.fit(data, shuffle=False, callbacks=list(callbacks), verbose=0)
    return model.get_weights()


def error_of(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """The fraction of images that the model gets wrong."""
    parts = [model(x[i : i + _AT_ONCE], training=False) for i in range(0, len(x), _AT_ONCE)]
    return float(np.mean(np.argmax(np.concatenate(parts), axis=-1) != y))
