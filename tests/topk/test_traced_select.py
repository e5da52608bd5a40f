import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from selected import drawn_kernel, drawn_kernels, kept_of, reference

from tf_lap.topk.sort_keys import make_sort_keys
from tf_lap.topk.traced_select import keep_largest


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_mask_is_that_of_a_stable_sort(data):
    scores, weights, live, keep = drawn_kernel(data)
    (mask,), threshold = keep_largest([make_sort_keys(scores, weights, live)], tf.constant([keep]))
    np.testing.assert_array_equal(mask, reference(scores, weights, live, keep))
    assert threshold == np.sort(scores)[-keep]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_several_kernels_are_ranked_as_if_they_were_one(data):
    kernels, keep, expected = drawn_kernels(data)
    masks, _ = keep_largest([make_sort_keys(*kernel) for kernel in kernels], tf.constant([keep]), [[0, 1, 2]])
    np.testing.assert_array_equal(np.concatenate(masks), expected)


@pytest.mark.slow
def test_it_is_exact_for_a_million_scores_with_many_ties():
    scores = np.random.default_rng(0).integers(0, 1000, (1000, 1000)).astype(np.float32)
    ones, live = tf.ones_like(scores), tf.ones_like(scores, tf.bool)
    select = tf.function(lambda s, k: keep_largest([make_sort_keys(s, ones, live)], k))
    for keep in (1, 2_500, 500_000, 999_999, 1_000_000):
        (mask,), _ = select(scores, tf.constant([keep]))
        np.testing.assert_array_equal(mask, kept_of(scores, keep))


@pytest.mark.parametrize("size", [1, 3, 8191, 70_001, 300_000])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99, 1.0])
def test_it_is_exact_at_any_size(size, share):
    scores = np.abs(np.random.default_rng(size).standard_cauchy(size)).astype(np.float32)
    keep = max(1, round(size * share))
    (mask,), threshold = keep_largest([make_sort_keys(scores, scores, scores > 0)], tf.constant([keep]))
    np.testing.assert_array_equal(mask, kept_of(scores, keep))
    assert threshold == np.sort(scores)[-keep]


def test_under_xla_it_chooses_the_same():
    weights = [tf.Variable(tf.random.stateless_normal([size], seed=(size, 0))) for size in (3000, 5000)]

    def choose():
        values = [tf.convert_to_tensor(w) for w in weights]
        return keep_largest([make_sort_keys(tf.abs(v), v, tf.ones_like(v, tf.bool)) for v in values], keep)

    keep = tf.Variable([700, 4000])
    compiled = tf.function(choose, jit_compile=True, autograph=False)
    for _ in range(2):
        for mask, expected in zip(*(chosen for chosen, _ in (compiled(), choose())), strict=True):
            np.testing.assert_array_equal(mask, expected)
        weights[0].assign(tf.reverse(weights[0], [0]))
        keep.assign([50, 1])


def test_weights_without_a_score_are_ranked_by_magnitude():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((500, 500)).astype(np.float32)
    scores = np.abs(weights) * (rng.random(weights.shape) < 0.4)
    live = rng.random(weights.shape) < 0.8
    scores[~live] = 0
    keep = 150_000  # more than have a score, fewer than are live
    (mask,), threshold = keep_largest([make_sort_keys(scores, weights, live)], tf.constant([keep]))
    expected = reference(scores.reshape(-1), weights.reshape(-1), live.reshape(-1), keep)
    # Magnitudes that differ in their last bits only are in the order of the kernel.
    assert np.count_nonzero(mask) == keep
    assert np.count_nonzero(mask.numpy().reshape(-1) != expected) < 20
    assert threshold == 0


@pytest.mark.parametrize("alive", [0, 1, 3000])
def test_where_fewer_are_live_all_of_them_stay(alive):
    scores = np.random.default_rng(0).random((300, 200)).astype(np.float32)
    live = np.zeros(scores.size, bool)
    live[np.random.default_rng(1).choice(scores.size, alive, replace=False)] = True
    live = live.reshape(scores.shape)
    both = [make_sort_keys(scores * live, scores, live), make_sort_keys(scores, scores, live | True)]
    masks, threshold = keep_largest(both, tf.constant([5000, 5000]))
    np.testing.assert_array_equal(masks[0], live)
    np.testing.assert_array_equal(masks[1], kept_of(scores, 5000))
    assert threshold[0] == 0
    (together, other), _ = keep_largest(
        [make_sort_keys(scores * live, scores, live)] * 2, tf.constant([9000]), [[0, 1]]
    )
    np.testing.assert_array_equal(together, live)
    np.testing.assert_array_equal(other, live)
