"""Each remedy that a message about a training's schedule, length and callbacks names is followed here, and helps."""

import functools

import keras
import numpy as np
import perceptrons
import pytest
import tensorflow as tf
import tf_keras
from perceptrons import SIZES, assert_exact, data, fit, polynomial, quietly

import tf_lap

pytestmark = pytest.mark.slow  # each trains several times

both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
Schedule = tf_lap.LookaheadPruningSchedule
# Tracing would take most of the time of such short fits.
compiled = functools.partial(perceptrons.compiled, run_eagerly=True)


@pytest.mark.parametrize(
    ("short", "message", "set_instead"),
    [
        (polynomial(end_step=20), "Train 8 steps more, or set end_step=12 or less", polynomial(end_step=12)),
        (
            Schedule(0.9, decay="one_shot", begin_step=15),
            "Train 3 steps more, or set begin_step=12 or less",
            Schedule(0.9, decay="one_shot", begin_step=12),
        ),
        (
            Schedule(0.9, decay="constant", begin_step=15, end_step=15),
            "Train 3 steps more, or set begin_step=12 or less",
            Schedule(0.9, decay="constant", begin_step=12, end_step=15),
        ),
        (
            Schedule(0.9, begin_step=12, end_step=18),
            "Train 6 steps more, or set end_step=12 or less, and begin_step to less than that",
            Schedule(0.9, begin_step=11, end_step=12),
        ),
        (
            Schedule(0.9, begin_epoch=2, end_epoch=3),
            "Train 6 steps more, or set end_step=12 or less, and begin_step to less than that",
            Schedule(0.9, begin_step=11, end_step=12),
        ),
    ],
)
def test_a_training_that_is_too_short_goes_on_or_takes_another_end(short, message, set_instead):
    model, callback = compiled(), tf_lap.LAPCallback(short)
    with pytest.warns(UserWarning, match=message):
        fit(model, [callback])
    quietly(model, [callback], epochs=2)
    assert_exact(model)
    model = compiled()
    quietly(model, [tf_lap.LAPCallback(set_instead)])
    assert_exact(model)


@pytest.mark.parametrize(
    ("schedule", "longer"),
    [
        (Schedule(0.9, begin_step=10), 3),
        (Schedule(0.9, begin_epoch=3, frequency=1), 6),
        (Schedule(0.9, begin_step=10, end_epoch=1), None),  # a longer training would not help
    ],
)
def test_a_fit_that_is_too_short_for_its_schedule_is_longer_or_gets_steps(schedule, longer):
    remedy = "give begin_step and end_step" if longer is None else "train longer, or give begin_step and end_step"
    with pytest.raises(ValueError, match=f"end at step [0-9]+: {remedy}"):
        fit(compiled(), [tf_lap.LAPCallback(schedule)])
    model = compiled()
    quietly(model, [tf_lap.LAPCallback(Schedule(0.9, begin_step=10, end_step=12))])
    assert_exact(model)
    if longer:
        model = compiled()
        quietly(model, [tf_lap.LAPCallback(schedule)], epochs=longer)
        assert_exact(model)


def test_a_pattern_is_reached_where_the_schedule_ends_as_the_warning_says():
    with pytest.warns(UserWarning, match="let the schedule end at 0.5"):
        fit(compiled(), [tf_lap.LAPCallback(lambda step: (step == 5, 0.3), pattern="2:4")])
    model = compiled()
    quietly(model, [tf_lap.LAPCallback(lambda step: (step == 5, 0.5), pattern="2:4")])
    assert_exact(model, 0.5)


@pytest.mark.parametrize("remedy", [0.9, Schedule(0.9, end_step=10), lambda step: (step == 5, 0.9)])
def test_schedules_that_an_error_names_are_taken(remedy):
    for wrong in ("0.9", Schedule):
        with pytest.raises(
            TypeError, match=r"expected the final sparsity, such as 0.9, or a .*Schedule\(0.9, end_step"
        ):
            tf_lap.LAPCallback(wrong)
    with pytest.raises(TypeError, match=r"expected \(should_prune, sparsity\)"):
        fit(compiled(), [tf_lap.LAPCallback(lambda step: 0.9)])
    model = compiled()
    quietly(model, [tf_lap.LAPCallback(remedy)])
    assert_exact(model)


def test_a_callback_has_a_report_once_it_was_passed_to_fit():
    callback = tf_lap.LAPCallback(0.9)
    with pytest.raises(ValueError, match=r"pass it to model.fit\(callbacks=\[...\]\) first"):
        _ = callback.report
    fit(compiled(), [callback])
    assert callback.report.sparsity == pytest.approx(0.9, abs=1e-3)


