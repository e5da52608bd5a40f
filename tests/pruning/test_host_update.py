"""Updates on the host: what they compute with, and what they leave alone. Their masks are compared in test_update."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from perceptrons import network

import tf_lap
from tf_lap.graph.resolver import resolve
from tf_lap.pruning.engine import choose_runner
from tf_lap.pruning.host_update import HostUpdater

layers = keras.layers
LOOKS = [tf_lap.scores.Lookahead(look=look) for look in ("both", "back", "ahead")]
SEPARABLE = [*LOOKS, tf_lap.scores.Magnitude(), tf_lap.scores.Lookahead(distance=0), tf_lap.scores.OBD()]


def test_on_the_host_no_function_is_traced(monkeypatch):
    pruner = tf_lap.Pruner(network())
    assert isinstance(choose_runner(pruner._engine.updater), HostUpdater)
    monkeypatch.setattr(tf, "function", None)
    for sparsity in np.linspace(0.05, 0.9, 15):
        pruner.update(sparsity)
    assert pruner.sparsity == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("score", SEPARABLE, ids=str)
@pytest.mark.parametrize("side", ["plain", "zero before", "zero behind"])
def test_the_channel_factors_are_what_a_magnitude_is_multiplied_by(score, side):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
    incoming, outgoing = rng.random((1, 4)).astype(np.float32), rng.random((1, 5)).astype(np.float32)
    incoming *= side != "zero before"
    outgoing *= side != "zero behind"
    model = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(5, 3)])
    (kernel,) = resolve(model).kernels
    back, ahead = score.channel_factors(incoming, outgoing)
    expected = score.score(kernel, tf.constant(weights), tf.constant(incoming), tf.constant(outgoing))
    np.testing.assert_allclose(np.abs(weights) * (back[:, np.newaxis] * ahead), expected, rtol=1e-6)


def test_a_layer_that_is_used_twice_has_no_channel_factors():
    twice = np.ones((2, 4), np.float32)
    assert tf_lap.scores.Lookahead().channel_factors(twice, twice) is None


def test_what_was_read_before_an_update_does_not_change():
    model = network()
    pruner = tf_lap.Pruner(model)
    kernel = model.get_layer("first").kernel
    read = [(tf.convert_to_tensor(kernel), np.asarray(kernel).copy())]
    for sparsity in (0.3, 0.6, 0.9):
        pruner.update(sparsity)
        mask = pruner.masks["first"]
        read += [(tf.convert_to_tensor(kernel), np.asarray(kernel).copy()), (mask, mask.numpy().copy())]
        for tensor, array in read:
            np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_dtypes_keep_their_bits(dtype):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(24, dtype=dtype, name="first"), layers.Dense(4)])
    before = tf.convert_to_tensor(model.get_layer("first").kernel).numpy()
    tf_lap.prune(model, 0.5, allocation="uniform")
    after = tf.convert_to_tensor(model.get_layer("first").kernel).numpy()
    assert after.dtype == before.dtype
    assert np.count_nonzero(after) == 192
    np.testing.assert_array_equal(after[after != 0], before[after != 0])
    assert not np.signbit(after[after == 0].astype(np.float32)).any()  # no -0.0


def spoiled(change):
    inputs = keras.Input((8,))
    x = layers.BatchNormalization(name="norm")(layers.Dense(16, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(4, name="last")(x))
    pruner = tf_lap.Pruner(model)
    change(model.get_layer("norm"))
    return model, pruner


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: norm.moving_variance.assign(-np.ones(16)),
        lambda norm: norm.gamma.assign(np.full(16, 1e25)),
        lambda norm: (setattr(norm, "epsilon", 0.0), norm.moving_variance.assign(np.zeros(16))),
    ],
    ids=["a negative variance", "a scale too large to square", "no variance"],
)
def test_what_is_not_finite_is_an_error_and_no_warning_of_numpys(change):
    _, pruner = spoiled(change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="are not finite"):
            pruner.update(0.5)


def test_weights_that_grew_are_pruned_without_a_warning_of_numpys():
    model, pruner = spoiled(lambda norm: None)
    for name in ("first", "last"):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * 1e19)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.update(0.5)
    assert pruner.sparsity == 0.5


class Inverse(tf_lap.allocation.Uniform):
    def comparable(self, scores, live, norm_order):
        return 1 / (1e-3 + scores)


def test_what_an_allocation_of_ones_own_makes_of_scores_counts():
    plain, inverse = network(), network()
    inverse.set_weights(plain.get_weights())
    tf_lap.prune(plain, 0.5, score="magnitude")
    before = np.abs(inverse.get_layer("first").kernel.numpy())
    tf_lap.prune(inverse, 0.5, score="magnitude", allocation=Inverse())
    kept = inverse.get_layer("first").kernel.numpy() != 0
    assert before[kept].max() <= before[~kept].min()
    assert np.count_nonzero(plain.get_layer("first").kernel.numpy()[kept]) == 0


def test_two_layers_that_hold_one_variable_are_pruned_one_after_the_other():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential(
        [tf_keras.Input((64,)), tf_keras.layers.Dense(64, name="a"), tf_keras.layers.Dense(64, name="b")]
    )
    model.layers[1].kernel = model.layers[0].kernel
    pruner = tf_lap.Pruner(model)
    pruner.update(0.5)
    for mask in pruner.masks.values():
        assert np.count_nonzero(mask) == 2048
        assert not np.any(model.layers[0].kernel.numpy()[~mask.numpy()])
