"""Trainings that end in a pattern."""

import keras
import numpy as np
import pytest
from pattern_loops import as_rows, blocks_of, groups_of
from perceptrons import Interrupt, compiled, fit, network, polynomial

import tf_lap
from tf_lap import patterns
from tf_lap.graph.layouts import Layout
from tf_lap.patterns import NOfM


@pytest.mark.parametrize(("pattern", "sparsity"), [("2:4", 0.5), ("block:1x4", 0.9), (NOfM(1, 3), 2 / 3)])
def test_a_fit_ends_in_the_pattern(pattern, sparsity):
    model = compiled(network())
    callback = tf_lap.LAPCallback(polynomial(sparsity, frequency=2), pattern=pattern, allocation="uniform")
    fit(model, [callback])
    fit(model, [tf_lap.PreserveSparsity()])
    chosen = patterns.get(pattern)
    for path, mask in callback.pruner.masks.items():
        layout, weights = Layout(tuple(mask.shape)), model.get_layer(path).kernel.numpy()
        np.testing.assert_array_equal(weights != 0, mask)
        if isinstance(chosen, NOfM):
            assert np.count_nonzero(mask) == chosen.least(layout)
        else:
            rows = as_rows(mask.numpy(), False)[0]
            assert np.count_nonzero(rows[:, ::4]) == round(chosen.units(layout) * (1 - sparsity))


def test_a_schedule_of_ones_own_that_ends_before_the_pattern_is_told():
    callback = tf_lap.LAPCallback(lambda step: (True, min(0.3, step / 10)), pattern="2:4")
    with pytest.warns(UserWarning, match=r"sparsity 0.3\d*, before the masks have the pattern 2:4: .* end at 0.5"):
        fit(compiled(network()), [callback])


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "sparsity"), [("2:4", 0.5), ("block:1x4", 0.8)])
def test_a_crashed_training_goes_on_with_the_same_pattern(tmp_path, pattern, sparsity):
    def callbacks():
        keep = keras.callbacks.BackupAndRestore(tmp_path / "weights", delete_checkpoint=False)
        schedule = polynomial(sparsity, end_step=12, frequency=1)
        return [
            keep,
            tf_lap.LAPCallback(schedule, pattern=pattern, backup_dir=tmp_path / "masks", allocation="uniform"),
        ]

    before = compiled(network())
    with pytest.raises(KeyboardInterrupt):
        fit(before, [*callbacks(), Interrupt(9)])
    after, resumed = compiled(network()), callbacks()
    fit(after, resumed)
    chosen = patterns.get(pattern)
    for path, mask in resumed[1].pruner.masks.items():
        weights, layout = after.get_layer(path).kernel.numpy(), Layout(tuple(mask.shape))
        np.testing.assert_array_equal(weights != 0, mask)
        if pattern == "2:4":
            assert all(sum(as_rows(mask.numpy(), False)[p] for p in g) == 2 for g in groups_of(weights, False, 4))
        else:
            norms = blocks_of(mask.numpy(), False, 1, 4)
            assert np.count_nonzero(list(norms.values())) == round(chosen.units(layout) * (1 - sparsity))
