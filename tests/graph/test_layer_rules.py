"""Each rule, as the factor that it puts on the energy of each channel."""

import re

import keras
import numpy as np
import pytest

import tf_lap

layers, ops = keras.layers, keras.ops
CHANNELS = 4
SCALE = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


def build_layer(layer, shape=(None, 6, 6, CHANNELS), **values):
    layer.build(shape)
    for name, value in values.items():
        getattr(layer, name).assign(np.broadcast_to(value, getattr(layer, name).shape))
    return layer


def make_normalization(**arguments):
    return layers.Normalization(mean=np.zeros(CHANNELS), variance=SCALE, **arguments)


def epsilon(value):
    return 1 / (SCALE + value)


UNCHANGED = [
    layers.Activation("gelu"),
    layers.PReLU(),
    layers.Softmax(),
    layers.Dropout(0.5),
    layers.SpatialDropout2D(0.5),
    layers.GaussianNoise(0.1),
    layers.MaxPooling2D(),
    layers.AveragePooling2D(2),
    layers.ZeroPadding2D(1),
    layers.Cropping2D(1),
    layers.UpSampling2D(),
    layers.Resizing(3, 3),
    layers.RandomFlip(),
    layers.UnitNormalization(),
    layers.LayerNormalization(scale=False),
    layers.GroupNormalization(2, scale=False),
    layers.BatchNormalization(scale=False, epsilon=0.0),
    layers.GlobalAveragePooling2D(),
    layers.GlobalMaxPooling2D(keepdims=True),
    layers.Reshape((36, CHANNELS)),
    ops.relu,
    ops.silu,
    ops.tanh,
    ops.abs,
    ops.negative,
    ops.stop_gradient,
    lambda x: ops.cast(x, "float32"),
    lambda x: ops.clip(x, 0.0, 6.0),
    lambda x: ops.mean(x, axis=(1, 2)),
    lambda x: ops.max(x, axis=1, keepdims=True),
    lambda x: ops.sum(x, axis=1),
    lambda x: ops.expand_dims(x, 1),
    lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
    lambda x: ops.reshape(x, (-1, 36, CHANNELS)),
    lambda x: ops.transpose(ops.transpose(x, (0, 3, 1, 2)), (0, 2, 3, 1)),
    lambda x: ops.maximum(x, 0.0),
    lambda x: x + 1.0,
    lambda x: 1.0 - x,
    lambda x: ops.where(x > 0, x, 0.0),
    lambda x: x * ops.cast(x > 0, "float32"),
    lambda x: x + ops.zeros_like(x),
    lambda x: x**2,
    lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
    lambda x: ops.normalize(x, axis=-1),
    lambda x: ops.norm(x, axis=(1, 2)),
    lambda x: ops.max_pool(x, 2),
    lambda x: layers.RepeatVector(3)(layers.GlobalAveragePooling2D()(x)),
]

SCALED = [
    (build_layer(layers.BatchNormalization(), gamma=SCALE, moving_variance=SCALE), SCALE**2 * epsilon(1e-3)),
    (build_layer(layers.BatchNormalization(epsilon=0.5), moving_variance=SCALE), epsilon(0.5)),
    (build_layer(layers.LayerNormalization(), gamma=SCALE), SCALE**2),
    (build_layer(layers.LayerNormalization(axis=[1, 2, 3]), gamma=SCALE), SCALE**2),
    (build_layer(layers.LayerNormalization(rms_scaling=True), gamma=SCALE), SCALE**2),
    (build_layer(layers.GroupNormalization(2), gamma=SCALE), SCALE**2),
    pytest.param(
        lambda x: build_layer(layers.RMSNormalization(), scale=SCALE)(x),
        SCALE**2,
        marks=pytest.mark.skipif(not hasattr(layers, "RMSNormalization"), reason="this Keras has no RMSNormalization"),
    ),
    (layers.Rescaling(0.5), 0.25 * np.ones(CHANNELS)),
    (layers.Rescaling(list(SCALE), offset=1.0), SCALE**2),
    (make_normalization(), 1 / SCALE),
    (make_normalization(invert=True), SCALE),
    (lambda x: x * 3.0, 9 * np.ones(CHANNELS)),
    (lambda x: 3.0 * x, 9 * np.ones(CHANNELS)),
    (lambda x: x * SCALE, SCALE**2),
    (lambda x: x * keras.Variable(SCALE), SCALE**2),
    (lambda x: ops.multiply(ops.convert_to_tensor(SCALE), x), SCALE**2),
    (lambda x: x / 2.0, 0.25 * np.ones(CHANNELS)),
    (lambda x: x / SCALE, 1 / SCALE**2),
    (lambda x: layers.Average()([x, layers.Conv2D(CHANNELS, 1, kernel_initializer="zeros")(x)]), 0.25 * np.ones(4)),
]


def measure_factors(function):
    inputs = keras.Input((6, 6, 3))
    first = layers.Conv2D(CHANNELS, 1, name="first")
    last = layers.Dense(2, name="last")
    model = keras.Model(inputs, last(function(first(inputs))))
    assert "first" in tf_lap.neighbors(model)["last"].previous, tf_lap.neighbors(model)["last"].boundaries
    put = np.sum(first.kernel.numpy() ** 2, axis=(0, 1, 2))
    return tf_lap.channel_energies(model)["last"].incoming / put


