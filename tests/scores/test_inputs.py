"""Scores of weights and what they are multiplied with: masks against plain NumPy, and what else they do."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import kernels
from relu_chains import data, relu_chain
from scored import measure_scores
from uncalled import half_used

import tf_lap
from tf_lap.pruning.traced_update import TracedUpdater
from tf_lap.scores import inputs as inputs_module

layers = keras.layers
NAMES = ("wanda", "lookahead_wanda", "obs", "obs_lookahead")


def chain_scores(weights, biases, x, score):
    """The scores of a chain of Dense layers with ReLU between them, in float64."""
    scores, h = [], x.astype(np.float64)
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        second = h.T @ h / len(h)
        if score.startswith("obs"):
            inverse = np.linalg.inv(second + 0.01 * np.mean(np.diag(second)) * np.eye(len(second)))
            factors = 1 / np.sqrt(np.diag(inverse))
        else:
            factors = np.sqrt(np.diag(second))
        ahead = np.ones(w.shape[1])
        if "lookahead" in score and i + 1 < len(weights):
            ahead = np.linalg.norm(weights[i + 1], axis=1)
        scores.append(np.abs(w) * factors[:, np.newaxis] * ahead)
        h = np.maximum(h @ w + b, 0)
    return scores


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
@pytest.mark.parametrize("score", NAMES)
def test_masks_are_those_of_the_formulas_and_energies_those_of_the_weights(flavour, order, score):
    model = relu_chain(6, 12, 10, 4, flavour=pytest.importorskip(flavour))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.bias.assign(rng.standard_normal(layer.bias.shape))
    x = 3 * data((6,)) + 1
    weights = [layer.kernel.numpy().astype(np.float64) for layer in model.layers]
    biases = [layer.bias.numpy() for layer in model.layers]
    masks, current = {}, list(weights)
    for i in reversed(range(3)) if order == "backward" else range(3):
        scores = chain_scores(weights if order == "simultaneous" else current, biases, x, score)[i]
        masks[i] = scores >= np.sort(scores, axis=None)[-round(scores.size * 0.4)]
        current[i] = current[i] * masks[i]
    pruner = tf_lap.Pruner(model, score=score, data=x, order=order, allocation="uniform")
    pruner.update(0.6)
    for i, mask in enumerate(pruner.masks.values()):
        np.testing.assert_array_equal(mask, masks[i])


@pytest.mark.parametrize("score", ["wanda", "obs_lookahead"])
def test_traced_updates_choose_the_same_and_are_traced_once(score):
    x = data((6,))
    pruners = [
        tf_lap.Pruner(relu_chain(6, 12, 10, 4), score=score, data=x, order=order, allocation=allocation)
        for order, allocation in (("simultaneous", "global"), ("forward", "uniform"))
        for _ in range(2)
    ]
    for plain, traced in (pruners[:2], pruners[2:]):
        traced.model.set_weights(plain.model.get_weights())
        traced._engine.runner = TracedUpdater(traced._engine.updater)
        for sparsity in (0.3, 0.6):
            plain.update(sparsity)
            traced.update(sparsity)
        for one, other in zip(plain.masks.values(), traced.masks.values(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert pruners[1]._engine.runner.traced_update.experimental_get_tracing_count() == 1
    counts = [choose.experimental_get_tracing_count() for choose in pruners[3]._engine.runner.traced_choose]
    assert counts == [1, 1, 1]


def test_each_update_measures_the_network_as_it_is():
    model, x = relu_chain(6, 12, 10, 4), data((6,))
    pruner = tf_lap.Pruner(model, score="wanda", data=x, allocation="uniform")
    pruner.update(0.2)
    pruned = [layer.kernel.numpy() for layer in model.layers]
    scores = chain_scores(pruned, [layer.bias.numpy() for layer in model.layers], x, "wanda")
    pruner.update(0.7)
    for found, mask in zip(scores, pruner.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, found >= np.sort(found, axis=None)[-round(found.size * 0.3)])


@pytest.mark.parametrize("score", NAMES)
def test_weights_of_dead_inputs_go_first(score):
    model, x = relu_chain(8, 12, 4), data((8,))
    x[:, [1, 5]] = 0
    model.layers[0].kernel.assign(
        np.where(np.isin(np.arange(8), [1, 5])[:, np.newaxis], 100.0, kernels(model)["dense_0"])
    )
    pruner = tf_lap.Pruner(model, score=score, data=x, allocation="uniform")
    pruner.update(0.25)
    np.testing.assert_array_equal(pruner.masks["dense_0"], np.repeat(~np.isin(np.arange(8), [1, 5]), 12).reshape(8, 12))
    # Of weights that are all worth nothing the largest stay.
    model = relu_chain(8, 12, 4)
    magnitudes = np.abs(kernels(model)["dense_0"])
    tf_lap.prune(model, 0.5, score=score, data=np.zeros((5, 8)), allocation="uniform")
    np.testing.assert_array_equal(kernels(model)["dense_0"] != 0, magnitudes >= np.sort(magnitudes, None)[-48])


@pytest.mark.parametrize("score", NAMES)
def test_of_each_group_of_inputs_the_best_stay(score):
    model, x = relu_chain(8, 12, 4), data((8,)) * np.arange(1, 9)
    scores = measure_scores(model, score, x)
    pruner = tf_lap.Pruner(model, score=score, data=x, pattern="2:4")
    pruner.update(0.5)
    for path, mask in pruner.masks.items():
        groups = scores[path].reshape(-1, 4, mask.shape[1])
        expected = np.argsort(np.argsort(groups, axis=1), axis=1) >= 2
        np.testing.assert_array_equal(mask.numpy().reshape(groups.shape), expected)


@pytest.mark.parametrize("score", NAMES)
@pytest.mark.parametrize("options", [{"pattern": "block:1x4"}, {"allocation": "lamp"}, {"allocation": "erk"}], ids=str)
def test_patterns_and_allocations_keep_what_they_keep(score, options):
    model = relu_chain(8, 16, 12, 4)
    report = tf_lap.prune(model, 0.5, score=score, data=data((8,)), **options)
    assert report.sparsity == pytest.approx(0.5, abs=0.02)
    assert report.score_sides == (("after",) if "lookahead" in score else ())


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
        tf_lap.prune(model, 0.5, score=score, data=data((5, 6)), allocation="uniform")
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
    model = half_used()
    magnitudes = np.abs(model.unused.kernel.numpy())
    with pytest.warns(UserWarning, match="ranked by magnitude: 'unused'"):
        tf_lap.prune(model, 0.5, score="wanda", data=data((4,)), allocation="uniform")
    np.testing.assert_array_equal(model.unused.kernel.numpy() != 0, magnitudes >= np.sort(magnitudes, None)[-10])


def test_a_subclass_that_scores_in_its_own_way_is_asked():
    class Halved(tf_lap.scores.Wanda):
        def score(self, kernel, weights, incoming, outgoing):
            return tf.where(tf.abs(weights) > 0.5, 0.0, super().score(kernel, weights, incoming, outgoing))

    model = relu_chain(6, 12, 4)
    model.layers[0].kernel.assign(np.tile(np.linspace(0.1, 1.0, 12), (6, 1)))
    tf_lap.prune(model, 0.4, score=Halved(), data=np.ones((5, 6)), allocation="uniform")
    assert np.count_nonzero(kernels(model)["dense_0"]) == 43
