import numpy as np
import tensorflow as tf

from tf_lap.topk.sort_keys import keys, ranks, score_of


def test_from_the_bottom_pruned_then_zero_then_without_score_then_by_score():
    scores = np.array([0, 0, 0, 0, 1e-45, 1e-30, 1, np.finfo(np.float32).max, np.inf], np.float32)
    weights = np.array([3, 0, 1e-30, 2, 1, 1, 1, 1, 1], np.float32)
    order = keys(tf.constant(scores), tf.constant(weights), tf.constant([False] + [True] * 8)).numpy()
    assert order[0] == 0
    assert (np.diff(order) > 0).all()
    assert order.max() < 2**31


def test_a_nan_stays_in_range_and_the_sign_of_zero_is_nothing():
    bad = tf.constant([np.nan, -np.nan, -0.0], tf.float32)
    order = keys(bad, tf.ones_like(bad), tf.ones_like(bad, tf.bool)).numpy()
    assert order[0] == order[1] == keys(tf.constant([np.inf]), tf.ones([1]), tf.constant([True])).numpy()[0]
    assert order[2] == keys(tf.zeros([1]), tf.ones([1]), tf.constant([True])).numpy()[0]


def test_a_score_comes_back_from_its_sort_key():
    scores = tf.constant([1e-45, 0.1, 1.0, 3e38, np.inf], tf.float32)
    (bits,) = ranks([(scores, tf.ones_like(scores), tf.ones_like(scores, tf.bool))])
    np.testing.assert_array_equal(score_of(tf.cast(bits, tf.float64)), scores)
    np.testing.assert_array_equal(score_of(tf.constant([0.0, 1.0, 100.0], tf.float64)), [0, 0, 0])
