import keras
import numpy as np
import pytest
import tf_keras

import tf_lap
from tests.helpers.residual import residual


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"weights": 0.6}, {"bytes": 1000}, {"macs": 0.7, "weights": 0.5}])
def test_a_budget_is_kept_and_nearly_used(library, budget):
    model = residual(library.layers, library)
    before = tf_lap.cost(model)
    total = {"macs": before.macs, "weights": before.weights, "bytes": before.bytes}
    report = tf_lap.prune(model, budget=budget, pattern="channels")
    small = tf_lap.cost(tf_lap.shrink(model))
    after = {"macs": small.macs, "weights": small.weights, "bytes": small.bytes}
    assert report.channels.after._asdict() == {"weights": small.weights, "bytes": small.bytes, "macs": small.macs}
    shares = [after[name] / (value if value >= 1 else value * total[name]) for name, value in budget.items()]
    assert max(shares) <= 1
    assert max(shares) > 0.8


def test_round_to_holds_within_a_budget():
    model = residual(keras.layers, keras)
    report = tf_lap.prune(model, budget={"macs": 0.5}, pattern=tf_lap.patterns.Channels(round_to=4))
    assert [group.kept % 4 for group in report.channels.pruned] == [0, 0]
    assert report.channels.after.macs <= report.channels.before.macs / 2


def test_the_sparsities_of_a_budget_serve_a_schedule():
    model = residual(keras.layers, keras)
    sparsities = tf_lap.Pruner(model, pattern="channels").fit_budget({"macs": 0.5})
    assert sparsities.keys() == {"stem", "expand"}
    schedule = tf_lap.LookaheadPruningSchedule(sparsities, begin_step=0, end_step=6, frequency=2)
    model.compile("adam", "mse")
    callback = tf_lap.LAPCallback(schedule, pattern="channels")
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    model.fit(x, np.zeros((64, 4), np.float32), 8, verbose=0, callbacks=[callback])
    assert tf_lap.cost(tf_lap.shrink(model)).macs <= tf_lap.cost(model).macs / 2


def open_model(kr):
    """A model that takes images of any size; the Dense layer costs the same for all."""
    inputs = kr.Input((None, None, 3))
    x = kr.layers.GlobalAveragePooling2D()(kr.layers.Conv2D(8, 3, activation="relu")(inputs))
    return kr.Model(inputs, kr.layers.Dense(4)(kr.layers.Dense(16, activation="relu")(x)))


@pytest.mark.parametrize("kr", [keras, tf_keras])
def test_a_budget_of_a_model_with_open_axes_needs_their_size_as_the_message_says(kr):
    model = open_model(kr)
    before = model.get_weights()
    message = r"axes. Say their size.*input_shape=\(224, 224, 3\), in pattern=tf_lap.patterns.Channels\(input_shape"
    with pytest.raises(ValueError, match=message):
        tf_lap.prune(model, budget={"macs": 0.5}, pattern="channels")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    report = tf_lap.prune(model, budget={"macs": 0.5}, pattern=tf_lap.patterns.Channels(input_shape=(224, 224, 3)))
    assert report.channels.before.macs == tf_lap.cost(model, input_shape=(224, 224, 3)).macs
    assert report.channels.after.macs == tf_lap.cost(tf_lap.shrink(model), input_shape=(224, 224, 3)).macs
    assert report.channels.after.macs <= report.channels.before.macs / 2


@pytest.mark.parametrize(("input_shape", "error"), [((8, 8, 1), ValueError), (8, TypeError), ((8, 8), ValueError)])
def test_a_shape_that_the_model_does_not_take_changes_nothing(input_shape, error):
    model = open_model(keras)
    before = model.get_weights()
    with pytest.raises(error, match="input_shape"):
        tf_lap.prune(model, 0.5, pattern=tf_lap.patterns.Channels(input_shape=input_shape))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


BAD = [
    ({"macs": 0.001}, ValueError, "cannot be reached: with the fewest channels"),
    ({}, ValueError, "name one or more of"),
    ({"flops": 0.5}, ValueError, "name one or more of"),
    ({"macs": "half"}, TypeError, "expected a fraction below 1"),
    ({"macs": 0}, ValueError, "expected a fraction below 1"),
    (0.5, TypeError, "expected a mapping such as"),
]


@pytest.mark.parametrize(("budget", "error", "message"), BAD)
def test_what_is_no_budget_is_named_and_changes_nothing(budget, error, message):
    model = residual(keras.layers, keras)
    before = model.get_weights()
    with pytest.raises(error, match=message):
        tf_lap.prune(model, budget=budget, pattern="channels")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_budget_asks_for_whole_channels():
    model = residual(keras.layers, keras)
    with pytest.raises(ValueError, match="use pattern='channels'"):
        tf_lap.prune(model, budget={"macs": 0.5})
    with pytest.raises(TypeError, match="pass one of the two"):
        tf_lap.prune(model, 0.5, budget={"macs": 0.5}, pattern="channels")


@pytest.mark.parametrize("kr", [keras, tf_keras])
def test_of_many_reasons_the_first_are_named(kr):
    inputs = kr.Input((8,))
    shared = kr.layers.Dense(4, name="shared")(inputs)
    model = kr.Model(inputs, [kr.layers.Activation("tanh", name=f"out{number}")(shared) for number in range(5)])
    with pytest.raises(ValueError, match=r"no channel .* can be removed. 'shared' \(4\): .*'out0'.*'out2' and 2 more$"):
        tf_lap.prune(model, 0.5, pattern="channels")