@pytest.mark.parametrize("function", UNCHANGED, ids=lambda f: getattr(f, "name", getattr(f, "__name__", "?")))
def test_energy_passes_unchanged(function):
    np.testing.assert_allclose(measure_factors(function), np.ones(CHANNELS), rtol=1e-5)


@pytest.mark.parametrize(("function", "factor"), SCALED, ids=lambda f: getattr(f, "name", None))
def test_energy_is_scaled(function, factor):
    np.testing.assert_allclose(measure_factors(function), factor, rtol=1e-5)


MIXED = [
    (lambda x: ops.mean(x, axis=-1, keepdims=True), r"Mean '.*': reduces its channels \(axis 3\)"),
    (lambda x: ops.mean(x, axis=-1), r"reduces its channels"),
    (lambda x: 1.0 / x, "divides by a tensor of the network"),
    (lambda x: ops.cumsum(x, axis=-1), "Cumsum '.*' has no channel rule"),
    (lambda x: ops.roll(x, 1, axis=-1), "Roll '.*' has no channel rule"),
    (layers.BatchNormalization(axis=1), "normalizes axis 1, but its input carries channels on axis 3"),
    (layers.MaxPooling2D(data_format="channels_first"), "acts on channels along axis 1"),
    (layers.GlobalAveragePooling2D(data_format="channels_first"), "keeps axis 1"),
]


@pytest.mark.parametrize(("function", "reason"), MIXED)
def test_what_mixes_channels_is_a_boundary_with_its_reason(function, reason):
    inputs = keras.Input((6, 6, 3))
    x = function(layers.Conv2D(CHANNELS, 1, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    boundaries = " ".join(tf_lap.neighbors(model)["first"].boundaries)
    assert re.search(reason, boundaries), boundaries


def test_channels_on_different_axes_do_not_add_up():
    inputs = keras.Input((6, 6, 3))
    a, b = layers.Conv2D(6, 1, name="a")(inputs), layers.Conv2D(6, 1, name="b")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="last")(a + layers.Permute((3, 2, 1))(b)))
    around = tf_lap.neighbors(model)["last"]
    assert around.previous == ()
    assert "its inputs carry channels on different axes [1, 3]" in around.boundaries[0]


def test_concatenating_positions_adds_energies_up():
    inputs = keras.Input((5, 3))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Concatenate(axis=1)([a, b])))
    put = sum(np.sum(model.get_layer(n).kernel.numpy() ** 2, axis=0) for n in "ab")
    np.testing.assert_allclose(tf_lap.channel_energies(model)["last"].incoming, put, rtol=1e-6)


def test_a_constant_of_several_axes_tells_all_places_of_an_input_apart():
    scale = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    inputs = keras.Input((2, 3, 4))
    model = keras.Model(inputs, layers.Dense(5, name="dense")(layers.Flatten()(inputs * scale)))
    np.testing.assert_allclose(tf_lap.channel_energies(model)["dense"].incoming, scale.reshape(-1) ** 2)
    model = keras.Model(inputs, layers.Conv2D(5, 1, name="conv")(inputs * scale))
    expected = np.mean(scale**2, axis=(0, 1))
    np.testing.assert_allclose(tf_lap.channel_energies(model)["conv"].incoming, expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [[1, 2], [2], [1]])
@pytest.mark.parametrize("last", [lambda: layers.Conv1D(3, 2, name="last"), lambda: layers.Flatten(name="last")])
def test_a_layer_normalization_without_scale_counts_as_one_with_scale_one(axis, last):
    def energies(scale):
        inputs = keras.Input((6, 3))
        put = layers.Dense(1, name="first", kernel_initializer=keras.initializers.RandomNormal(seed=1))(inputs)
        spread = layers.LayerNormalization(axis=axis, scale=scale)(put)
        return keras.Model(inputs, last()(spread))

    pairs = [tf_lap.channel_energies(energies(scale)) for scale in (True, False)]
    np.testing.assert_allclose(pairs[0]["first"].incoming, pairs[1]["first"].incoming)
    if "last" not in pairs[0]:
        np.testing.assert_allclose(pairs[0]["first"].outgoing, pairs[1]["first"].outgoing)
    else:
        np.testing.assert_allclose(pairs[0]["last"].incoming, pairs[1]["last"].incoming)
        boundaries = [tf_lap.neighbors(energies(scale))["first"].following for scale in (True, False)]
        assert boundaries == [("last",), ("last",)]


def test_inputs_are_alike_on_every_axis():
    inputs = keras.Input((28, 28))
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(0.5)(inputs))
    model = keras.Model(inputs, layers.Conv2D(3, 3, name="conv")(x))
    np.testing.assert_allclose(tf_lap.channel_energies(model)["conv"].incoming, [0.25])
    both = keras.Input((4,)), keras.Input((3,))
    joined = layers.Concatenate()([both[0] * 2.0, both[1]])
    model = keras.Model(both, layers.Dense(2, name="dense")(joined))
    np.testing.assert_allclose(tf_lap.channel_energies(model)["dense"].incoming, [4, 4, 4, 4, 1, 1, 1])
