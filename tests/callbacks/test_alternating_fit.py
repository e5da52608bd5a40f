"""Dense and sparse phases by turns in a fit: pruned weights return in dense phases, and only there."""

import keras
import numpy as np
import pytest
import resumed
import tf_keras
from perceptrons import (
    SIZES,
    Interrupt,
    Recorder,
    assert_exact,
    assert_nothing_left,
    compiled,
    data,
    fit,
    network,
    quietly,
)
from resumed import generators  # noqa: F401  (a fixture)

import tf_lap

# Sparse in steps 3 to 5 and 9 to 11, and from 15 on; 18 steps in 3 epochs.
DENSE = [*range(3), *range(6, 9), *range(12, 15)]
SPARSE = [step for step in range(18) if step not in DENSE]


def pruning_evenly(schedule, **arguments):
    """The callback, with the same sparsity for each kernel."""
    return tf_lap.LAPCallback(schedule, **{"allocation": "uniform", **arguments})


def alternating(sparsity=0.9, **arguments):
    steps = {"begin_step": 3, "end_step": 15, "frequency": 3}
    return tf_lap.LookaheadPruningSchedule(sparsity, decay="alternating", **(steps | arguments))


def count_zeros(recorder, step):
    """The zeros of the first layer after the step of a number, counted from 0; the update at its end is behind it."""
    return np.count_nonzero(recorder.kernels[step] == 0)


def most_zeros(sparsity=0.9):
    return SIZES["first"] - round(SIZES["first"] * (1 - sparsity))


def test_pruned_weights_return_in_dense_phases_and_only_there():
    model, recorder = compiled(), Recorder()
    quietly(model, [recorder, pruning_evenly(alternating())], epochs=3)
    assert [count_zeros(recorder, step) == most_zeros() for step in range(18)] == [step in SPARSE for step in range(18)]
    assert all(count_zeros(recorder, step) < 20 for step in DENSE)
    patterns = [recorder.kernels[step] != 0 for step in (4, 5, 10, 11, 16, 17)]
    for begin, end in zip(patterns[::2], patterns[1::2], strict=True):
        np.testing.assert_array_equal(begin, end)
    assert np.any(patterns[0] != patterns[2])  # masks were chosen anew
    assert_exact(model)
    assert_nothing_left(model)


def test_returning_weights_start_at_zero():
    model, recorder = compiled(optimizer=keras.optimizers.SGD(1e-3)), Recorder()
    fit(model, [recorder, pruning_evenly(alternating())], epochs=3)
    pruned = recorder.kernels[5] == 0
    assert 0 < np.abs(recorder.kernels[6][pruned]).max() < 1e-2 < np.abs(recorder.kernels[2][pruned]).max()


@pytest.mark.parametrize(
    ("sparsity", "choices"),
    [
        (0.5, {"pattern": "2:4"}),
        (0.75, {"pattern": "block:1x4"}),
        (0.9, {"allocation": "lamp"}),
        (0.9, {"order": "forward"}),
    ],
    ids=["2:4", "blocks", "lamp", "forward"],
)
def test_every_choice_goes_with_it(sparsity, choices):
    model, callback = compiled(), pruning_evenly(alternating(sparsity), **choices)
    quietly(model, [callback], epochs=3)
    assert callback.report.sparsity == pytest.approx(sparsity, abs=2e-3)
    assert callback.pruner.patterned


def test_the_log_and_the_lines_tell_dense_from_sparse(capsys):
    callback = pruning_evenly(alternating(begin_step=0, frequency=6, end_step=12), verbose=1)
    history = fit(compiled(), [callback], epochs=3).history["sparsity"]
    assert np.round(history, 1).tolist()[::2] == [0.9, 0.9]
    assert capsys.readouterr().out.splitlines() == [
        "step 0: sparsity 0.9000",
        "step 6: sparsity 0.9000, a dense phase begins",
        "step 12: sparsity 0.9000",
    ]


def test_alone_it_takes_its_phases_from_the_fit():
    model, recorder = compiled(), Recorder()
    schedule = tf_lap.LookaheadPruningSchedule(0.9, decay="alternating", phases=2)
    quietly(model, [recorder, pruning_evenly(schedule)], epochs=5)
    is_sparse = [count_zeros(recorder, step) == most_zeros() for step in range(30)]
    # Between steps 6 and 20 lie four phases of 3, and then the last one begins.
    assert is_sparse == [False] * 6 + [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3 + [True] * 12


def test_a_fit_that_ends_in_a_dense_phase_warns_and_the_next_goes_on_in_it():
    model, callback = compiled(), pruning_evenly(alternating(begin_step=0, frequency=5, end_step=20))
    with pytest.warns(UserWarning, match="ends at step 6, before the pruning schedule does at step 20"):
        fit(model, [callback], epochs=1)
    assert np.count_nonzero(model.get_layer("first").kernel) > 100
    recorder = Recorder()
    fit(model, [recorder, callback], epochs=3)
    assert [count_zeros(recorder, step) == most_zeros() for step in range(18)] == [False] * 4 + [True] * 5 + [
        False
    ] * 5 + [True] * 4
    assert_exact(model)


def test_zeros_of_the_start_return_in_dense_phases_too_but_not_in_layers_that_the_schedule_does_not_name():
    model, recorder = compiled(), Recorder()
    tf_lap.prune(model, 0.95, allocation="uniform")
    head = model.get_layer("head").kernel.numpy() == 0
    schedule = alternating({"first": 0.9, "second": 0.8}, begin_step=0)
    quietly(model, [recorder, pruning_evenly(schedule)], epochs=3)
    assert count_zeros(recorder, 0) == most_zeros(0.95)  # the first sparse phase begins with them
    assert count_zeros(recorder, 4) < most_zeros(0.7)  # units behind pruned weights are dead, and get no gradient
    assert count_zeros(recorder, 17) == most_zeros(0.9)
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy() == 0, head)


