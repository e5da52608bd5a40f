"""Learning rates for retraining, for optimizers of both Kerases."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_lap

BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def make_model(library=keras):
    return library.Sequential([library.layers.Input((4,)), library.layers.Dense(2, name="dense")])


def rates_of(schedule, steps):
    return [round(float(schedule(step)), 6) for step in steps]


def rates_in_fit(library, schedule, steps):
    """The learning rates that an optimizer takes, by how far plain gradient descent moves a bias of gradient 1."""
    model = make_model(library)
    model.compile(library.optimizers.SGD(schedule), lambda y, y_pred: tf.reduce_sum(y_pred, axis=-1))
    biases = []

    class Biases(library.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            biases.append(float(np.asarray(self.model.get_layer("dense").bias)[0]))

    x = np.zeros((steps, 4), np.float32)
    model.fit(x, np.zeros((steps, 2)), batch_size=1, callbacks=[Biases()], verbose=0)
    return np.round(-np.diff([0.0, *biases]), 5).tolist()


@BOTH
def test_a_straight_line_goes_from_the_peak_to_zero_and_stays_there(library):
    schedule = tf_lap.retraining_rate(make_model(library), peak=0.4, steps=4)
    assert isinstance(schedule, library.optimizers.schedules.LearningRateSchedule)
    assert rates_of(schedule, range(7)) == [0.4, 0.3, 0.2, 0.1, 0, 0, 0]
    assert rates_in_fit(library, schedule, 5) == pytest.approx([0.4, 0.3, 0.2, 0.1, 0], abs=1e-5)


@BOTH
def test_a_later_beginning_keeps_the_peak_until_then(library):
    schedule = tf_lap.retraining_rate(make_model(library), peak=0.4, steps=4, begin_step=2)
    assert rates_in_fit(library, schedule, 7) == pytest.approx([0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0], abs=1e-5)


@BOTH
def test_a_schedule_is_gone_back_to(library):
    steps_down = library.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.4, 0.2, 0.1])
    schedule = tf_lap.retraining_rate(make_model(library), rewind=steps_down, rewind_step=2)
    assert rates_of(schedule, range(5)) == rates_of(steps_down, range(2, 7))
    assert rates_in_fit(library, schedule, 4) == pytest.approx([0.4, 0.2, 0.2, 0.1], abs=1e-5)
    late = tf_lap.retraining_rate(make_model(library), rewind=steps_down, rewind_step=2, begin_step=10)
    assert rates_of(late, [0, 10, 11, 13]) == rates_of(steps_down, [2, 2, 3, 5])


def halve(step):
    return 0.8 * 0.5 ** (step // 2)


@BOTH
def test_a_function_is_gone_back_to(library):
    schedule = tf_lap.retraining_rate(make_model(library), rewind=halve, rewind_step=1)
    assert rates_of(schedule, range(4)) == [0.8, 0.4, 0.4, 0.2]
    assert rates_in_fit(library, schedule, 4) == pytest.approx([0.8, 0.4, 0.4, 0.2], abs=1e-5)


@BOTH
def test_a_model_that_was_saved_compiled_goes_on_with_its_rate(library, tmp_path):
    cosine = library.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    library.saving.register_keras_serializable(package="test_retraining")(halve)
    for number, arguments in enumerate([
        {"peak": 0.4, "steps": 4},
        {"peak": 0.4, "steps": 4, "begin_step": 2},
        {"rewind": cosine, "rewind_step": 50},
        {"rewind": halve, "rewind_step": 1},
    ]):  # fmt: skip
        model = make_model(library)
        schedule = tf_lap.retraining_rate(model, **arguments)
        model.compile(library.optimizers.SGD(schedule), "mse")
        model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0)
        model.save(tmp_path / f"{number}.keras")
        loaded = library.models.load_model(tmp_path / f"{number}.keras")
        rate = loaded.optimizer._learning_rate
        assert type(rate) is type(schedule)
        assert rates_of(rate, range(8)) == rates_of(schedule, range(8))


def test_the_straight_line_is_keras_s_own_so_that_its_file_needs_no_tf_lap():
    schedule = tf_lap.retraining_rate(make_model(), peak=0.4, steps=4)
    assert type(schedule) is keras.optimizers.schedules.PolynomialDecay


def test_a_configuration_makes_an_equal_schedule():
    cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    schedule = tf_lap.retraining_rate(make_model(), rewind=cosine, rewind_step=20, begin_step=10)
    again = type(schedule).from_config(schedule.get_config())
    assert again.get_config() == schedule.get_config()
    assert rates_of(again, [0, 10, 60, 500]) == rates_of(schedule, [0, 10, 60, 500])


def test_steps_above_what_float32_counts_are_counted():
    steps_down = keras.optimizers.schedules.PiecewiseConstantDecay([2**25 + 1], [0.4, 0.2])
    schedule = tf_lap.retraining_rate(make_model(), rewind=steps_down, rewind_step=1)
    assert rates_of(schedule, [2**25, 2**25 + 1]) == [0.4, 0.2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "was given neither: give peak and steps"),
        ({"peak": 0.1}, "was given peak=0.1: give peak and steps"),
        ({"steps": 5}, "was given steps=5: give"),
        ({"rewind_step": 5}, "was given rewind_step=5: give .* or rewind and rewind_step"),
        ({"peak": 0.1, "steps": 5, "rewind": halve, "rewind_step": 5}, "was given peak=0.1, steps=5, rewind="),
        ({"peak": 0, "steps": 5}, "peak=0 must be a finite number above 0"),
        ({"peak": float("nan"), "steps": 5}, "peak=nan must be"),
        ({"peak": 0.1, "steps": 0}, "steps=0 must be at least 1"),
        ({"rewind": halve, "rewind_step": -1}, "rewind_step=-1 must be at least 0"),
        ({"peak": 0.1, "steps": 5, "begin_step": -1}, "begin_step=-1 must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_lap.retraining_rate(make_model(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peak": "0.1", "steps": 5}, "peak='0.1': expected a learning rate"),
        ({"peak": 0.1, "steps": 2.5}, "steps=2.5: expected an integer"),
        ({"rewind": 0.1, "rewind_step": 5}, "rewind=0.1: expected a learning-rate schedule, or a function"),
    ],
)
def test_what_is_of_another_kind_is_a_type_error(arguments, message):
    with pytest.raises(TypeError, match=message):
        tf_lap.retraining_rate(make_model(), **arguments)


def test_what_is_no_model_is_a_type_error():
    with pytest.raises(TypeError, match=r"expected a keras.Model or a tf_keras.Model, got float"):
        tf_lap.retraining_rate(0.1, 100, 5)


def test_a_schedule_of_the_other_keras_is_an_error_that_names_the_right_one():
    theirs = tf_keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    with pytest.raises(ValueError, match=r"is no keras.optimizers.schedules.LearningRateSchedule, and model .* keras"):
        tf_lap.retraining_rate(make_model(), rewind=theirs, rewind_step=5)
    ours = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    with pytest.raises(ValueError, match=r"is no tf_keras.optimizers.schedules.LearningRateSchedule"):
        tf_lap.retraining_rate(make_model(tf_keras), rewind=ours, rewind_step=5)
