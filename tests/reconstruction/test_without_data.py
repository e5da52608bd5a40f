"""Repair without data: the closed form on linear networks, Monte Carlo estimates behind ReLU."""

import keras
import numpy as np
import pytest
from repaired import array, prune_and_repair, solve_least_squares, weights_by_path

import tf_lap
from tf_lap.moments import channels
from tf_lap.moments.measured import DAMPING

layers = keras.layers


def solve_closed_form(second, weights, mask, damping=DAMPING):
    """`w_S + inv(G_SS) G_SR w_R`, output by output, with the damping on the diagonal of G_SS."""
    solved = np.zeros_like(weights)
    ridge = damping * np.mean(np.diag(second))
    for output, kept in enumerate(mask.T):
        system = second[np.ix_(kept, kept)] + ridge * np.eye(int(kept.sum()))
        correction = np.linalg.solve(system, second[np.ix_(kept, ~kept)] @ weights[~kept, output])
        solved[kept, output] = weights[kept, output] + correction
    return solved


def check_closed_form(model, dense, path, second, tolerance=1e-9):
    """The kernel of a path is the closed form, group by group.

    Args:
        second: of what the kernel reads, `(groups, rows, rows)`.
    """
    found, whole = weights_by_path(model)[path], weights_by_path(dense)[path].astype(np.float64)
    expected = [
        solve_closed_form(moment, weights, mask)
        for moment, weights, mask in zip(second, whole, found != 0, strict=True)
    ]
    assert np.abs(found - whole * (found != 0)).max() > 100 * tolerance
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def kernel_of(model, path):
    return array(model.get_layer(path).kernel).astype(np.float64)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_linear_network_is_repaired_by_the_closed_form(flavour):
    flavour = pytest.importorskip(flavour)
    stack = [flavour.layers.Dense(7, name=name, dtype="float64") for name in "abc"]
    model = flavour.Sequential([flavour.Input((6,), dtype="float64"), *stack])
    dense, report = prune_and_repair(model, None, True)
    first, second = kernel_of(dense, "a"), kernel_of(dense, "b")
    moment = first.T @ first
    check_closed_form(model, dense, "b", [moment])
    check_closed_form(model, dense, "c", [second.T @ moment @ second])
    # The network's inputs are taken for independent, so that no weight of the first kernel makes up for another.
    np.testing.assert_array_equal(kernel_of(model, "a"), kernel_of(dense, "a") * (kernel_of(model, "a") != 0))
    assert report.samples is None
    assert [layer.path for layer in report.repaired] == ["b", "c"]
    ((reason, paths),) = report.left_by_reason().items()
    assert paths == ["a"]
    assert reason == "what is known of its inputs without data does not tell one from another: pass data="


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"strides": 2, "padding": "same"}], ids=str)
def test_convolutions_are_repaired_tap_by_tap(options):
    conv = layers.Conv1D(6, 3, name="b", dtype="float64", **options)
    head = layers.Dense(3, name="c", dtype="float64")
    model = keras.Sequential(
        [keras.Input((9, 5), dtype="float64"), layers.Dense(4, name="a", dtype="float64"), conv, head]
    )
    dense, _ = prune_and_repair(model, None, "weights")
    groups = options.get("groups", 1)
    size = 4 // groups
    moment = kernel_of(dense, "a").T @ kernel_of(dense, "a")
    by_group = [moment[g * size : (g + 1) * size, g * size : (g + 1) * size] for g in range(groups)]
    taps = kernel_of(dense, "b").reshape(3, size, groups, -1)
    repaired = kernel_of(model, "b").reshape(3, size, groups, -1)
    for group in range(groups):
        for tap in range(3):
            mask = repaired[tap, :, group] != 0
            expected = solve_closed_form(by_group[group], taps[tap, :, group], mask)
            np.testing.assert_allclose(repaired[tap, :, group], expected, atol=1e-9)
    weights = weights_by_path(dense)["b"].astype(np.float64)
    expanded = np.stack([np.kron(np.eye(3), moment) for moment in by_group])
    # What groups put out is independent.
    blocks = weights.swapaxes(1, 2) @ expanded @ weights
    found, whole = (kernel_of(m, "c").reshape(groups, -1, 3) for m in (model, dense))
    expected = [solve_closed_form(*parts) for parts in zip(blocks, whole, found != 0, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_behind_a_hidden_layer_weights_are_those_of_gaussian_inputs(activation):
    hidden, head = layers.Dense(8, activation, name="a"), layers.Dense(4, name="b")
    model = keras.Sequential([keras.Input((6,)), hidden, head])
    dense, report = prune_and_repair(model, None, "weights", filters="b")
    x = np.random.default_rng(0).standard_normal((100_000, 6)).astype(np.float32)
    rows = array(dense.layers[0](x)).astype(np.float64)
    found, weights = kernel_of(model, "b"), kernel_of(dense, "b")
    expected, _ = solve_least_squares(rows, rows @ weights, weights, found != 0, has_shift=False)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(found - weights * (found != 0)).max() > 0.1
    (layer,) = report.layers
    outputs = rows @ weights
    for loss, kernel in ((layer.before, weights * (found != 0)), (layer.after, found)):
        lost = np.square(rows @ kernel - outputs).mean(axis=0).sum()
        # Without data the mean is not known: what is lost is counted against the mean square.
        assert loss == pytest.approx(lost / np.square(outputs).mean(axis=0).sum(), rel=0.05)


def normalized():
    """A convolution behind batch normalization and ReLU, and a head."""
    stack = [
        layers.Conv1D(8, 1, name="a", use_bias=False),
        layers.BatchNormalization(name="n"),
        layers.ReLU(),
        layers.Dense(6, name="b"),
        layers.Dense(3, name="c"),
    ]
    model = keras.Sequential([keras.Input((5, 6)), *stack])
    rng = np.random.default_rng(0)
    for variable in model.get_layer("n").weights:
        variable.assign(rng.uniform(0.3, 1.2, variable.shape))
    return model


@pytest.mark.parametrize("methods", ["weights", "bias", ["weights", "bias"]], ids=str)
def test_behind_batch_normalization_means_are_known(methods):
    model = normalized()
    dense, _ = prune_and_repair(model, None, methods, filters="b")
    kernel, layer = array(dense.get_layer("a").kernel)[0].astype(np.float64), dense.get_layer("n")
    gamma, beta, _, variance = (array(variable).astype(np.float64) for variable in layer.weights)
    covariance = kernel.T @ kernel
    scale = gamma * np.sqrt(variance / (variance + layer.epsilon)) / np.sqrt(np.diag(covariance))
    x = np.random.default_rng(0).multivariate_normal(beta, covariance * np.outer(scale, scale), 100_000)
    rows = np.maximum(x, 0.0)
    found, weights = kernel_of(model, "b"), kernel_of(dense, "b")
    shift = array(model.get_layer("b").bias) - array(dense.get_layer("b").bias)
    if "weights" in methods:
        expected, _ = solve_least_squares(rows, rows @ weights, weights, found != 0, has_shift="bias" in methods)
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert np.abs(found - weights * (found != 0)).max() > 0.05
    else:
        np.testing.assert_array_equal(found, weights * (found != 0))
    lost = rows.mean(axis=0) @ (weights - found)
    np.testing.assert_allclose(shift, lost if "bias" in methods else 0 * lost, atol=0.01)
    assert "bias" not in methods or np.abs(shift).max() > 0.05


@pytest.mark.parametrize("methods", ["bias", ["weights", "bias"]], ids=str)
def test_the_report_adds_up_what_taps_lose(methods):
    normalization = layers.BatchNormalization(beta_initializer="ones", epsilon=0.0)
    model = keras.Sequential([keras.Input((5, 4)), normalization, layers.Conv1D(3, 3, name="b")])
    dense, report = prune_and_repair(model, None, methods)
    (layer,) = report.repaired
    found, weights = kernel_of(model, "b").reshape(12, 3), kernel_of(dense, "b").reshape(12, 3)
    masked = weights * (found != 0)
    shift = array(model.layers[-1].bias)
    variance = np.square(weights).sum()  # of inputs of variance 1 and mean 1
    for loss, kernel, added in ((layer.before, masked, 0 * shift), (layer.after, found, shift)):
        lost = np.square(weights - kernel).sum() + np.square((weights - kernel).sum(axis=0) - added).sum()
        assert loss == pytest.approx(lost / variance, rel=1e-5)


def test_biases_alone_need_means():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu", name="a"), layers.Dense(4, name="b")])
    _, report = prune_and_repair(model, None, "bias")
    assert not report.repaired
    reasons = list(report.left_by_reason())
    assert reasons == ["no mean of its inputs is known without data: pass data="]


def test_means_of_many_independent_channels_are_put_back(monkeypatch):
    monkeypatch.setattr(channels, "MAX_WIDTH", 20)
    stack = [layers.BatchNormalization(beta_initializer="ones"), layers.Flatten(), layers.Dense(4, name="b")]
    model = keras.Sequential([keras.Input((5, 6)), layers.Permute((2, 1)), *stack])
    dense, report = prune_and_repair(model, None, True)
    assert [layer.path for layer in report.repaired] == ["b"]
    np.testing.assert_array_equal(kernel_of(model, "b"), kernel_of(dense, "b") * (kernel_of(model, "b") != 0))
    lost = np.ones(30) @ (kernel_of(dense, "b") - kernel_of(model, "b"))
    np.testing.assert_allclose(array(model.layers[-1].bias), lost, atol=1e-5)


def test_a_kernel_that_reads_several_tensors_is_fitted_to_all():
    inputs, shared = keras.Input((4,)), layers.Dense(4, name="shared", dtype="float64")
    x = layers.Dense(4, name="a", dtype="float64")(inputs)
    model = keras.Model(inputs, shared(shared(x)))
    dense, _ = prune_and_repair(model, None, "weights", filters="shared")
    first, second = kernel_of(dense, "a"), kernel_of(dense, "shared")
    moment = first.T @ first
    check_closed_form(model, dense, "shared", [(moment + second.T @ moment @ second) / 2])


def test_nothing_pruned_is_exact():
    model = normalized()
    before = model.get_weights()
    report = tf_lap.prune(model, 0.0, repair=True).repair
    assert not report.layers
    for variable, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(variable, value)
