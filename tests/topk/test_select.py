"""Masks chosen with NumPy, against a stable sort and against the selection in a graph."""

import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from selected import SCORES, drawn_kernel, drawn_kernels, kept_of, reference

from tf_lap.topk.select import keep_largest_on_host, make_sort_keys_on_host
from tf_lap.topk.sort_keys import make_sort_keys


def chosen(scores, weights, live, keep):
    ((mask,), _) = keep_largest_on_host(
        [scores.view(np.int32)], keep, lambda: [make_sort_keys_on_host(scores, weights, live)]
    )
    return mask


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_mask_is_that_of_a_stable_sort(data):
    scores, weights, live, keep = drawn_kernel(data)
    np.testing.assert_array_equal(chosen(scores, weights, live, keep), reference(scores, weights, live, keep))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_several_kernels_are_ranked_as_if_they_were_one(data):
    kernels, keep, expected = drawn_kernels(data)
    masks, _ = keep_largest_on_host(
        [scores.view(np.int32) for scores, _, _ in kernels],
        keep,
        lambda: [make_sort_keys_on_host(*kernel) for kernel in kernels],
    )
    np.testing.assert_array_equal(np.concatenate(masks), expected)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_sort_keys_are_those_of_the_graph(data):
    """Weights too small for a normal number are zero to TensorFlow on some processors, and left out here."""
    scores = np.abs(data.draw(arrays(np.float32, st.integers(1, 40), elements=SCORES)))
    weights = data.draw(arrays(np.float32, len(scores), elements=st.floats(-4, 4, width=32, allow_subnormal=False)))
    live = data.draw(arrays(bool, len(scores)))
    expected = make_sort_keys(
        tf.constant(np.where(live, scores, np.float32(0))), tf.constant(weights), tf.constant(live)
    )
    np.testing.assert_array_equal(
        make_sort_keys_on_host(np.where(live, scores, np.float32(0)), weights, live), expected
    )


@pytest.mark.parametrize("size", [1, 3, 8191, 300_000])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99, 1.0])
def test_it_is_exact_at_any_size(size, share):
    scores = np.abs(np.random.default_rng(size).standard_cauchy(size)).astype(np.float32)
    keep = max(1, round(size * share))
    np.testing.assert_array_equal(chosen(scores, scores, scores > 0, keep), kept_of(scores, keep))


def test_where_none_is_live_none_stays():
    zeros = np.zeros(5, np.float32)
    assert not chosen(zeros, np.ones(5, np.float32), np.zeros(5, bool), 3).any()


def test_it_takes_no_longer_where_most_are_pruned():
    """NumPy's partition takes thirty times as long where many of the lowest numbers are equal."""
    dense = np.abs(np.random.default_rng(0).standard_normal(1_000_000)).astype(np.float32)
    sparse = np.where(dense > np.quantile(dense, 0.9), dense, np.float32(0))

    def least_seconds(scores, keep):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            chosen(scores, scores, scores > 0, keep)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    assert least_seconds(sparse, 95_000) < 5 * least_seconds(dense, 95_000)
