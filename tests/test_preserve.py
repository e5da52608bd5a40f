"""Zeros that are kept by PreserveSparsity or by a user's own Pruner."""

import keras
import numpy as np
import pytest
from perceptrons import SIZES, assert_nothing_left, compiled, fit, polynomial

import tf_lap


def test_preserve_sparsity_keeps_zeros_while_fine_tuning():
    model = compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    tf_lap.prune(model, 0.9)
    zeros = model.get_layer("first").kernel.numpy() == 0
    before = model.get_layer("first").kernel.numpy()
    fit(model, [tf_lap.PreserveSparsity()])
    after = model.get_layer("first").kernel.numpy()
    np.testing.assert_array_equal(after == 0, zeros)
    assert np.mean(after[~zeros] != before[~zeros]) > 0.5  # a dead unit's weights do not move
    assert_nothing_left(model)


@pytest.mark.parametrize("turn", [1, -1])
def test_preserve_sparsity_and_pruning_do_not_go_together(turn):
    model = compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match="LAPCallback and PreserveSparsity in one fit"):
        fit(model, [tf_lap.LAPCallback(polynomial()), tf_lap.PreserveSparsity()][::turn])
    for weights, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_preserve_sparsity_needs_a_kernel():
    model = keras.Sequential([keras.Input((16,)), keras.layers.BatchNormalization(), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="has no trainable kernel whose zeros could be preserved"):
        fit(compiled(model), [tf_lap.PreserveSparsity()])


@pytest.mark.parametrize("callback", [lambda: tf_lap.LAPCallback(polynomial()), tf_lap.PreserveSparsity])
def test_a_users_own_pruner_keeps_its_hold(callback):
    model = compiled()
    pruner = tf_lap.Pruner(model, filters="first")
    pruner.update(0.5)
    pruner.freeze()
    with pytest.raises(ValueError, match="kernel of layer 'first' is held by the masks of another Pruner"):
        fit(model, [callback()])
    assert pruner.enforcement.attached
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel) == SIZES["first"] // 2
    fit(model, [tf_lap.LAPCallback(polynomial(), filters="second|head")])
    assert np.count_nonzero(model.get_layer("first").kernel) == SIZES["first"] // 2
