"""Counts by layer-adaptive scores are those of a plain loop over the paper's formula."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tf_lap.topk.layer_adaptive import count_layer_adaptively, rank_layer_adaptively


def bits(scores):
    return np.asarray(scores, np.float32).view(np.int32)


def plain_counts(kernels, keep):
    """Ranks all weights of all kernels, the first of equal ones first, and counts."""
    ranked = []
    for number, scores in enumerate(kernels):
        falling = np.sort(np.asarray(scores, np.float64))[::-1]
        falling /= falling[0]
        ranked += [(-(s**2) / np.sum(np.square(falling[: i + 1])), number) for i, s in enumerate(falling)]
    stays = [number for _, number in sorted(ranked)[:keep]]
    return [stays.count(number) for number in range(len(kernels))]


# Powers of two and sums of few of them: exact in both precisions.
KERNELS = st.lists(
    st.lists(st.sampled_from([1.0, 2.0, 4.0, 8.0, 64.0]), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(KERNELS, st.data())
def test_counts_are_those_of_the_formula(kernels, data):
    keep = data.draw(st.integers(len(kernels), sum(map(len, kernels))))
    ranked = [rank_layer_adaptively(bits(scores), keep) for scores in kernels]
    counts = count_layer_adaptively(ranked, keep)
    assert sum(counts) == keep
    assert min(counts) >= 1
    adaptive = np.concatenate([np.asarray(kernel, np.float64) for kernel in ranked])
    if np.min(np.abs(np.subtract.outer(adaptive, adaptive) + 9 * np.eye(len(adaptive)))) > 1e-6:
        assert counts == plain_counts(kernels, keep)


def test_weights_that_are_pruned_or_score_zero_are_not_ranked():
    assert rank_layer_adaptively(bits([0.0, 3.0, 0.0, 4.0]), 3).tolist() == [1.0, np.float32(9 / 25)]
    assert rank_layer_adaptively(bits([[0.0], [0.0]]), 2).size == 0


def test_scores_that_do_not_say_enough_give_no_counts():
    first, empty = rank_layer_adaptively(bits([1.0, 2.0]), 4), rank_layer_adaptively(bits([0.0]), 4)
    assert count_layer_adaptively([first, first], 5) is None
    assert count_layer_adaptively([first, empty], 2) is None
    assert count_layer_adaptively([first, first], 4) == [2, 2]


def test_scores_whose_squares_leave_float32_are_ranked():
    tiny = rank_layer_adaptively(bits([2e-30, 1e-30]), 2)
    np.testing.assert_allclose(tiny, [1.0, 0.2], rtol=1e-6)
