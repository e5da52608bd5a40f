"""What LAPCallback tells and refuses."""

import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from perceptrons import STEPS, assert_exact, assert_nothing_left, compiled, data, fit, polynomial

import tf_lap


def test_logs_hold_the_sparsity_for_history_and_the_callbacks_behind(tmp_path):
    log = tmp_path / "log.csv"
    schedule = polynomial()
    history = fit(compiled(), [tf_lap.LAPCallback(schedule), keras.callbacks.CSVLogger(log)])
    expected = [schedule.sparsity_at(6), schedule.sparsity_at(10)]
    assert history.history["sparsity"] == pytest.approx(expected, abs=1e-3)
    assert "sparsity" in log.read_text().splitlines()[0]


def test_summaries_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorFlow writes summaries through the tensorboard package")
    fit(compiled(), [tf_lap.LAPCallback(polynomial(), log_dir=tmp_path)])
    (file,) = tmp_path.glob("events.out.tfevents.*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value}
    assert tags == {"sparsity", "sparsity/first", "sparsity/second", "sparsity/head"}


def test_a_log_dir_without_tensorboard_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        tf_lap.LAPCallback(polynomial(), log_dir=tmp_path)


def test_verbose_says_what_happens(capsys):
    fit(compiled(), [tf_lap.LAPCallback(polynomial(frequency=5), verbose=1)])
    assert capsys.readouterr().out == "step 0: sparsity 0.0000\nstep 5: sparsity 0.7875\nstep 10: sparsity 0.9000\n"


@pytest.mark.parametrize("decay", ["polynomial", "geometric"])
def test_a_training_that_is_too_short_warns_at_its_start_with_both_counts(decay):
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=13, frequency=5, decay=decay)
    with pytest.warns(UserWarning, match=r"ends at step 12, before the pruning schedule does at step 13"):
        fit(compiled(), [tf_lap.LAPCallback(schedule)])
    with pytest.warns(UserWarning, match=r"ends at step 6, before"):
        fit(compiled(), [tf_lap.LAPCallback(schedule)], initial_epoch=1)


def test_a_training_that_ends_with_the_schedule_reaches_it_and_does_not_warn():
    model = compiled()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, [tf_lap.LAPCallback(polynomial(end_step=STEPS, frequency=7))])
    assert_exact(model)


def test_a_foreign_schedule_is_asked_at_each_step():
    model = compiled()
    asked = []

    def schedule(step):
        asked.append(int(step))
        return step == 4, 0.9

    fit(model, [tf_lap.LAPCallback(schedule)])
    assert_exact(model)
    assert set(asked) == set(range(STEPS + 1))


def test_two_callbacks_in_one_fit_are_an_error_before_anything_changes():
    model = compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match="two LAPCallbacks in one fit"):
        fit(model, [tf_lap.LAPCallback(polynomial())] * 2)
    with pytest.raises(ValueError, match="two LAPCallbacks in one fit"):
        fit(model, [tf_lap.LAPCallback(polynomial()), tf_lap.LAPCallback(polynomial())])
    for kernel, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kernel, expected)
    assert_nothing_left(model)


def test_a_kernel_that_is_not_finite_is_named_before_training():
    model = compiled()
    model.get_layer("second").kernel.assign(np.full((24, 24), np.nan))
    with pytest.raises(ValueError, match="kernel of layer 'second' holds NaN"):
        fit(model, [tf_lap.LAPCallback(polynomial())])


def test_what_is_no_schedule_is_a_type_error():
    with pytest.raises(TypeError, match=r"pruning_schedule=0.9: expected a tf_lap.LookaheadPruningSchedule"):
        tf_lap.LAPCallback(0.9)
    with pytest.raises(ValueError, match="score='best' is not known"):
        tf_lap.LAPCallback(polynomial(), score="best")
    with pytest.raises(ValueError, match="has not pruned yet"):
        _ = tf_lap.LAPCallback(polynomial()).report


def test_steps_are_counted_where_the_length_is_not_known():
    x, y = np.zeros((16, 16), np.float32), np.zeros(16, int)
    model = compiled(steps_per_execution=4)
    batches = tf.data.Dataset.from_generator(
        lambda: ((x, y) for _ in range(10)),
        output_signature=(tf.TensorSpec((16, 16)), tf.TensorSpec((16,), tf.int64)),
    )
    callback = tf_lap.LAPCallback(polynomial(end_step=30))
    with pytest.warns(UserWarning, match="ended at step 20, before the pruning schedule does at step 30"):
        model.fit(batches, epochs=2, callbacks=[callback], verbose=0)
    assert callback.step == int(model.optimizer.iterations) == 20


def test_a_schedule_that_returns_no_pair_is_an_error_before_training():
    with pytest.raises(TypeError, match=r"pruning_schedule returned 0.5 for step 0: expected \(should_prune"):
        fit(compiled(), [tf_lap.LAPCallback(lambda step: 0.5)])


def test_weights_that_diverge_in_training_are_named_and_nothing_is_left_on_the_model():
    class Diverge(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.get_layer("second").kernel.assign(np.full((24, 24), np.nan))

    model = compiled()
    with pytest.raises(ValueError, match=r"kernel of layer '.*' holds NaN"):
        fit(model, [tf_lap.LAPCallback(polynomial()), Diverge()])
    assert_nothing_left(model)


def test_evaluating_with_a_callback_of_a_fit_that_ended_changes_nothing():
    model, callback = compiled(), tf_lap.LAPCallback(polynomial())
    fit(model, [callback])
    fit(model, [])
    before = model.get_weights()
    model.evaluate(*data(), callbacks=[callback], verbose=0)
    for weights, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_the_progress_bar_shows_the_sparsity(capsys):
    x, y = data()
    compiled().fit(x, y, callbacks=[tf_lap.LAPCallback(polynomial(end_step=3))], verbose=2)
    assert "sparsity: 0.90" in capsys.readouterr().out


def test_tensorboard_behind_it_logs_the_sparsity(tmp_path):
    pytest.importorskip("tensorboard", reason="keras.callbacks.TensorBoard needs the tensorboard package")
    fit(compiled(), [tf_lap.LAPCallback(polynomial()), keras.callbacks.TensorBoard(tmp_path)])
    files = [str(file) for file in tmp_path.rglob("events.out.tfevents.*")]
    tags = {v.tag for f in files for event in tf.compat.v1.train.summary_iterator(f) for v in event.summary.value}
    assert "epoch_sparsity" in tags
