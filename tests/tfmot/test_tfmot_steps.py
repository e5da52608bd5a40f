"""What counts as a step, of layers that are called once, often, both ways or never in a pass."""

import numpy as np
import pytest
from wrapped import (
    all_masks,
    assert_pruned_as_by_prune,
    at_once,
    compiled,
    decay,
    exactly,
    fit,
    layers,
    masks,
    perceptron,
    sparsity,
    tf_keras,
    wrappers,
)

import tf_lap

pytestmark = pytest.mark.slow  # each trains under tfmot's wrappers


def shared():
    inputs = tf_keras.Input((16,))
    dense = layers.Dense(16, activation="relu", name="twice")
    return tf_keras.Model(inputs, layers.Dense(10, name="head")(dense(dense(inputs))))


def siamese():
    tower = tf_keras.Sequential(
        [layers.Input((16,)), layers.Dense(8, name="a"), layers.Dense(8, name="b")], name="tower"
    )
    inputs = tf_keras.Input((16,))
    return tf_keras.Model(
        inputs, layers.Dense(10, name="head")(layers.Concatenate()([tower(inputs), tower(inputs * 2.0)]))
    )


@pytest.mark.parametrize("make", [shared, siamese])
@pytest.mark.parametrize("eager", [False, True])
def test_a_pass_through_a_model_is_one_step_however_often_a_layer_is_called(make, eager):
    wrapped = assert_pruned_as_by_prune(make(), eager)
    assert {int(layer.pruning_step) for layer in wrappers(wrapped)} == {12}
    theirs = compiled(sparsity.prune_low_magnitude(shared(), at_once()))
    fit(theirs, epochs=2)
    assert theirs.layers[1].pruning_step == 24  # tfmot counts calls


def test_wrappers_of_layers_without_weights_count_steps_too():
    relu = tf_lap.PrunableLayer(layers.ReLU(), at_once())
    fit(compiled(tf_keras.Sequential([layers.Input((16,)), layers.Dense(10), relu])))
    assert relu.pruning_step == 12


def backbone(**arguments):
    inputs = tf_keras.Input((16,))
    body = tf_keras.Sequential([layers.Input((16,)), layers.Dense(24, name="hidden")], name="body")
    return tf_keras.Model(inputs, layers.Dense(10, name="head")(body(inputs, **arguments)))


@pytest.mark.parametrize("wrap", [sparsity.prune_low_magnitude, tf_lap.prune_lookahead])
def test_a_part_that_is_never_trained_is_left_alone_and_the_rest_is_pruned(wrap):
    model = compiled(wrap(backbone(training=False), at_once()))
    fit(model)
    assert {name: int(mask.sum()) for name, mask in all_masks(model).items()} == {"head": 24, "body/hidden": 384}


@pytest.mark.parametrize("eager", [False, True])
def test_a_layer_that_is_called_both_ways_counts_one_step_a_pass(eager):
    body = tf_keras.Sequential([layers.Input((16,)), layers.Dense(24, name="hidden")], name="body")
    inputs = tf_keras.Input((16,))
    x = layers.Concatenate()([body(inputs, training=False), body(inputs * 2.0)])
    model = tf_keras.Model(inputs, layers.Dense(10, name="head")(x))
    model = compiled(tf_lap.prune_lookahead(model, decay()), run_eagerly=eager)
    fit(model)
    assert {int(layer.pruning_step) for layer in wrappers(model)} == {12}
    assert {name: int(mask.sum()) for name, mask in all_masks(model).items()} == {"head": 48, "body/hidden": 38}


class Idle(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.idle = tf_lap.PrunableLayer(layers.Dense(4), at_once())
        self.idle.build((None, 16))
        self.twice = tf_lap.PrunableLayer(layers.Dense(16, name="twice"), at_once())

    def call(self, x):
        return self.twice(self.twice(x))


@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of")
def test_wrappers_that_are_not_called_or_called_twice_in_a_custom_layer():
    inputs = tf_keras.Input((16,))
    head = tf_lap.PrunableLayer(layers.Dense(10, name="head"), at_once())
    custom = Idle()
    fit(compiled(tf_keras.Model(inputs, head(custom(inputs)))))
    assert [np.count_nonzero(each.layer.kernel) for each in (custom.twice, head)] == [26, 16]
    assert head.pruning_step == custom.twice.pruning_step == 12


@pytest.mark.slow
@pytest.mark.parametrize("frequency", [1, 5])
@pytest.mark.parametrize("decay_name", ["one_shot", "constant"])
def test_an_update_that_is_due_at_step_0_takes_place_in_the_first_step(decay_name, frequency):
    schedule = tf_lap.LookaheadPruningSchedule(0.9, decay=decay_name, frequency=frequency)
    model = compiled(tf_lap.prune_lookahead(perceptron(), schedule))
    model.fit(np.zeros((4, 16)), np.zeros(4), callbacks=[sparsity.UpdatePruningStep()], verbose=0)
    assert [int(mask.sum()) for mask in masks(model).values()] == exactly(0.9)
