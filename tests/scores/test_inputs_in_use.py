"""Scores over inputs in use: what cannot be measured, what is not finite, whole fits, several runs, subclasses."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import kernels
from relu_chains import data, relu_chain

import tf_lap
from tf_lap.scores import inputs as inputs_module

layers = keras.layers
NAMES = ("wanda", "lookahead_wanda", "obs", "obs_lookahead")


def recurrent(flavour=keras):
    inputs = flavour.Input((5, 6))
    x = flavour.layers.LSTM(4, name="memory")(inputs)
    return flavour.Model(inputs, flavour.layers.Dense(3, name="head")(flavour.layers.Dense(9, name="hidden")(x)))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("score", ["wanda", "obs"])
def test_kernels_whose_inputs_cannot_be_measured_are_ranked_by_magnitude_and_named(flavour, score):
    model = recurrent(pytest.importorskip(flavour))
    weights = model.get_layer("memory").cell.recurrent_kernel.numpy()
    magnitudes = np.abs(weights)
    with pytest.warns(UserWarning, match="ranked by magnitude: 'memory/recurrent_kernel': the rows that") as warned:
        tf_lap.prune(model, 0.5, score=score, allocation="uniform", data=data((5, 6)))
    assert len(warned) == 1
    kept = model.get_layer("memory").cell.recurrent_kernel.numpy() != 0
    np.testing.assert_array_equal(kept, magnitudes >= np.sort(magnitudes, None)[-32])


@pytest.mark.parametrize("allocation", ["global", "lamp"])
@pytest.mark.parametrize("score", NAMES)
def test_ranked_together_kernels_that_cannot_be_measured_weigh_the_same_whatever_the_data_are_scaled_by(
    allocation, score
):
    masks = []
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="hidden")(layers.Rescaling(1.0, name="scale")(inputs))
    x = layers.Conv1DTranspose(3, 2, name="transposed")(layers.Reshape((5, 1))(x))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    before = model.get_weights()
    for factor in (1.0, 1024.0):
        model.set_weights(before)
        model.get_layer("scale").scale = factor
        pruner = tf_lap.Pruner(model, score=score, data=data((4,)), allocation=allocation)
        with pytest.warns(UserWarning, match="'transposed': the patches of a transposed convolution are not read"):
            pruner.update(0.6)
        masks.append(pruner.masks)
    for path, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][path])
    assert 0 < np.mean(masks[0]["transposed"]) < 1


def test_what_is_not_finite_names_the_layer_and_changes_nothing():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(6, activation="relu", name="first"), layers.Dense(3, name="last")

        def call(self, x):
            return self.last(self.first(x))

    x = data((4,))
    x[3, 2] = np.nan
    for score, order in itertools.product(NAMES, ("simultaneous", "forward")):
        model = Network()
        model(np.ones((1, 4), np.float32))
        before = model.get_weights()
        pruner = tf_lap.Pruner(model, score=score, data=x, order=order)
        with pytest.raises(ValueError, match="measured over data around layer 'first' is NaN or infinite"):
            pruner.update(0.5)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert pruner.sparsity == 0
    with pytest.raises(ValueError, match=r"data: samples of input .* hold NaN or infinity"):
        tf_lap.prune(relu_chain(4, 5, 3), 0.5, score="obs", data=x)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("score", ["lookahead_wanda", "obs"])
def test_a_fit_prunes_to_the_end(flavour, score):
    flavour = pytest.importorskip(flavour)
    model = relu_chain(16, 24, 10, flavour=flavour)
    model.compile("sgd", flavour.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = data((16,), 96), np.random.default_rng(0).integers(0, 10, 96)
    callback = tf_lap.LAPCallback(0.8, score=score, data=x[:40])
    model.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[callback])
    assert callback.report.sparsity == pytest.approx(0.8, abs=0.003)


def test_second_moments_are_measured_in_several_runs_where_they_are_many(monkeypatch):
    runs, measure = [], inputs_module.measure_moments
    monkeypatch.setattr(
        inputs_module, "measure_moments", lambda observer, numbers: runs.append(numbers) or measure(observer, numbers)
    )
    x, weights, masks = data((6,)), relu_chain(6, 12, 10, 4).get_weights(), []
    for most in (1 << 27, 200, 1):
        monkeypatch.setattr(inputs_module, "_MAX_NUMBERS", most)
        model = relu_chain(6, 12, 10, 4)
        model.set_weights(weights)
        pruner = tf_lap.Pruner(model, score="obs", data=x)
        pruner.update(0.5)
        masks.append(pruner.masks.values())
    assert runs == [[0, 1, 2], [0, 1], [2], [0], [1], [2]]
    for one, second, third in zip(*masks, strict=True):
        np.testing.assert_array_equal(one, second)
        np.testing.assert_array_equal(one, third)


def test_kernels_that_are_left_out_are_not_measured(monkeypatch):
    measured, find = [], inputs_module.find_reader
    monkeypatch.setattr(
        inputs_module, "find_reader", lambda recipe, number: measured.append(number) or find(recipe, number)
    )
    tf_lap.prune(relu_chain(6, 12, 10, 4), 0.5, score="wanda", data=data((6,)), filters="dense_1")
    assert measured == [1]


def test_a_kernel_that_is_never_called_is_ranked_by_magnitude():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3, name="used"), layers.Dense(5, name="unused")
            self.unused.build((None, 4))

        def call(self, x):
            return self.used(x)

    model = Network()
    model(np.ones((1, 4), np.float32))
    magnitudes = np.abs(model.unused.kernel.numpy())
    with pytest.warns(UserWarning, match="ranked by magnitude: 'unused'"):
        tf_lap.prune(model, 0.5, score="wanda", allocation="uniform", data=data((4,)))
    np.testing.assert_array_equal(model.unused.kernel.numpy() != 0, magnitudes >= np.sort(magnitudes, None)[-10])


def test_a_subclass_that_scores_in_its_own_way_is_asked():
    class Halved(tf_lap.scores.Wanda):
        def score(self, kernel, weights, incoming, outgoing):
            return tf.where(tf.abs(weights) > 0.5, 0.0, super().score(kernel, weights, incoming, outgoing))

    model = relu_chain(6, 12, 4)
    model.layers[0].kernel.assign(np.tile(np.linspace(0.1, 1.0, 12), (6, 1)))
    tf_lap.prune(model, 0.4, score=Halved(), allocation="uniform", data=np.ones((5, 6)))
    assert np.count_nonzero(kernels(model)["dense_0"]) == 43
