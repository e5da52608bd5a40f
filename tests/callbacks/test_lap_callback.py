"""What LAPCallback tells and refuses."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from perceptrons import (
    SIZES,
    STEPS,
    assert_exact,
    assert_nothing_left,
    compiled,
    data,
    fit,
    network,
    of_tf_lap,
    polynomial,
)

import tf_lap
from tf_lap.warn import PruningWarning

both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])


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
    for schedule in ("0.9", True, None, tf_lap.LookaheadPruningSchedule):
        with pytest.raises(
            TypeError, match=r"pruning_schedule=.*: expected the final sparsity, such as 0.9, or a tf_lap"
        ):
            tf_lap.LAPCallback(schedule)
    with pytest.raises(ValueError, match="score='best' is not known"):
        tf_lap.LAPCallback(polynomial(), score="best")
    with pytest.raises(ValueError, match="has not pruned yet"):
        _ = tf_lap.LAPCallback(polynomial()).report


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


@pytest.mark.slow
@both
@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
@pytest.mark.parametrize("schedule", [0.9, tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot")])
def test_a_model_that_fit_builds_is_resolved_at_the_first_batch(package, kind, schedule):
    first, second = (package.layers.Dense(24, activation="relu", name=name) for name in ("first", "second"))
    head = package.layers.Dense(10, name="head")

    class Net(package.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = first, second, head

        def call(self, x):
            return self.head(self.second(self.first(x)))

    model = package.Sequential([first, second, head]) if kind == "sequential" else Net()
    model.compile("adam", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    callback = tf_lap.LAPCallback(schedule, allocation="uniform")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "model .* cannot be followed")  # of a subclassed model of tf_keras
        model.fit(*data(), batch_size=16, epochs=3, verbose=0, callbacks=[callback])
    assert callback.step == 18
    for layer, size in zip((first, second, head), SIZES.values(), strict=True):
        assert np.count_nonzero(layer.kernel.numpy()) == round(size * 0.1)
    if package is keras or kind == "sequential":
        assert callback.report.layers[1].previous == ("first",)
    model.fit(*data(), batch_size=16, verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    assert np.count_nonzero(first.kernel.numpy()) == 38


@both
def test_frozen_layers_are_left_as_they_are_however_that_was_said(package):
    layers = package.layers
    inner = package.Sequential(
        [package.Input((16,)), layers.Dense(16, name="a"), layers.Dense(16, name="b")], name="in"
    )
    model = package.Sequential([package.Input((16,)), inner, layers.Dense(8, name="c"), layers.Dense(10, name="d")])
    inner.trainable = False
    model.layers[1].trainable = False
    model.compile("adam", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    before = [weights.copy() for weights in (*inner.get_weights(), *model.layers[1].get_weights())]
    callback = tf_lap.LAPCallback(0.9)
    with pytest.warns(UserWarning, match="can be pruned"):
        model.fit(*data(), batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    for weights, old in zip((*inner.get_weights(), *model.layers[1].get_weights()), before, strict=True):
        np.testing.assert_array_equal(weights, old)
    assert [layer.path for layer in callback.report.pruned] == ["d"]
    assert all("frozen" in layer.skipped for layer in callback.report.skipped)
    assert np.count_nonzero(model.layers[2].kernel.numpy()) == 8


def test_zeros_that_are_there_at_the_start_stay_and_are_said_where_less_is_asked():
    model = compiled()
    tf_lap.prune(model, 0.9, allocation="uniform")
    zeros = {name: model.get_layer(name).kernel.numpy() == 0 for name in SIZES}
    with pytest.warns(
        UserWarning, match="more zeros already than is asked now: 'first' 90.1%, asked 50.0%;.*They stay"
    ):
        history = fit(model, [tf_lap.LAPCallback(polynomial(0.5), allocation="uniform")])
    assert min(history.history["sparsity"]) >= 0.9
    for name, mask in zeros.items():
        assert not np.any(model.get_layer(name).kernel.numpy()[mask])
    assert_exact(model, 0.9)


@pytest.mark.parametrize("initial_sparsity", [0.0, 0.9])
def test_a_schedule_that_ends_sparser_than_the_model_is_does_not_warn(initial_sparsity):
    model = compiled()
    tf_lap.prune(model, 0.9)
    zeros = {name: model.get_layer(name).kernel.numpy() == 0 for name in SIZES}
    schedule = tf_lap.LookaheadPruningSchedule(0.95, initial_sparsity=initial_sparsity, end_step=10, frequency=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = fit(model, [tf_lap.LAPCallback(schedule)])
    assert min(history.history["sparsity"]) >= 0.9
    for name, mask in zeros.items():
        assert not np.any(model.get_layer(name).kernel.numpy()[mask])
    assert_exact(model, 0.95)


@pytest.mark.slow
def test_zeros_of_an_initializer_train_after_a_fit_without_pruning():
    model = compiled(network())
    model.get_layer("second").kernel.assign(np.eye(24))
    with pytest.warns(
        UserWarning, match="'second' 95.8%, asked 50.0%.* let them train again, fit once without pruning"
    ):
        fit(model, [tf_lap.LAPCallback(polynomial(0.5), allocation="uniform")], epochs=2)
    assert np.count_nonzero(model.get_layer("second").kernel) == 24
    fit(model, [])
    fit(model, [tf_lap.LAPCallback(polynomial(0.5, end_step=12), allocation="uniform")])
    assert_exact(model, 0.5)


class AssigningModel(keras.Model):
    """Plain gradient descent, written by hand: no optimizer, and so no constraint."""

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        for variable, gradient in zip(self.trainable_variables, gradients, strict=True):
            variable.assign(variable - 0.1 * gradient)
        return {"loss": loss}


@pytest.mark.parametrize("begin_step", [0, 5])
@pytest.mark.parametrize("callback_class", ["LAPCallback", "PreserveSparsity"])
def test_masks_hold_after_every_batch_whatever_moves_the_weights(callback_class, begin_step):
    plain = network()
    model = compiled(AssigningModel(plain.inputs, plain.outputs))
    schedule = tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot", begin_step=begin_step)
    callback = tf_lap.LAPCallback(schedule, allocation="uniform")
    if callback_class == "PreserveSparsity":
        tf_lap.prune(model, 0.9, allocation="uniform")
        callback, begin_step = tf_lap.PreserveSparsity(), 0
    nonzero = []
    first = model.get_layer("first").kernel
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: nonzero.append(np.count_nonzero(first))
    )
    with pytest.warns(UserWarning, match="something else than the optimizer moves them") as caught:
        fit(model, [callback, look])
    assert len([warning for warning in caught if issubclass(warning.category, PruningWarning)]) == 1
    assert set(nonzero[max(0, begin_step - 1) :]) == {38}
    assert_exact(model)
    assert_nothing_left(model)


@pytest.mark.slow
def test_it_is_copied_and_pickled_after_a_fit_with_its_report():
    model, callback = compiled(), tf_lap.LAPCallback(polynomial())
    fit(model, [callback])
    for again in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert again.report == callback.report
        assert again.step == STEPS
        other = compiled()
        fit(other, [again])
        assert again.step == STEPS
        assert_exact(other)


def test_a_transformer_of_which_little_can_be_pruned_warns_at_the_start():
    inputs = keras.Input((6,), dtype="int32")
    words = keras.layers.Embedding(2000, 16, name="words")(inputs)
    h = keras.layers.MultiHeadAttention(2, 4, name="attention")(words, words)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(keras.layers.GlobalAveragePooling1D()(h)))
    compiled(model)
    x, y = np.ones((32, 6), np.int32), np.zeros(32, int)
    with pytest.warns(UserWarning, match="can be pruned") as caught:
        history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[tf_lap.LAPCallback(0.9)])
    assert len(of_tf_lap(caught)) == 1
    assert history.history["sparsity"][-1] == pytest.approx(0.9, abs=0.005)
    assert history.history["model_sparsity"][-1] < 0.05
