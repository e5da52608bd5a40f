"""`Pruner.densify`: the one way in which pruned weights come back."""

import keras
import numpy as np
import pytest

import tf_lap


def make_model():
    layers = [keras.Input((8,)), keras.layers.Dense(16, name="dense"), keras.layers.Dense(4, name="head")]
    keras.utils.set_random_seed(0)
    return keras.Sequential(layers)


def test_the_next_update_chooses_among_all_weights_anew():
    model = make_model()
    pruner = tf_lap.Pruner(model, score="magnitude", allocation="uniform")
    pruner.update(0.5)
    kernel = model.get_layer("dense").kernel
    before = kernel.numpy()
    pruner.densify()
    assert not pruner.drops_weights
    np.testing.assert_array_equal(kernel.numpy(), before)  # they are zero still, and may train
    kernel.assign(np.where(before == 0, 9.0, before))
    pruner.apply()
    assert np.all(kernel.numpy()[before == 0] == 9)
    pruner.update(0.5)
    np.testing.assert_array_equal(kernel.numpy() == 0, before != 0)


def test_frozen_masks_let_weights_train_from_then_on():
    model = make_model()
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    pruner.freeze()
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    x, y = np.ones((8, 8), np.float32), np.ones((8, 4), np.float32)
    model.fit(x, y, verbose=0)
    assert np.mean(model.get_layer("dense").kernel.numpy() == 0) == 0.5
    pruner.densify()
    model.fit(x, y, verbose=0)
    assert np.mean(model.get_layer("dense").kernel.numpy() == 0) < 0.5


def test_a_mapping_names_the_kernels_that_are_meant():
    pruner = tf_lap.Pruner(make_model(), allocation="uniform")
    pruner.update(0.5)
    pruner.densify({"head": 0.9})
    kept = {path: float(np.mean(mask)) for path, mask in pruner.masks.items()}
    assert kept == {"dense": 0.5, "head": 1.0}
    with pytest.raises(ValueError, match="'tail' matches no layer"):
        pruner.densify({"tail": 0.9})


def test_zeros_that_are_there_are_not_taken_for_pruned_ones_afterwards():
    model = make_model()
    kernel = model.get_layer("dense").kernel
    kernel.assign(np.where(np.arange(16) < 8, 0.0, kernel.numpy()))
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.densify()
    pruner.update(0.25)
    assert pruner.report().layers[0].kept == 96
