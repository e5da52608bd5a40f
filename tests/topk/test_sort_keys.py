import numpy as np
import tensorflow as tf

from tf_lap.topk.sort_keys import make_sort_keys, scores_of


def test_from_the_bottom_pruned_then_zero_then_without_score_then_by_score():
    scores = np.array([0, 0, 0, 0, 1e-45, 1e-30, 1, np.finfo(np.float32).max, np.inf], np.float32)
    weights = np.array([3, 0, 1e-30, 2, 1, 1, 1, 1, 1], np.float32)
    keys = make_sort_keys(tf.constant(scores), tf.constant(weights), tf.constant([False] + [True] * 8)).numpy()
    assert keys[0] == 0
    assert (np.diff(keys) > 0).all()
    assert keys.max() < 2**31


def test_a_nan_stays_in_range_and_the_sign_of_zero_is_nothing():
    bad = tf.constant([np.nan, -np.nan, -0.0], tf.float32)
    keys = make_sort_keys(bad, tf.ones_like(bad), tf.ones_like(bad, tf.bool)).numpy()
    assert keys[0] == keys[1] == make_sort_keys(tf.constant([np.inf]), tf.ones([1]), tf.constant([True])).numpy()[0]
    assert keys[2] == make_sort_keys(tf.zeros([1]), tf.ones([1]), tf.constant([True])).numpy()[0]


def test_a_score_comes_back_from_its_sort_key():
    scores = tf.constant([1e-45, 0.1, 1.0, 3e38, np.inf], tf.float32)
    keys = make_sort_keys(scores, tf.ones_like(scores), tf.ones_like(scores, tf.bool))
    np.testing.assert_array_equal(scores_of(tf.cast(keys, tf.float64)), scores)
    np.testing.assert_array_equal(scores_of(tf.constant([0.0, 1.0, 100.0], tf.float64)), [0, 0, 0])
