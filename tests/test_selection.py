import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tf_lap.ranks import ranks
from tf_lap.selection import keep_largest

SCORES = st.one_of(
    st.floats(0, width=32, allow_nan=False),  # denormals and infinity among them
    st.sampled_from([0.0, -0.0, 1.0, 1.0000001, 2.0, 1e-45, 3.4e38, float("inf")]),
)


def reference(scores, weights, live, keep):
    """The mask of a stable sort: by score, then by magnitude, zeros last; ties by flat index; none that is dead."""

    def rank(i):
        if not live[i]:
            return (3,)
        if scores[i] == 0:
            return (1, -abs(weights[i])) if weights[i] else (2,)
        return (0, -scores[i])

    order = sorted(range(len(scores)), key=lambda i: (*rank(i), i))
    mask = np.zeros(len(scores), bool)
    mask[order[:keep]] = True
    return mask & live


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_mask_is_that_of_a_stable_sort(data):
    scores = data.draw(arrays(np.float32, st.integers(1, 40), elements=SCORES))
    live = data.draw(arrays(bool, len(scores)))
    weights = data.draw(arrays(np.float32, len(scores), elements=st.sampled_from([0.0, -0.0, 1.0, -2.0, 1e-30])))
    keep = data.draw(st.integers(1, len(scores)))
    scores = np.where(live, np.abs(scores), np.float32(0))
    (mask,), lowest = keep_largest(ranks([(scores, weights, live)]), tf.constant([keep]))
    np.testing.assert_array_equal(mask, reference(scores, weights, live, keep))
    assert lowest == np.sort(scores)[-keep]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_several_kernels_are_ranked_as_if_they_were_one(data):
    parts = [np.abs(data.draw(arrays(np.float32, st.integers(1, 15), elements=SCORES))) for _ in range(3)]
    together = np.concatenate(parts)
    keep = data.draw(st.integers(1, len(together)))
    ones, live = [np.ones_like(p) for p in parts], [np.ones(p.shape, bool) for p in parts]
    kernels = zip(parts, ones, live, strict=True)
    masks, _ = keep_largest(ranks(kernels), tf.constant([keep]), [[0, 1, 2]])
    expected = reference(together, np.ones(len(together)), np.ones(len(together), bool), keep)
    np.testing.assert_array_equal(np.concatenate(masks), expected)


def test_it_is_exact_for_a_million_scores_with_many_ties():
    scores = np.random.default_rng(0).integers(0, 1000, (1000, 1000)).astype(np.float32)
    ones, live = tf.ones_like(scores), tf.ones_like(scores, tf.bool)
    select = tf.function(lambda s, k: keep_largest(ranks([(s, ones, live)]), k))
    for keep in (1, 2_500, 500_000, 999_999, 1_000_000):
        (mask,), _ = select(scores, tf.constant([keep]))
        np.testing.assert_array_equal(mask, kept_of(scores, keep))


def kept_of(scores, keep):
    """The mask of the largest by a stable sort."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.reshape(-1), kind="stable")[:keep]] = True
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("size", [1, 3, 8191, 70_001, 300_000])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99, 1.0])
def test_it_is_exact_at_any_size(size, share):
    scores = np.abs(np.random.default_rng(size).standard_cauchy(size)).astype(np.float32)
    keep = max(1, round(size * share))
    (mask,), lowest = keep_largest(ranks([(scores, scores, scores > 0)]), tf.constant([keep]))
    np.testing.assert_array_equal(mask, kept_of(scores, keep))
    assert lowest == np.sort(scores)[-keep]


def test_under_xla_it_chooses_the_same():
    weights = [tf.Variable(tf.random.stateless_normal([size], seed=(size, 0))) for size in (3000, 5000)]

    def choose():
        values = [tf.convert_to_tensor(w) for w in weights]
        return keep_largest(ranks([(tf.abs(v), v, tf.ones_like(v, tf.bool)) for v in values]), keep)

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
    (mask,), lowest = keep_largest(ranks([(scores, weights, live)]), tf.constant([keep]))
    expected = reference(scores.reshape(-1), weights.reshape(-1), live.reshape(-1), keep)
    # Magnitudes that differ in their last bits only are in the order of the kernel.
    assert np.count_nonzero(mask) == keep
    assert np.count_nonzero(mask.numpy().reshape(-1) != expected) < 20
    assert lowest == 0


@pytest.mark.parametrize("alive", [0, 1, 3000])
def test_where_fewer_are_live_all_of_them_stay(alive):
    scores = np.random.default_rng(0).random((300, 200)).astype(np.float32)
    live = np.zeros(scores.size, bool)
    live[np.random.default_rng(1).choice(scores.size, alive, replace=False)] = True
    live = live.reshape(scores.shape)
    both = ranks([(scores * live, scores, live), (scores, scores, live | True)])
    masks, lowest = keep_largest(both, tf.constant([5000, 5000]))
    np.testing.assert_array_equal(masks[0], live)
    np.testing.assert_array_equal(masks[1], kept_of(scores, 5000))
    assert lowest[0] == 0
    (together, other), _ = keep_largest(ranks([(scores * live, scores, live)] * 2), tf.constant([9000]), [[0, 1]])
    np.testing.assert_array_equal(together, live)
    np.testing.assert_array_equal(other, live)
