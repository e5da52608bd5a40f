"""Normalizations that are written out, and reductions over channels that are signals."""

import keras
import numpy as np
import pytest

import tf_lap

layers, ops = keras.layers, keras.ops


class Written(layers.Layer):
    """A layer whose call is a function of a tensor and of a scale `(channels,)`."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return self.function(x, self.scale)


def root_mean_square(x, scale):
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * scale


def root_mean_square_by_division(x, scale):
    return scale * (x / ops.sqrt(ops.maximum(ops.mean(x * x, axis=-1, keepdims=True), 1e-6)))


def variance(x, scale):
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    return centred / (ops.std(x, axis=-1, keepdims=True) + 1e-3) * scale


def squares_of_the_centred(x, scale):
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    return centred * ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + 1e-6) * scale


def build(function):
    inputs = keras.Input((6, 4))
    x = Written(function, name="norm")(layers.Dense(5, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="behind")(x))


@pytest.mark.parametrize(
    "function",
    [root_mean_square, root_mean_square_by_division, variance, squares_of_the_centred],
    ids=lambda f: f.__name__,
)
def test_a_written_out_normalization_scales_channels(function):
    model = build(function)
    before, norm, behind = (model.get_layer(name) for name in ("before", "norm", "behind"))
    put = (before.kernel.numpy() ** 2).sum(0) * norm.scale.numpy() ** 2
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["behind"].incoming, put, rtol=1e-5)
    read = (behind.kernel.numpy() ** 2).sum(1) * norm.scale.numpy() ** 2
    np.testing.assert_allclose(energies["before"].outgoing, read, rtol=1e-5)
    assert tf_lap.neighbors(model)["behind"].boundaries == ("network output 'behind'",)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, scale: x + ops.mean(x * x, axis=-1, keepdims=True),
        lambda x, scale: ops.square(x) - ops.mean(x, axis=-1, keepdims=True),
        lambda x, scale: x * ops.concatenate([ops.mean(x, axis=-1, keepdims=True), x[..., 1:]], axis=-1),
        lambda x, scale: x * ops.squeeze(ops.mean(x, axis=-1, keepdims=True), -1)[..., None],
        lambda x, scale: ops.mean(x, axis=-1, keepdims=True),
        lambda x, scale: scale / (1 + ops.mean(x, axis=-1, keepdims=True)),
    ],
    ids=["added", "taken from another tensor", "concatenated", "reshaped", "put out", "a divisor of a constant"],
)
def test_a_reduction_that_is_a_signal_is_a_boundary(function):
    boundaries = tf_lap.neighbors(build(function))["before"].boundaries
    assert any("reduces its channels (axis 2)" in reason for reason in boundaries)


class Gated(layers.Layer):
    """A kernel whose mean over positions is multiplied with another tensor."""

    def __init__(self, gated, **kwargs):
        super().__init__(**kwargs)
        self.gate, self.gated = layers.Dense(4, name="gate"), gated

    def call(self, x):
        return self.gated(x) * ops.mean(self.gate(x), axis=1, keepdims=True)


@pytest.mark.parametrize("gated", [layers.Dense(4, name="other"), ops.ones_like], ids=["another kernel", "ones"])
def test_a_mean_that_gates_another_tensor_is_a_signal(gated):
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.Dense(3, name="behind")(Gated(gated, name="gated")(inputs)))
    assert tf_lap.neighbors(model)["gated/gate"].following == ("behind",)
    assert "gated/gate" in tf_lap.neighbors(model)["behind"].previous
