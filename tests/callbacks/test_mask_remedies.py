"""Each remedy that a message about masks, zeros and frozen layers in a training names is followed here, and helps."""

import functools
import warnings

import keras
import numpy as np
import perceptrons
import pytest
import tf_keras
from perceptrons import STEPS, Interrupt, assert_exact, data, fit, network, polynomial, quietly

import tf_lap

pytestmark = pytest.mark.slow  # each trains several times

both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
Schedule = tf_lap.LookaheadPruningSchedule
# Tracing would take most of the time of such short fits.
compiled = functools.partial(perceptrons.compiled, run_eagerly=True)


@pytest.mark.parametrize("remedy", ["more", "a schedule", "initial_sparsity", "a fit"])
def test_zeros_that_are_there_are_asked_for_or_trained_away(remedy):
    plain = keras.Sequential([keras.Input((16,)), keras.layers.Dense(24, name="a"), keras.layers.Dense(10, name="b")])
    model = compiled(plain)
    tf_lap.prune(model, 0.9, allocation="uniform")
    message = "ask for at least as many. To let them train again, fit once without pruning"
    with pytest.warns(UserWarning, match=message):
        tf_lap.prune(model, 0.5, allocation="uniform")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        if remedy == "more":
            assert tf_lap.prune(model, 0.95, allocation="uniform").sparsity == pytest.approx(0.95, abs=2e-3)
        elif remedy == "a schedule":  # whose first sparsities are lower
            fit(model, [tf_lap.LAPCallback(Schedule(0.95, end_step=10), allocation="uniform")])
            assert np.count_nonzero(model.layers[0].kernel) == 19
        elif remedy == "initial_sparsity":
            fit(model, [tf_lap.LAPCallback(Schedule(0.95, initial_sparsity=0.9, end_step=10), allocation="uniform")])
            assert np.count_nonzero(model.layers[0].kernel) == 19
        else:
            fit(model, [])
            assert tf_lap.prune(model, 0.5, allocation="uniform").sparsity == pytest.approx(0.5, abs=2e-3)


def test_masks_are_restored_into_the_model_and_filters_that_they_were_made_with():
    masks = tf_lap.Pruner(network(), filters="first")
    masks.update(0.9)
    arrays = {path: mask.numpy() for path, mask in masks.masks.items()}
    with pytest.raises(ValueError, match="Use the model and the filters that they were made with"):
        tf_lap.Pruner(network()).restore(arrays)
    pruner = tf_lap.Pruner(network(), filters="first")
    pruner.restore(arrays)
    assert pruner.sparsity == pytest.approx(0.9, abs=2e-3)


@pytest.mark.parametrize("remedy", ["the same filters", "delete"])
def test_a_backup_that_does_not_fit_is_used_as_it_was_or_deleted(remedy, tmp_path):
    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [tf_lap.LAPCallback(polynomial(), filters="first", backup_dir=tmp_path), Interrupt(4)])
    message = "Use the model and the filters that they were made with. Delete the directory to begin anew"
    with pytest.raises(ValueError, match=message):
        fit(model, [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)])
    if remedy == "delete":
        for path in tmp_path.iterdir():
            path.unlink()
        tmp_path.rmdir()
        model = compiled()
        quietly(model, [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)])
        assert_exact(model)
    else:
        fit(model, [tf_lap.LAPCallback(polynomial(), filters="first", backup_dir=tmp_path)])
        assert np.count_nonzero(model.get_layer("first").kernel) == 38


def test_masks_without_their_weights_go_on_with_keras_own_backup(tmp_path):
    def pruning():
        return tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path / "masks")

    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [pruning(), Interrupt(8)])
    with pytest.warns(
        UserWarning, match=r"Pass keras.callbacks.BackupAndRestore too, which restores the weights of the"
    ):
        fit(compiled(), [pruning()])

    def both_callbacks():
        return [keras.callbacks.BackupAndRestore(tmp_path / "weights"), pruning()]

    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [*both_callbacks(), Interrupt(8)])
    model, callbacks = compiled(), both_callbacks()
    quietly(model, callbacks)
    assert callbacks[1].step == STEPS
    assert_exact(model)


@pytest.mark.parametrize(
    "callback", [lambda: tf_lap.LAPCallback(Schedule(0.9, decay="constant")), tf_lap.PreserveSparsity]
)
def test_masks_of_another_pruner_are_released_first(callback):
    model = compiled()
    pruner = tf_lap.Pruner(model)
    pruner.update(0.9)
    pruner.freeze()
    with pytest.raises(ValueError, match=r"use one at a time, or call its release\(\) first"):
        fit(model, [callback()])
    pruner.release()
    quietly(model, [callback()])
    assert_exact(model)


def test_masks_of_an_interrupted_fit_are_released_first():
    model, callback = compiled(), tf_lap.LAPCallback(polynomial())
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Interrupt(8)])
    pruner = tf_lap.Pruner(model)
    pruner.update(0.95)
    with pytest.raises(ValueError, match=r"of another Pruner or callback already: .* call its release\(\) first"):
        pruner.freeze()
    callback.release()
    pruner.freeze()
    fit(model, [])
    assert_exact(model, 0.95)


