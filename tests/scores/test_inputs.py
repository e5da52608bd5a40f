"""Scores of weights and what they are multiplied with, against brute force and plain NumPy."""

import itertools

import keras
import numpy as np
import pytest
from chains import kernels
from observed import multiply, observe_rows
from relu_chains import data, relu_chain

import tf_lap
from tf_lap.graph.resolver import resolve
from tf_lap.pruning.traced_update import TracedUpdater
from tf_lap.scores.inputs import find_obs_factors

layers = keras.layers
NAMES = ("wanda", "lookahead_wanda", "obs", "obs_lookahead")


def measure_scores(model, score, x):
    """The scores of all kernels, by path, as the pruner sees them."""
    scores, kind = {}, type(tf_lap.scores.get(score))

    class Spy(kind):
        def score(self, kernel, weights, incoming, outgoing):
            scores[kernel.path] = super().score(kernel, weights, incoming, outgoing).numpy()
            return scores[kernel.path]

    tf_lap.Pruner(model, score=Spy(), data=x, filters=[kernel.path for kernel in resolve(model).kernels]).update(0.0)
    return scores


def network():
    """Kernels of several kinds, each with the rows of several positions or calls."""
    inputs = keras.Input((5, 5, 4), dtype="float64")
    options = {"dtype": "float64", "kernel_initializer": "random_normal"}
    x = layers.Conv2D(4, 3, strides=2, groups=2, padding="same", activation="relu", name="groups", **options)(inputs)
    filters = layers.DepthwiseConv2D(2, dtype="float64", name="filters", activation="relu")
    x = layers.Conv2D(3, 1, name="conv", activation="relu", **options)(filters(x))
    shared = layers.Dense(3, name="shared", **options)
    x = layers.EinsumDense("abcd,bdef->acbfe", (2, 2, 2, 3), name="einsum", **options)(shared(layers.ReLU()(shared(x))))
    return keras.Model(inputs, layers.Dense(3, name="head", **options)(layers.Flatten(dtype="float64")(x)))


def test_the_square_of_wanda_is_the_output_error_of_a_weight_that_goes_alone():
    model, x = network(), data((5, 5, 4), 6).astype(np.float64)
    scores, rows = measure_scores(model, "wanda", x), observe_rows(model, [[x]])
    for kernel in resolve(model).kernels:
        before = multiply(kernel, rows[kernel.path])
        weights = kernel.variable.numpy()
        for index in itertools.islice(np.ndindex(weights.shape), 0, None, 3):
            zeroed = weights.copy()
            zeroed[index] = 0
            kernel.variable.assign(zeroed)
            error = np.mean(np.sum(np.square(multiply(kernel, rows[kernel.path]) - before), axis=1))
            np.testing.assert_allclose(scores[kernel.path][index], np.sqrt(error), rtol=1e-4, err_msg=kernel.path)
        kernel.variable.assign(weights)


def refit(x, weights, dropped, damping):
    """The least squared change of an output when a weight goes and the others make up for it, over all rows.

    Args:
        x: `(rows, inputs)`.
        weights: those of the output, `(inputs,)`.
        dropped: which weight goes.
        damping: what each squared change of a weight counts, as a fraction of the inputs' mean square.
    """
    ridge = np.sqrt(damping * np.mean(np.square(x)) * len(x))
    rows = np.concatenate([x, ridge * np.eye(len(weights))])
    kept = np.arange(len(weights)) != dropped
    target = rows @ weights
    solution, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
    return np.sum(np.square(rows[:, kept] @ solution - target))


def test_the_square_of_obs_is_the_output_error_after_a_refit():
    model, x = network(), data((5, 5, 4), 6).astype(np.float64)
    scores, rows = measure_scores(model, "obs", x), observe_rows(model, [[x]])
    for kernel in resolve(model).kernels:
        matrices = kernel.layout.to_matrices(kernel.variable.numpy())
        by_group = kernel.layout.to_matrices(scores[kernel.path])
        for group, place, output in itertools.islice(np.ndindex(matrices.shape), 0, None, 5):
            read = rows[kernel.path][group]
            if np.any(read[:, place]):
                error = refit(read, matrices[group, :, output], place, 0.01) / len(read)
                found = by_group[group, place, output]
                np.testing.assert_allclose(found, np.sqrt(error), rtol=1e-4, err_msg=kernel.path)


@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.1])
def test_obs_factors_are_those_of_a_refit_at_any_damping(damping):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 7)) @ rng.standard_normal((7, 7))
    weights = rng.standard_normal(7)
    factors = find_obs_factors((x.T @ x / 40)[np.newaxis], damping)[0]
    for dropped in range(7):
        np.testing.assert_allclose(np.square(factors * weights)[dropped] * 40, refit(x, weights, dropped, damping))


def test_inputs_that_say_the_same_are_worth_little_to_obs_and_fewer_samples_than_inputs_will_do():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8))  # rank 3
    x[:, 1] = x[:, 0]
    x[:, 5] = 0
    second = x.T @ x / 3
    factors = find_obs_factors(second[np.newaxis])[0]
    weights = np.ones(8)
    for dropped in range(8):
        expected = refit(x, weights, dropped, 0.01)
        np.testing.assert_allclose(factors[dropped] ** 2 * 3, 0 if dropped == 5 else expected, rtol=1e-9)
    assert factors[0] < 0.2 * np.sqrt(second[0, 0])
    np.testing.assert_array_equal(find_obs_factors(np.zeros((2, 3, 3))), np.zeros((2, 3)))
    assert np.isnan(find_obs_factors(np.full((1, 2, 2), np.inf))).all()


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
    pruner = tf_lap.Pruner(model, score=score, data=x, order=order)
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
    pruner = tf_lap.Pruner(model, score="wanda", data=x)
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
    pruner = tf_lap.Pruner(model, score=score, data=x)
    pruner.update(0.25)
    np.testing.assert_array_equal(pruner.masks["dense_0"], np.repeat(~np.isin(np.arange(8), [1, 5]), 12).reshape(8, 12))
    # Of weights that are all worth nothing the largest stay.
    model = relu_chain(8, 12, 4)
    magnitudes = np.abs(kernels(model)["dense_0"])
    tf_lap.prune(model, 0.5, score=score, data=np.zeros((5, 8)))
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
