"""Masks that hold, and what notices where they do not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.pruning.constraints import RevivalWatch, apply_mask


def pruned():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="dense")])
    pruner = tf_lap.Pruner(model)
    pruner.update(0.75)
    return model, pruner


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("as_numbers", [False, True])
def test_a_mask_zeroes_what_it_drops_and_leaves_the_rest_infinities_included(dtype, as_numbers):
    weights = tf.cast([1.5, -2.0, np.inf, np.nan, -np.inf, 3.0], dtype)
    mask = tf.constant([True, False, False, False, True, True])
    kept = apply_mask(weights, tf.cast(mask, dtype) if as_numbers else mask)
    assert kept.dtype == dtype
    np.testing.assert_array_equal(tf.cast(kept, tf.float32), [1.5, 0, 0, 0, -np.inf, 3])


def test_weights_that_come_back_are_counted_and_zeroed_from_then_on():
    model, pruner = pruned()
    watch = RevivalWatch(pruner.enforcement)
    assert watch.end_batch() == 0
    assert not watch.zeroes_each_batch
    model.layers[0].kernel.assign(np.ones((8, 8)))
    assert watch.end_batch() == 48
    assert watch.zeroes_each_batch
    for _ in range(3):
        assert np.count_nonzero(model.layers[0].kernel) == 16
        model.layers[0].kernel.assign(np.ones((8, 8)))
        assert watch.end_batch() == 0
    assert np.count_nonzero(model.layers[0].kernel) == 16


def test_the_first_batches_are_looked_at_and_then_one_in_a_hundred(monkeypatch):
    _, pruner = pruned()
    looks = []
    monkeypatch.setattr(pruner.enforcement, "count_revived", lambda: looks.append(watch._batches) or 0)
    watch = RevivalWatch(pruner.enforcement)
    for _ in range(250):
        watch.end_batch()
    assert looks == [1, 2, 3, 100, 200]


def test_where_an_optimizer_takes_no_constraint_weights_are_zeroed_from_the_first_batch_on(monkeypatch):
    model, pruner = pruned()
    monkeypatch.setattr("tf_lap.compat.refuses_constraint", lambda model: lambda variable: True)
    pruner.freeze()
    assert model.layers[0].kernel.constraint is None
    model.layers[0].kernel.assign(np.ones((8, 8)))
    assert RevivalWatch(pruner.enforcement).end_batch() == 0
    assert np.count_nonzero(model.layers[0].kernel) == 16