def test_preserve_sparsity_is_passed_once():
    model = compiled()
    tf_lap.prune(model, 0.9)
    with pytest.raises(ValueError, match="pass it once, it keeps the zeros of all layers"):
        fit(model, [tf_lap.PreserveSparsity(), tf_lap.PreserveSparsity()])
    quietly(model, [tf_lap.PreserveSparsity()])
    assert_exact(model)


def test_beside_the_pruning_callback_preserve_sparsity_is_left_out():
    model = compiled()
    tf_lap.prune(model, 0.5)
    zeros = model.get_layer("first").kernel.numpy() == 0
    schedule = Schedule(0.9, initial_sparsity=0.5, end_step=10, frequency=3)
    with pytest.raises(ValueError, match="leave PreserveSparsity out, LAPCallback keeps pruned weights at zero itself"):
        fit(model, [tf_lap.LAPCallback(schedule), tf_lap.PreserveSparsity()])
    quietly(model, [tf_lap.LAPCallback(schedule)])
    assert not np.any(model.get_layer("first").kernel.numpy()[zeros])
    assert_exact(model)


@both
def test_a_frozen_model_is_fitted_without_the_callback_or_thawed(package):
    dense = [package.layers.Dense(24, name="first"), package.layers.Dense(10, name="head")]
    model = package.Sequential([package.Input((16,)), *dense, package.layers.BatchNormalization()])
    tf_lap.prune(model, 0.9, allocation="uniform")
    for layer in dense:
        layer.trainable = False
    model.compile("sgd", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    message = "leave the callback out, since frozen weights do not change, or set trainable = True on the layers"
    with pytest.raises(ValueError, match=message):
        model.fit(*data(), verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    model.fit(*data(), verbose=0)
    assert np.count_nonzero(dense[0].kernel.numpy()) == 38
    for layer in dense:
        layer.trainable = True
    model.compile("sgd", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    before = dense[0].kernel.numpy()
    model.fit(*data(), verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    assert np.count_nonzero(dense[0].kernel.numpy()) == 38
    assert np.any(dense[0].kernel.numpy() != before)


def test_without_an_adapter_the_layer_itself_is_trained_and_stays_sparse():
    model = compiled()
    tf_lap.prune(model, 0.9)
    sparse = model.get_weights()
    model.get_layer("first").enable_lora(2)
    with pytest.warns(UserWarning, match="train the layer itself, without enable_lora, to keep it sparse"):
        fit(compiled(model), [tf_lap.PreserveSparsity()])
    model = compiled()
    model.set_weights(sparse)
    quietly(model, [tf_lap.PreserveSparsity()])
    assert_exact(model)


def test_a_matrix_of_zeros_alone_stays_zero_when_frozen():
    model = compiled()
    tf_lap.prune(model, 0.9, filters="first|second")
    head = model.get_layer("head")
    head.kernel.assign(np.zeros((24, 10)))
    with pytest.warns(UserWarning, match=r"to keep them zero, freeze the layers \(trainable = False\)"):
        fit(model, [tf_lap.PreserveSparsity()])
    head.kernel.assign(np.zeros((24, 10)))
    head.trainable = False
    quietly(compiled(model), [tf_lap.PreserveSparsity()])
    assert not np.any(head.kernel)


@pytest.mark.parametrize("way", ["tf_lap.prune", "LAPCallback"])
def test_a_model_without_zeros_is_pruned_first(way):
    model = compiled()
    with pytest.warns(UserWarning, match="prune first, with tf_lap.prune or LAPCallback"):
        fit(model, [tf_lap.PreserveSparsity()])
    if way == "LAPCallback":
        fit(model, [tf_lap.LAPCallback(0.9)], epochs=3)
    else:
        tf_lap.prune(model, 0.9)
    quietly(model, [tf_lap.PreserveSparsity()])
    assert_exact(model)


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
@pytest.mark.parametrize("callback", ["the same", "another", "PreserveSparsity"])
def test_a_model_that_was_thawed_is_compiled_again(callback):
    base = keras.Sequential([keras.Input((16,)), keras.layers.Dense(24, name="a"), keras.layers.Dense(24, name="b")])
    base.trainable = False
    model = compiled(keras.Sequential([keras.Input((16,)), base, keras.layers.Dense(10, name="head")]))
    first = tf_lap.LAPCallback(Schedule(0.5, end_step=5), allocation="uniform")
    fit(model, [first])
    base.trainable = True
    before = [weight.numpy() for weight in model.weights]
    again = {
        "the same": first,
        "another": tf_lap.LAPCallback(Schedule(0.5, end_step=5), allocation="uniform"),
        "PreserveSparsity": tf_lap.PreserveSparsity(),
    }[callback]
    with pytest.raises(ValueError, match=r"layers were thawed after it was compiled: call model.compile\(...\) again"):
        fit(model, [again])
    for weight, expected in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    fit(model, [again])
    assert np.mean(base.layers[0].kernel.numpy() == 0) == (0.0 if callback == "PreserveSparsity" else 0.5)
