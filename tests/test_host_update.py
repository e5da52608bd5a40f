"""Updates on the host: what they compute with, and what they leave alone. Their masks are compared in test_update."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from perceptrons import network

import tf_lap
from tf_lap import host_update
from tf_lap.graph import resolve
from tf_lap.host_update import HostUpdater, engine
from tf_lap.kernels import Layout

layers = keras.layers
LOOKS = [tf_lap.scores.Lookahead(look=look) for look in ("both", "back", "ahead")]
SEPARABLE = [*LOOKS, tf_lap.scores.Magnitude(), tf_lap.scores.Lookahead(distance=0), tf_lap.scores.OBD()]


def test_on_the_host_no_function_is_traced(monkeypatch):
    pruner = tf_lap.Pruner(network())
    assert isinstance(engine(pruner._updater), HostUpdater)
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


@pytest.mark.parametrize(
    "layout", [Layout((3, 3, 8, 6)), Layout((5, 6, 8), True), Layout((3, 2, 12), groups=4), Layout((700, 300))], ids=str
)
@pytest.mark.parametrize("piece", [64, 1 << 17])
def test_energies_of_a_kernel_are_those_of_its_layout(layout, piece, monkeypatch):
    monkeypatch.setattr(host_update, "_PIECE", piece)
    weights = np.random.default_rng(0).standard_normal(layout.shape).astype(np.float32)
    gain = np.random.default_rng(1).random(layout.shape).astype(np.float32)
    ours = host_update._channel_energies(host_update._Seen(weights, 2.0, gain), layout)
    for array, expected in zip(ours, layout.norms(tf.constant(2 * weights * gain)), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5)


@pytest.mark.parametrize("few", [0, 1 << 18])
def test_what_was_read_before_an_update_does_not_change(few, monkeypatch):
    monkeypatch.setattr(host_update, "_FEW", few)  # with threads, and without
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


def test_threads_choose_the_same(monkeypatch):
    models = network(), network()
    models[1].set_weights(models[0].get_weights())
    for few, model in zip((0, 1 << 18), models, strict=True):
        monkeypatch.setattr(host_update, "_FEW", few)
        tf_lap.prune(model, 0.7)
    for threaded, plain in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(threaded, plain)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_dtypes_keep_their_bits(dtype):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(24, dtype=dtype, name="first"), layers.Dense(4)])
    before = tf.convert_to_tensor(model.get_layer("first").kernel).numpy()
    tf_lap.prune(model, 0.5)
    after = tf.convert_to_tensor(model.get_layer("first").kernel).numpy()
    assert after.dtype == before.dtype
    assert np.count_nonzero(after) == 192
    np.testing.assert_array_equal(after[after != 0], before[after != 0])
    assert not np.signbit(after[after == 0].astype(np.float32)).any()  # no -0.0
