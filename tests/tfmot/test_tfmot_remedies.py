"""Each remedy that a message of tf_lap.tfmot names is followed here, and helps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from wrapped import at_once, compiled, data, exactly, fit, kept, layers, masks, perceptron, sparsity, still, tf_keras

import tf_lap

pytestmark = pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of")


def counts(model):
    return [int(mask.sum()) for mask in masks(model).values()]


def test_steps_that_nothing_counts_are_counted_by_the_callback():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"pass tfmot\.sparsity.keras.UpdatePruningStep"):
        fit(model, callbacks=None)
    fit(model, epochs=1)
    assert counts(model) == exactly(0.9)


class Composite(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = tf_lap.PrunableLayer(layers.Dense(10, name="inner"), at_once())

    def call(self, x):
        return self.inner(x)


def test_steps_of_wrappers_in_custom_layers_count_from_what_is_assigned():
    composite = Composite()
    model = compiled(tf_keras.Sequential([layers.Input((16,)), composite]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="assign 0 to their pruning_step"):
        fit(model)
    composite.inner.pruning_step.assign(0)
    fit(model, epochs=1)
    assert np.count_nonzero(composite.inner.layer.kernel) == 16


def test_sound_weights_that_are_restored_are_pruned():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()), still())
    sound = [layer.get_weights() for layer in model.layers]
    model.layers[1].layer.kernel.assign(tf.fill((24, 24), np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="restore sound weights before pruning"):
        fit(model)
    for layer, weights in zip(model.layers, sound, strict=True):
        layer.set_weights(weights)
    # The failed step may have been counted; it is the only one at which this schedule is due.
    for layer in model.layers:
        layer.pruning_step.assign(0)
    fit(model, epochs=1)
    assert counts(model) == exactly(0.9)


class Unknown(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight("matrix", (shape[-1], 10))

    def call(self, x):
        return tf.matmul(x, self.matrix)


class Known(Unknown):
    def get_prunable_weights(self):
        return [self.matrix]


def test_a_method_makes_a_layer_prunable():
    with pytest.raises(ValueError, match=r"give it a method get_prunable_weights\(\)"):
        tf_lap.PrunableLayer(Unknown(name="odd"))
    with pytest.warns(UserWarning, match=r"a method get_prunable_weights\(\) tells it"):
        tf_lap.prune_lookahead(tf_keras.Sequential([layers.Input((16,)), Unknown(name="odd")]))
    model = compiled(tf_lap.prune_lookahead(tf_keras.Sequential([layers.Input((16,)), Known()]), at_once()))
    fit(model, epochs=1)
    assert counts(model) == [16]


@pytest.mark.parametrize("cure", ["an Input", "build"])
def test_a_model_that_is_not_built_is_built_first(cure):
    make = [layers.Dense(10, name="head")]
    model = compiled(tf_lap.prune_lookahead(tf_keras.Sequential(make), at_once()))
    with pytest.raises(AttributeError, match=r"give the model an Input, or call model.build\(input_shape\)"):
        fit(model)
    if cure == "build":
        model.build((None, 16))
    else:
        dense = layers.Dense(10, name="head")
        model = compiled(tf_lap.prune_lookahead(tf_keras.Sequential([layers.Input((16,)), dense]), at_once()))
    fit(model, epochs=1)
    assert counts(model) == [16]


class Elsewhere(sparsity.ConstantSparsity):
    pass


def test_a_schedule_that_is_not_registered_loads_within_a_scope():
    config = tf_lap.PrunableLayer(layers.Dense(3), Elsewhere(0.5, 0)).get_config()
    with pytest.raises(ValueError, match=r"load within a tf_keras.utils.custom_object_scope"):
        tf_lap.PrunableLayer.from_config(config)
    with tf_keras.utils.custom_object_scope({"Elsewhere": Elsewhere}):
        assert type(tf_lap.PrunableLayer.from_config(config).pruning_schedule) is Elsewhere


def test_a_keras_3_model_is_pruned_by_what_is_named():
    inputs = keras.Input((16,))
    model = keras.Model(inputs, keras.layers.Dense(10, name="dense")(inputs))
    with pytest.raises(ValueError, match=r"LAPCallback in fit, or at once with tf_lap.prune"):
        tf_lap.prune_lookahead(model)
    tf_lap.prune(model, 0.9)
    assert np.count_nonzero(model.layers[1].kernel) == 16


class Subclassed(tf_keras.Model):
    def __init__(self, wrap):
        super().__init__()
        self.head = wrap(layers.Dense(10, name="head"))

    def call(self, x):
        return self.head(x)


@pytest.mark.filterwarnings("ignore:model .* cannot be followed, so kernels")
def test_a_subclassed_model_wraps_its_layers_itself_or_takes_the_callback():
    with pytest.raises(ValueError, match=r"wrap the layers where the model makes them, or use tf_lap.LAPCallback"):
        tf_lap.prune_lookahead(Subclassed(lambda layer: layer))
    model = compiled(Subclassed(lambda layer: tf_lap.PrunableLayer(layer, at_once())))
    model(data()[0][:1])
    fit(model, epochs=1)
    assert np.count_nonzero(model.head.layer.kernel) == 16
    model = compiled(Subclassed(lambda layer: layer))
    model(data()[0][:1])
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=4, frequency=2)
    model.fit(*data(), batch_size=16, callbacks=[tf_lap.LAPCallback(schedule)], verbose=0)
    assert np.count_nonzero(model.head.kernel) == 16


def test_wrappers_of_tfmot_are_taken_off_first():
    theirs = sparsity.prune_low_magnitude(perceptron(), at_once())
    with pytest.warns(UserWarning, match=r"take it off first with strip_pruning\(model\)"):
        tf_lap.prune_lookahead(theirs, at_once())
    model = compiled(tf_lap.prune_lookahead(sparsity.strip_pruning(theirs), at_once()))
    fit(model, epochs=1)
    assert kept(sparsity.strip_pruning(model)) == exactly(0.9)


def test_steps_in_whole_floats_are_taken_and_others_are_refused_with_the_number_to_give():
    broken = sparsity.PolynomialDecay(0.0, 0.9, 0, 10.5)
    with pytest.raises(ValueError, match=r"PolynomialDecay has end_step=10.5: .* such as end_step=10$"):
        tf_lap.prune_lookahead(perceptron(), broken)
    schedule = sparsity.PolynomialDecay(0.0, 0.9, begin_step=0.0, end_step=10.0, frequency=2.0)
    model = compiled(tf_lap.prune_lookahead(perceptron(), schedule))
    fit(model)
    assert counts(model) == exactly(0.9)
    assert isinstance(schedule.end_step, float)