def test_callbacks_that_wait_are_callbacks_and_go_with_a_schedule_that_has_an_end():
    stopping = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
    with pytest.raises(TypeError, match="once_sparse: 'stopping' is no Keras callback"):
        tf_lap.LAPCallback(polynomial(), once_sparse=["stopping"])
    with pytest.raises(ValueError, match=r"use a tf_lap.LookaheadPruningSchedule"):
        tf_lap.LAPCallback(lambda step: (step == 5, 0.9), once_sparse=[stopping])
    model = compiled()
    quietly(model, [tf_lap.LAPCallback(Schedule(0.9, end_step=8), once_sparse=[stopping])], epochs=3)
    assert stopping.best_epoch >= 1
    assert_exact(model)


def keeper_of_the_first_epoch(kind, path):
    if kind == "checkpoint":
        return keras.callbacks.ModelCheckpoint(path, "rank", mode="min", save_best_only=True)
    return keras.callbacks.EarlyStopping("rank", mode="min", patience=9, restore_best_weights=True)


class Rank(keras.callbacks.Callback):
    """Makes each epoch worse than the one before."""

    def on_epoch_end(self, epoch, logs=None):
        logs["rank"] = epoch


@pytest.mark.parametrize(
    ("kind", "order", "message", "remedy"),
    [
        ("stopping", 1, "They are zeroed again, so these weights are not those", "once_sparse"),
        ("stopping", -1, r"LAPCallback's pruner.apply\(\) zeroes them", "a second fit"),
        ("checkpoint", -1, "so that model is less sparse", "once_sparse"),
        ("checkpoint", -1, "so that model is less sparse", "a second fit"),
    ],
)
def test_callbacks_that_keep_the_best_weights_keep_sparse_ones(kind, order, message, remedy, tmp_path):
    path = tmp_path / "best.keras"
    keeper, pruning = keeper_of_the_first_epoch(kind, path), tf_lap.LAPCallback(polynomial(end_step=16))
    both_remedies = r"once_sparse=\[...\]\), or fine-tune in a second fit with PreserveSparsity"
    with pytest.warns(UserWarning, match=rf"{message}.*{both_remedies}"):
        fit(compiled(), [Rank(), *[keeper, pruning][::order]], epochs=3)
    model, keeper = compiled(), keeper_of_the_first_epoch(kind, path)
    if remedy == "once_sparse":
        quietly(model, [Rank(), tf_lap.LAPCallback(polynomial(end_step=10), once_sparse=[keeper])], epochs=3)
    else:
        quietly(model, [tf_lap.LAPCallback(polynomial(end_step=10))])
        quietly(model, [Rank(), tf_lap.PreserveSparsity(), keeper])
    assert_exact(model)
    if kind == "checkpoint":
        assert_exact(keras.models.load_model(path))


def test_one_callback_with_a_mapping_takes_the_place_of_two():
    model = compiled()
    with pytest.raises(ValueError, match="pass one, with a mapping of sparsities where layers differ"):
        fit(model, [tf_lap.LAPCallback(0.9, filters="first"), tf_lap.LAPCallback(0.5, filters="second|head")])
    quietly(model, [tf_lap.LAPCallback({"first": 0.9, "second|head": 0.5})], epochs=3)
    assert [np.count_nonzero(model.get_layer(name).kernel) for name in SIZES] == [38, 288, 120]


def test_a_subclass_is_another_callback_of_the_same_kind():
    class Ours(tf_lap.LAPCallback):
        pass

    for order in (1, -1):
        with pytest.raises(ValueError, match="two LAPCallbacks in one fit: pass one"):
            fit(compiled(), [Ours(0.9), tf_lap.LAPCallback(0.9)][::order])


@pytest.mark.parametrize("remedy", ["steps_per_epoch", "assert_cardinality", "the schedule's steps"])
def test_a_dataset_of_unknown_length_is_pruned_as_the_message_says(remedy):
    x, y = data()
    batches = tf.data.Dataset.from_generator(
        lambda: zip(x.reshape(6, 16, 16), y.reshape(6, 16), strict=True),
        output_signature=(tf.TensorSpec((16, 16)), tf.TensorSpec((16,), tf.int64)),
    )
    model = compiled()
    with pytest.raises(ValueError, match=r"steps_per_epoch .*repeat\(\).*assert_cardinality.*begin_step="):
        model.fit(batches, epochs=4, verbose=0, callbacks=[tf_lap.LAPCallback(0.9)])
    schedule, arguments = 0.9, {}
    if remedy == "steps_per_epoch":
        batches, arguments = batches.repeat(), {"steps_per_epoch": 6}
    elif remedy == "assert_cardinality":
        batches = batches.apply(tf.data.experimental.assert_cardinality(6))
    else:
        schedule = Schedule(0.9, begin_step=2, end_step=20, frequency=2)
    model.fit(batches, epochs=4, verbose=0, callbacks=[tf_lap.LAPCallback(schedule, allocation="uniform")], **arguments)
    assert np.mean(model.get_layer("first").kernel.numpy() == 0) == pytest.approx(0.9, abs=2e-3)
