"""Scores that are measured over data: when they measure, what they need, and what they leave as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import chain
from relu_chains import data, relu_chain

import tf_lap
from tf_lap.scores import curvature

layers = keras.layers


def test_states_and_policies_stay_while_measuring():
    inputs = keras.Input((5, 4), batch_size=10)
    recurrent = layers.LSTM(4, stateful=True)
    hidden = layers.Dense(8, activation="relu", dtype="mixed_float16", name="half")(recurrent(inputs))
    model = keras.Model(inputs, layers.Dense(3, dtype="float32", name="head")(hidden))
    x = data((5, 4), 10)
    for score in ("lookahead_activation", "obd", "wanda", "obs_lookahead"):
        before = [np.array(state) for state in recurrent.states]
        tf_lap.prune(model, 0.5, score=score, data=x, filters=["half", "head"])
        for old, new in zip(before, recurrent.states, strict=True):
            np.testing.assert_array_equal(old, np.array(new))
        assert model.get_layer("half").compute_dtype == "float16"


def test_several_steps_measure_as_often(monkeypatch):
    calls, measure = [], curvature.measure_curvature
    monkeypatch.setattr(curvature, "measure_curvature", lambda *args: calls.append(1) or measure(*args))
    tf_lap.prune(relu_chain(6, 12, 4), 0.8, score="obd", data=data((6,)), steps=3)
    assert len(calls) == 3


@pytest.mark.parametrize("score", ["lookahead_activation", "obd", "obd_lookahead", "lookahead_wanda", "obs"])
def test_a_fit_measures_at_each_update(score, monkeypatch):
    model = relu_chain(16, 24, 24, 10)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = data((16,), 96), np.random.default_rng(0).integers(0, 10, 96)
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=10, frequency=3)
    callback = tf_lap.LAPCallback(schedule, score=score, data=tf.data.Dataset.from_tensor_slices((x, y)).batch(30))
    measured, kind = [], type(tf_lap.scores.get(score))
    gains = kind.gains

    def watched(self, *args):
        measured.append(gains(self, *args))
        return measured[-1]

    monkeypatch.setattr(kind, "gains", watched)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    assert callback.report.sparsity == pytest.approx(0.9, abs=0.002)
    assert len(measured) == 5
    assert np.abs(measured[0][1] - measured[-1][1]).max() > 0


@pytest.mark.parametrize(
    "score", ["lookahead_activation", "obd_lookahead", "wanda", tf_lap.scores.OBD(), tf_lap.scores.OBS()]
)
def test_data_must_be_given_where_it_is_needed_and_only_there(score):
    with pytest.raises(ValueError, match="is measured over data: pass data="):
        tf_lap.prune(chain(4, 5), 0.5, score=score)
    with pytest.raises(ValueError, match=r"data: input .* has shape \(None, 4\), samples have \(1, 3\)"):
        tf_lap.prune(chain(4, 5), 0.5, score=score, data=np.ones((9, 3)))
    with pytest.raises(ValueError, match="data is given, and score="):
        tf_lap.prune(chain(4, 5), 0.5, data=np.ones((9, 4)))


def test_an_endless_dataset_ends(monkeypatch):
    monkeypatch.setattr("tf_lap.pruning.options._MAX_SAMPLES", 50)
    endless = tf.data.Dataset.from_tensor_slices(data((4,), 8)).repeat()
    tf_lap.prune(relu_chain(4, 5, 3), 0.5, score="obd", data=endless)


def test_whatever_measuring_raises_leaves_nothing_on_the_model():
    model = relu_chain(16, 24, 10)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = data((16,), 96), np.zeros(96)
    calls = []

    def fails():
        raise RuntimeError("out of memory")

    class Failing(tf_lap.scores.OBD):
        def gains(self, *args):
            calls.append(1)
            return super().gains(*args) if len(calls) < 3 else fails()

    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=3, frequency=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.fit(x, y, verbose=0, callbacks=[tf_lap.LAPCallback(schedule, score=Failing(), data=x)])
    assert all(layer.kernel.constraint is None for layer in model.layers)


def test_what_is_not_finite_changes_nothing():
    model = relu_chain(4, 5, 3)
    model.layers[0].bias.assign([np.inf] * 5)
    before = model.layers[0].kernel.numpy()
    with pytest.raises(ValueError, match="measured over data around layer 'dense_0' is NaN or infinite"):
        tf_lap.prune(model, 0.5, score="obd", data=data((4,)))
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), before)
