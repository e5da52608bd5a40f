"""Schedules with dense phases: tfmot's wrapper follows them, ours refuses them."""

import numpy as np
import pytest
from wrapped import compiled, fit, layers, perceptron, sparsity, tf_keras

import tf_lap


def alternating():
    return tf_lap.LookaheadPruningSchedule(0.9, decay="alternating", begin_step=1, end_step=9, frequency=4)


def test_wrappers_of_tf_lap_refuse_it_before_anything_changes():
    model = perceptron()
    before = model.get_weights()
    for to_prune in (model, layers.Dense(3)):
        with pytest.raises(
            ValueError, match=r"decay='alternating', .* use tf_lap.LAPCallback in fit, or another decay"
        ):
            tf_lap.prune_lookahead(to_prune, alternating())
    for weights, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.slow  # trains under tfmot's wrapper
def test_tfmots_own_wrapper_lets_pruned_weights_return():
    zeros = []

    class Zeros(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            mask = self.model.layers[0].pruning_vars[0][1]
            zeros.append(round(1 - float(np.mean(mask.numpy())), 1))

    fit(compiled(sparsity.prune_low_magnitude(perceptron(), alternating())), callbacks=[Zeros()], epochs=2)
    assert zeros == [0.9] * 4 + [0.0] * 4 + [0.9] * 4
