"""Rules that only move channels, against the move itself.

A move is carried out on real numbers: with ones in one channel of its input and zeros elsewhere, its output shows where
that channel goes. A kernel reads a channel of the output at all its positions, whose mean energy counts.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
ops = keras.ops

UNITS, STEPS, IMAGE = (12,), (6, 8), (4, 4, 8)

# Moves by keras.ops and layers of Keras 3, and by functions of tf and layers of tf_keras, with the shape that is moved.
MOVES = {
    "Reshape to an image": (UNITS, keras.layers.Reshape((2, 2, 3)), tf_keras.layers.Reshape((2, 2, 3))),
    "Reshape to an image of one channel": (
        UNITS,
        keras.layers.Reshape((3, 4, 1)),
        tf_keras.layers.Reshape((3, 4, 1)),
    ),
    "Reshape and back": (
        UNITS,
        lambda x: ops.reshape(ops.reshape(x, (-1, 2, 6)), (-1, 12)),
        lambda x: tf.reshape(tf.reshape(x, (-1, 2, 6)), (-1, 12)),
    ),
    "Reshape, transposed": (
        UNITS,
        lambda x: ops.transpose(ops.reshape(x, (-1, 3, 4)), (0, 2, 1)),
        lambda x: tf.transpose(tf.reshape(x, (-1, 3, 4)), (0, 2, 1)),
    ),
    "Reshape, transposed, flattened": (
        UNITS,
        lambda x: ops.reshape(ops.transpose(ops.reshape(x, (-1, 3, 4)), (0, 2, 1)), (-1, 12)),
        lambda x: tf.reshape(tf.transpose(tf.reshape(x, (-1, 3, 4)), (0, 2, 1)), (-1, 12)),
    ),
    "Reshape by a symbolic shape": (
        UNITS,
        lambda x: ops.reshape(x, (-1, 2, 6)),
        lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], 2, 6])),
    ),
    "channels split in heads": (
        STEPS,
        lambda x: ops.reshape(x, (-1, 6, 2, 4)),
        lambda x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], 2, 4]),
    ),
    "channels split in heads and joined": (
        STEPS,
        lambda x: ops.reshape(ops.transpose(ops.reshape(x, (-1, 6, 2, 4)), (0, 1, 3, 2)), (-1, 6, 8)),
        lambda x: tf.reshape(tf.transpose(tf.reshape(x, (-1, 6, 2, 4)), (0, 1, 3, 2)), (-1, 6, 8)),
    ),
    "Flatten": (IMAGE, keras.layers.Flatten(), tf_keras.layers.Flatten()),
    "first half": (STEPS, lambda x: x[..., :4], lambda x: x[..., :4]),
    "every second, backwards": (STEPS, lambda x: x[:, :, 6:0:-2], lambda x: x[:, :, 6:0:-2]),
    "one step": (STEPS, lambda x: x[:, 0], lambda x: x[:, 0]),
    "one step, from the end": (STEPS, lambda x: x[:, -1, 2:5], lambda x: x[:, -1, 2:5]),
    "one channel": (STEPS, lambda x: x[..., 3:4], lambda x: x[..., 3:4]),
    "a new axis": (STEPS, lambda x: x[:, None, 1:3], lambda x: x[:, tf.newaxis, 1:3]),
    "slice of units": (
        UNITS,
        lambda x: ops.reshape(x, (-1, 3, 4))[:, 1:, ::2],
        lambda x: tf.reshape(x, (-1, 3, 4))[:, 1:, ::2],
    ),
    "one place of units": (
        UNITS,
        lambda x: ops.reshape(x, (-1, 3, 4))[:, 1],
        lambda x: tf.reshape(x, (-1, 3, 4))[:, 1],
    ),
    "slice": (
        STEPS,
        lambda x: ops.slice(x, (0, 2, 3), (1, 2, 4)),
        lambda x: tf.slice(x, (0, 2, 3), (-1, 2, 4)),
    ),
    "split in equal parts": (STEPS, lambda x: ops.split(x, 2, axis=-1)[1], lambda x: tf.split(x, 2, axis=-1)[1]),
    "split in others": (STEPS, lambda x: ops.split(x, [1, 4], axis=2)[1], lambda x: tf.split(x, [1, 3, 4], 2)[1]),
    "split of steps": (STEPS, lambda x: ops.split(x, 3, axis=1)[2], lambda x: tf.split(x, 3, 1)[2]),
    "array_split": (STEPS, lambda x: ops.array_split(x, 3, axis=-1)[0], lambda x: tf.split(x, [3, 3, 2], -1)[0]),
    "split and joined again": (
        STEPS,
        lambda x: ops.concatenate(ops.split(x, 4, axis=-1)[::-1], axis=-1),
        lambda x: tf.concat(tf.split(x, 4, axis=-1)[::-1], axis=-1),
    ),
    "unstack": (STEPS, lambda x: ops.unstack(x, axis=1)[2], lambda x: tf.unstack(x, axis=1)[2]),
    "unstack of channels": (
        STEPS,
        lambda x: ops.expand_dims(ops.unstack(x, axis=2)[5], -1),
        lambda x: tf.expand_dims(tf.unstack(x, axis=2)[5], -1),
    ),
    "stack": (STEPS, lambda x: ops.stack([x, 3.0 * x], axis=1), lambda x: tf.stack([x, 3.0 * x], axis=1)),
    "stack behind the channels": (
        UNITS,
        lambda x: ops.stack([x, 3.0 * x], axis=-1),
        lambda x: tf.stack([x, 3.0 * x], axis=-1),
    ),
    "stack, flattened": (
        UNITS,
        lambda x: ops.reshape(ops.stack([x, 3.0 * x], axis=1), (-1, 24)),
        lambda x: tf.reshape(tf.stack([x, 3.0 * x], axis=1), (-1, 24)),
    ),
    "pad": (STEPS, lambda x: ops.pad(x, ((0, 0), (0, 0), (1, 2))), lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 2]])),
    "swapaxes": (
        STEPS,
        lambda x: ops.swapaxes(ops.swapaxes(x, 1, 2)[:, 2:], -1, 1),
        lambda x: tf.transpose(tf.transpose(x, (0, 2, 1))[:, 2:], (0, 2, 1)),
    ),
    "moveaxis": (
        IMAGE,
        lambda x: ops.moveaxis(ops.moveaxis(x, -1, 1)[:, 2:], (1,), (-1,)),
        lambda x: tf.transpose(tf.transpose(x, (0, 3, 1, 2))[:, 2:], (0, 2, 3, 1)),
    ),
    "squeeze and expand_dims": (
        STEPS,
        lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
        lambda x: tf.squeeze(tf.expand_dims(x, 2), [2]),
    ),
    "depth_to_space": (IMAGE, lambda x: ops.depth_to_space(x, 2), lambda x: tf.nn.depth_to_space(x, 2)),
    "depth_to_space of units": (
        UNITS,
        lambda x: ops.depth_to_space(ops.reshape(x, (-1, 1, 1, 12)), 2),
        lambda x: tf.nn.depth_to_space(tf.reshape(x, (-1, 1, 1, 12)), 2),
    ),
    "space_to_depth": (IMAGE, lambda x: ops.space_to_depth(x, 2), lambda x: tf.nn.space_to_depth(x, 2)),
    "concatenation of images made of units": (
        UNITS,
        lambda x: ops.concatenate([ops.reshape(x, (-1, 3, 4)), 2.0 * ops.reshape(x, (-1, 3, 4))], axis=-1),
        lambda x: tf.concat([tf.reshape(x, (-1, 3, 4)), 2.0 * tf.reshape(x, (-1, 3, 4))], axis=-1),
    ),
    "a scale over an image made of units": (
        UNITS,
        lambda x: ops.reshape(x, (-1, 3, 4)) * np.arange(12, dtype="float32").reshape(3, 4),
        lambda x: tf.reshape(x, (-1, 3, 4)) * np.arange(12, dtype="float32").reshape(3, 4),
    ),
}


def skip_if_absent(library, name):
    """Skips a move by an operation that this Keras does not have."""
    operation = name.split()[0]
    missing = library is keras and operation in ("array_split", *BLOCKS) and not hasattr(ops, operation)
    return [pytest.mark.skip(reason=f"keras.ops.{operation} came later than Keras {keras.__version__}")] * missing


BLOCKS = ("depth_to_space", "space_to_depth")
CASES = [
    pytest.param(library, shape, move, id=f"{library.__name__}, {name}", marks=skip_if_absent(library, name))
    for name, (shape, *moves) in MOVES.items()
    for library, move in zip((keras, tf_keras), moves, strict=True)
]


def build_model_around(library, shape, move):
    """A model of a kernel that puts out this shape, the move, and a kernel behind; and a model of the move alone."""
    inputs = library.Input((*shape[:-1], 3))
    put = library.layers.Dense(shape[-1], use_bias=False, name="first")(inputs)
    moved = move(put)
    model = library.Model(inputs, library.layers.Dense(2, use_bias=False, name="last")(moved))
    return model, library.Model(put, moved)


def measure_table(mover, shape):
    """The energy that each channel puts into each channel behind the move: `(channels, moved channels)`."""
    rows = []
    for channel in range(shape[-1]):
        ones = np.zeros((1, *shape), np.float32)
        ones[..., channel] = 1.0
        squares = np.square(mover(ones).numpy())
        rows.append(squares.reshape(-1, squares.shape[-1]).mean(axis=0))
    return np.stack(rows)


@pytest.mark.parametrize(("library", "shape", "move"), CASES)
def test_energy_goes_where_channels_go(library, shape, move):
    model, mover = build_model_around(library, shape, move)
    around = tf_lap.neighbors(model)
    assert around["last"].previous == ("first",), around["last"].boundaries
    table, energies = measure_table(mover, shape), tf_lap.channel_energies(model)
    put = np.sum(np.square(model.get_layer("first").kernel.numpy()), axis=0)
    read = np.sum(np.square(model.get_layer("last").kernel.numpy()), axis=1)
    np.testing.assert_allclose(energies["last"].incoming, put @ table, rtol=1e-5)
    np.testing.assert_allclose(energies["first"].outgoing, table @ read, rtol=1e-5)


MIXING = {
    "channels padded with ones": (
        STEPS,
        lambda x: ops.pad(x, ((0, 0), (0, 0), (1, 2)), constant_values=1.0),
        lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 2]], constant_values=1.0),
        "pads its channels with other values than zero",
    ),
    "channels mirrored": (
        STEPS,
        lambda x: ops.pad(x, ((0, 0), (0, 0), (1, 1)), mode="reflect"),
        lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 1]], "REFLECT"),
        "pads its channels with other values than zero",
    ),
    "a stack with a constant": (
        UNITS,
        lambda x: ops.stack([x, ops.ones_like(x)], axis=1),
        lambda x: tf.stack([x, tf.ones_like(x)], axis=1),
        "stacks constants beside its inputs",
    ),
    "a concatenation with a constant": (
        STEPS,
        lambda x: ops.concatenate([x, ops.zeros_like(x)], axis=-1),
        lambda x: tf.concat([x, tf.zeros_like(x)], axis=-1),
        r"concatenates constants to the channels of its inputs: \[8\] to 16",
    ),
    "a norm over channels": (
        STEPS,
        lambda x: ops.norm(x, axis=-1, keepdims=True),
        lambda x: tf.norm(x, axis=-1, keepdims=True),
        r"reduces its channels \(axis 2\)",
    ),
}


@pytest.mark.parametrize(
    ("library", "shape", "move", "reason"),
    [
        pytest.param(library, shape, move, reason, id=f"{library.__name__}, {name}")
        for name, (shape, *moves, reason) in MIXING.items()
        for library, move in zip((keras, tf_keras), moves, strict=True)
    ],
)
def test_where_channels_do_not_stay_apart_is_a_boundary_with_its_reason(library, shape, move, reason):
    model, _ = build_model_around(library, shape, move)
    around = tf_lap.neighbors(model)
    assert around["last"].previous == ()
    (boundary,) = (text for text in around["first"].boundaries if not text.startswith("network input"))
    assert re.search(reason, boundary), boundary
