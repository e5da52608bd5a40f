"""Training a network for a number of steps, and the fraction of test images that it gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

BATCH_SIZE = 60
# How many steps Keras runs in a call of the compiled loop. More do not run faster.
_STEPS_PER_EXECUTION = 50
_IMAGES_PER_CALL = 1000

Prepare = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Makes what the network is trained with from a batch of images and a seed of two whole numbers."""


def make_batches(
    x: np.ndarray, y: np.ndarray, steps: int, seed: Sequence[int], prepare: Prepare | None = None
) -> tf.data.Dataset:
    """Batches of images and labels, one for each step. The training set is shuffled anew each time it is used up.

    Args:
        x: the images, `(images, ...)`.
        y: their labels, `(images,)`.
        steps: how many batches.
        seed: whole numbers, which settle the order.
        prepare: what is done to each batch of images.
    """
    images, labels = tf.constant(x), tf.constant(y)
    generator, count = np.random.default_rng(seed), steps * BATCH_SIZE
    order = np.concatenate([generator.permutation(len(x)) for _ in range(-(-count // len(x)))])[:count]
    stream = tf.constant(np.random.SeedSequence(seed).generate_state(1)[0], tf.int64)

    def gather_batch(step: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.gather(images, indices)
        if prepare is not None:
            batch = prepare(batch, tf.stack([stream, step]))
        return batch, tf.gather(labels, indices)

    indices = tf.data.Dataset.from_tensor_slices(order.reshape(steps, BATCH_SIZE)).enumerate()
    return indices.map(gather_batch).prefetch(8)


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
        # At least a few calls in each training: TensorFlow warns of a function that it traces in most of its calls.
        steps_per_execution=max(1, min(_STEPS_PER_EXECUTION, len(data) // 4)),
        # Trainings are short, so compiling would take longer than it saves.
        jit_compile=False,
    )
    model.fit(data, shuffle=False, callbacks=list(callbacks), verbose=0)
    return model.get_weights()


def measure_error(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """The fraction of images that the model gets wrong."""
    outputs = [model(x[i : i + _IMAGES_PER_CALL], training=False) for i in range(0, len(x), _IMAGES_PER_CALL)]
    return float(np.mean(np.argmax(np.concatenate(outputs), axis=-1) != y))
