"""Kept weights against `numpy.linalg.lstsq` on the same rows."""

import numpy as np
import pytest

from tf_lap.moments.measured import DAMPING
from tf_lap.reconstruction import solver
from tf_lap.reconstruction.solver import solve_kept


def rows_and_weights(samples=60, rows=9, outputs=7, kept=0.5):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, rows)) @ rng.standard_normal((rows, rows))
    weights, mask = rng.standard_normal((rows, outputs)), rng.random((rows, outputs)) < kept
    mask[:, 0], mask[:, 1] = False, True
    return x, weights, mask


def solve(x, weights, mask, **arguments):
    second = x.T @ x / len(x)
    return solve_kept(second, second @ weights, weights, mask, **arguments)


def least_squares(x, y, weights, mask, ridge):
    """Output by output; rows below those of the data pull the kept weights to where they were."""
    solved = np.zeros_like(weights)
    for output, kept in enumerate(mask.T):
        pull = np.sqrt(ridge * len(x)) * np.eye(len(weights))[kept][:, kept]
        right = np.concatenate([y[:, output], pull @ weights[kept, output]])
        solved[kept, output] = np.linalg.lstsq(np.concatenate([x[:, kept], pull]), right, rcond=None)[0]
    return solved


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("damping", [1e-14, DAMPING, 1.0])
def test_weights_are_those_of_least_squares(damping, kept):
    x, weights, mask = rows_and_weights(kept=kept)
    solution = solve(x, weights, mask, damping=damping)
    ridge = damping * np.mean(np.square(x))
    np.testing.assert_allclose(solution.weights, least_squares(x, x @ weights, weights, mask, ridge), atol=1e-9)
    assert solution.damping == damping
    assert not solution.weights[~mask].any()
    np.testing.assert_allclose(solution.weights[:, 1], weights[:, 1], atol=1e-9)


def test_weights_are_those_of_the_update_of_optimal_brain_surgeon():
    x, weights, mask = rows_and_weights()
    second = x.T @ x
    solved = solve(x, weights, mask, damping=1e-14).weights
    for output, kept in enumerate(mask.T):
        correction = np.linalg.solve(second[kept][:, kept], second[kept][:, ~kept] @ weights[~kept, output])
        np.testing.assert_allclose(solved[kept, output], weights[kept, output] + correction, atol=1e-9)


def test_systems_that_are_solved_apart_give_the_same(monkeypatch):
    x, weights, mask = rows_and_weights(outputs=30)
    together = solve(x, weights, mask).weights
    shapes, solve_batch = [], solver._solve_batch

    def note(second, cross, mask, outputs, solved):
        shapes.append((len(outputs), mask[:, outputs].sum(axis=0).max()))
        solve_batch(second, cross, mask, outputs, solved)

    monkeypatch.setattr(solver, "_solve_batch", note)
    monkeypatch.setattr(solver, "_MAX_NUMBERS", 200)
    np.testing.assert_allclose(solve(x, weights, mask).weights, together, rtol=1e-12, atol=1e-12)
    assert len(shapes) > 3
    assert all(count * size**2 <= 200 for count, size in shapes)
    assert sum(count for count, _ in shapes) == 28  # nothing is kept of one output, and nothing dropped of another


def test_systems_larger_than_the_limit_are_solved_one_by_one(monkeypatch):
    x, weights, mask = rows_and_weights()
    together = solve(x, weights, mask).weights
    monkeypatch.setattr(solver, "_MAX_NUMBERS", 1)
    np.testing.assert_allclose(solve(x, weights, mask).weights, together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 1e-18])
def test_the_damping_is_raised_until_there_is_an_inverse(damping):
    row = np.array([[1.0, 2.0, 3.0, 4.0]])
    weights, mask = np.ones((4, 2)), np.array([[1, 1, 0, 1], [1, 1, 1, 0]], bool).T
    solution = solve(row, weights, mask, damping=damping)
    assert damping < solution.damping < 1e-6
    np.testing.assert_allclose(row @ solution.weights, row @ weights, rtol=1e-6)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_what_is_not_positive_definite_is_damped_whichever_way_it_is_solved(kept):
    _, weights, mask = rows_and_weights(kept=kept)
    mask[0, 2:] = True
    second = np.diag([-0.5, *np.ones(8)])
    solution = solve_kept(second, second @ weights, weights, mask)
    assert solution.damping == pytest.approx(1.0)
    np.testing.assert_allclose(solution.weights, weights * mask, atol=1e-12)


def test_inputs_that_are_zero_leave_the_weights_alone():
    _, weights, mask = rows_and_weights()
    solution = solve(np.zeros((5, len(weights))), weights, mask)
    np.testing.assert_array_equal(solution.weights, weights * mask)


@pytest.mark.parametrize("shift", [1, -1])
def test_weights_stay_where_no_damping_helps(shift):
    _, weights, mask = rows_and_weights()
    second = np.diag(np.linspace(-1e7, 1e7 + shift, len(weights)))  # of no data at all, as after rounding
    solution = solve_kept(second, second @ weights, weights, mask)
    np.testing.assert_array_equal(solution.weights, weights * mask)
    assert solution.damping == np.inf
