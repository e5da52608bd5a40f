"""How a schedule fits the steps of a fit: counted, taken from its length, or told to be too short."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from perceptrons import STEPS, assert_exact, assert_nothing_left, compiled, data, fit, network, polynomial

import tf_lap


@pytest.mark.slow
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


def test_a_foreign_schedule_is_called_at_each_step():
    model = compiled()
    steps = []

    def schedule(step):
        steps.append(int(step))
        return step == 4, 0.9

    fit(model, [tf_lap.LAPCallback(schedule)])
    assert_exact(model)
    assert set(steps) == set(range(STEPS + 1))


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


@pytest.mark.parametrize("schedule", [0.9, {"first|second": 0.9, "head": 0.8}, tf_lap.LookaheadPruningSchedule(0.9)])
def test_a_sparsity_alone_takes_its_steps_from_the_length_of_the_fit(schedule):
    model, callback = compiled(), tf_lap.LAPCallback(schedule, allocation="uniform")
    sparsities = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: sparsities.append(callback.pruner.sparsity)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, [callback, look], epochs=5)  # 30 steps
    first, last = np.flatnonzero(sparsities)[0] + 1, np.argmax(np.array(sparsities) == sparsities[-1]) + 1
    assert (first, last) == (7, 20)  # the update at step 6, a fifth, is to the initial sparsity
    if schedule == {"first|second": 0.9, "head": 0.8}:
        assert np.count_nonzero(model.get_layer("head").kernel) == 48
    else:
        assert_exact(model)


def test_a_schedule_in_epochs_is_that_of_the_fit():
    model = compiled()
    schedule = tf_lap.LookaheadPruningSchedule(0.9, begin_epoch=4, end_epoch=4.5, frequency=1)
    history = fit(model, [tf_lap.LAPCallback(schedule)], initial_epoch=3, epochs=6)
    assert history.history["sparsity"] == [0, pytest.approx(0.9, abs=1e-3), pytest.approx(0.9, abs=1e-3)]


def test_a_fit_of_unknown_length_asks_for_steps_before_anything_changes():
    x, y = data()
    batches = tf.data.Dataset.from_generator(
        lambda: ((x[:16], y[:16]) for _ in range(4)),
        output_signature=(tf.TensorSpec((16, 16)), tf.TensorSpec((16,), tf.int64)),
    )
    model = compiled()
    with pytest.raises(ValueError, match=r"does not know how many steps an epoch has\. Pass steps_per_epoch"):
        model.fit(batches, verbose=0, callbacks=[tf_lap.LAPCallback(0.9)])
    assert_nothing_left(model)
    model.fit(batches.repeat(), steps_per_epoch=30, verbose=0, callbacks=[tf_lap.LAPCallback(0.9)])  # one remedy
    assert_exact(model)
    model = compiled()
    schedule = tf_lap.LookaheadPruningSchedule(0.9, begin_step=1, end_step=3, frequency=1)  # the other
    model.fit(batches, verbose=0, callbacks=[tf_lap.LAPCallback(schedule)])
    assert_exact(model)


@pytest.mark.parametrize("steps_per_execution", [1, 2, 4])
def test_steps_are_counted_where_another_optimizer_trains(steps_per_execution):
    class Net(keras.Model):
        def compile(self, inner, **arguments):
            super().compile(**arguments)
            self.inner = inner

        def train_step(self, batch):
            x, y = batch
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            self.inner.apply_gradients(
                zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
            )
            return {"loss": loss}

    plain = network()
    model = Net(plain.inputs, plain.outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(), loss=loss, jit_compile=False, steps_per_execution=steps_per_execution)
    x, y = data()
    batches = tf.data.Dataset.from_generator(
        lambda: ((x[:16], y[:16]) for _ in range(8)),
        output_signature=(tf.TensorSpec((16, 16)), tf.TensorSpec((16,), tf.int64)),
    )
    callback = tf_lap.LAPCallback(polynomial(end_step=8, frequency=1))
    model.fit(batches, verbose=0, callbacks=[callback])
    assert callback.step == 8
    assert_exact(model)


def test_fitting_epoch_by_epoch_warns_once():
    model, callback = compiled(), tf_lap.LAPCallback(polynomial(end_step=24))
    with pytest.warns(UserWarning, match="ends at step 6, before the pruning schedule does at step 24") as caught:
        any(fit(model, [callback], epochs=1) is None for _ in range(4))
    assert len([w for w in caught if "before the pruning schedule" in str(w.message)]) == 1
    assert_exact(model)