def test_a_sparse_model_trains_dense_at_once_where_the_schedule_begins_dense():
    model, recorder, callback = compiled(), Recorder(), pruning_evenly(alternating())
    tf_lap.prune(model, 0.95, allocation="uniform")
    quietly(model, [recorder, callback], epochs=3)
    assert count_zeros(recorder, 1) < most_zeros(0.7)
    assert [layer.kept for layer in callback.report.layers] == [round(size * 0.1) for size in SIZES.values()]


def test_callbacks_that_wait_for_the_final_sparsity_begin_in_the_last_phase(tmp_path):
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True)
    fit(compiled(), [pruning_evenly(alternating(), once_sparse=[best])], epochs=4)
    assert_exact(keras.models.load_model(tmp_path / "best.keras"))


@pytest.mark.parametrize("make_optimizer", [
    lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8),
    lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
], ids=["averages", "accumulated"])  # fmt: skip
def test_optimizers_that_keep_more_than_weights_end_with_exact_zeros(make_optimizer):
    model, recorder = compiled(optimizer=make_optimizer()), Recorder()
    quietly(model, [recorder, pruning_evenly(alternating())], epochs=3)
    assert count_zeros(recorder, 8) < 20
    assert_exact(model)


def test_executions_of_several_steps_change_phases_at_their_ends():
    model, recorder = compiled(steps_per_execution=3), Recorder()
    quietly(model, [recorder, pruning_evenly(alternating())], epochs=3)
    assert [kernel.nonzero()[0].size < 100 for kernel in recorder.kernels] == [False, True, False, True, False, True]
    assert_exact(model)


def test_tf_keras_alternates_too():
    model = resumed.prepared(tf_keras)
    zeros = []

    class Zeros(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            zeros.append(np.count_nonzero(self.model.get_layer("first").kernel.numpy() == 0))

    resumed.train(model, [Zeros(), pruning_evenly(alternating())])
    assert [count == most_zeros() for count in zeros] == [step in SPARSE for step in range(18)]
    assert np.count_nonzero(model.get_layer("first").kernel) == SIZES["first"] - most_zeros()


@pytest.mark.slow
@pytest.mark.usefixtures("generators")
@resumed.BOTH
@pytest.mark.parametrize("save_freq", ["epoch", 2])
@pytest.mark.parametrize("at", [8, 11, 14], ids=["dense", "sparse", "dense again"])
def test_a_training_killed_in_a_phase_goes_on_in_it(tmp_path, library, at, save_freq):
    def prepared():
        return resumed.prepared(library)

    resumed.assert_resumes(
        tmp_path / "backup", prepared, lambda: [pruning_evenly(alternating())], at, save_freq=save_freq
    )


@pytest.mark.parametrize("at", [8, 11, 14], ids=["dense", "sparse", "dense again"])
def test_a_backup_of_masks_of_another_phase_is_not_put_on_the_weights(tmp_path, at):
    def callbacks():
        pruning = pruning_evenly(alternating(), backup_dir=tmp_path / "masks")
        return [keras.callbacks.BackupAndRestore(tmp_path / "weights"), pruning]

    undisturbed = Recorder()
    fit(compiled(), [undisturbed, pruning_evenly(alternating())], epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [*callbacks(), Interrupt(at)], epochs=3)
    model, recorder = compiled(network()), Recorder()
    fit(model, [recorder, *callbacks()], epochs=3)
    done = 18 - len(recorder.kernels)
    assert done in (6, 12)  # epochs that were whole
    is_sparse = [np.count_nonzero(kernel == 0) >= most_zeros() for kernel in recorder.kernels]
    expected = [np.count_nonzero(kernel == 0) >= most_zeros() for kernel in undisturbed.kernels[done:]]
    assert is_sparse == expected
    assert_exact(model)


def test_the_best_weights_of_a_dense_epoch_are_zeroed_again():
    model = compiled(optimizer=keras.optimizers.SGD(0.5))
    x, y = data()
    stopping = keras.callbacks.EarlyStopping("loss", mode="max", patience=10, restore_best_weights=True)
    with pytest.warns(UserWarning, match="They are zeroed again"):
        model.fit(x, y, batch_size=16, epochs=3, callbacks=[stopping, pruning_evenly(alternating())], verbose=0)
    assert np.count_nonzero(model.get_layer("first").kernel) <= SIZES["first"] - most_zeros()
