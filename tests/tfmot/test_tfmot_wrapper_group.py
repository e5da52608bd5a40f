"""Which wrappers prune together, and over which graph."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import tensorflow as tf
from wrapped import (
    Subclassed,
    assert_masks,
    assert_pruned_as_by_prune,
    at_once,
    compiled,
    data,
    decay,
    exactly,
    fit,
    layers,
    masks,
    perceptron,
    reference,
    sparsity,
    still,
    tf_keras,
    wrappers,
)

import tf_lap


def nested():
    inner = tf_keras.Sequential(
        [layers.Input((16,)), layers.Dense(24, name="a"), layers.Dense(24, name="b")], name="in"
    )
    middle = tf_keras.Sequential([layers.Input((16,)), layers.ReLU(), inner], name="mid")
    inputs = tf_keras.Input((16,))
    return tf_keras.Model(inputs, layers.Dense(10, name="c")(middle(inputs)))


@pytest.mark.parametrize("make", [perceptron, nested])
@pytest.mark.parametrize("eager", [False, True])
def test_the_graph_is_that_of_the_outermost_model(make, eager):
    assert_pruned_as_by_prune(make(), eager)


class Composite(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = tf_lap.PrunableLayer(layers.Dense(24, name="inner"), at_once())

    def call(self, x):
        return tf.nn.relu(self.inner(x))


def test_a_wrapper_inside_a_custom_layer_is_found_through_its_call():
    inputs = tf_keras.Input((16,))
    x = Composite(name="composite")(inputs)
    head = tf_lap.PrunableLayer(layers.Dense(10, name="head"), at_once())
    model = compiled(tf_keras.Model(inputs, head(x)), still())
    inner = model.get_layer("composite").inner.layer
    scores = np.abs(inner.kernel) * np.linalg.norm(head.layer.kernel, axis=1)
    fit(model, epochs=1)
    expected = scores >= np.sort(scores.ravel())[-38]
    np.testing.assert_array_equal(inner.kernel.numpy() != 0, expected)


def test_each_layer_has_its_own_schedule():
    stack = [
        tf_lap.PrunableLayer(layers.Dense(24, name="first"), decay(0.5, 0, 4), input_shape=(16,)),
        tf_lap.PrunableLayer(layers.Dense(24, name="second"), sparsity_m_by_n=(2, 4)),
        tf_lap.PrunableLayer(layers.Dense(10, name="head"), decay(0.75, 2, 8), block_size=(4, 1)),
    ]
    model = compiled(tf_keras.Sequential(stack))
    fit(model)
    found = masks(model)
    assert [int(mask.sum()) for mask in found.values()] == [192, 288, 60]
    assert np.all(found["second"].reshape(6, 4, 24).sum(axis=1) == 2)
    assert np.all(np.isin(found["head"].reshape(6, 4, 10).sum(axis=1), [0, 4]))


def test_a_mapping_gives_layers_their_own_sparsity():
    schedule = tf_lap.LookaheadPruningSchedule({"first": 0.5, "he.*": 0.75}, end_step=8, frequency=4)
    model = compiled(tf_lap.prune_lookahead(perceptron(), schedule))
    fit(model)
    assert [int(mask.sum()) for mask in masks(model).values()] == [192, 576, 60]


def test_a_mapping_that_names_no_layer_is_an_error():
    schedule = tf_lap.LookaheadPruningSchedule({"nowhere": 0.5}, end_step=8)
    model = compiled(tf_lap.prune_lookahead(perceptron(), schedule))
    with pytest.raises(ValueError, match="nowhere"):
        fit(model)


def test_ours_and_tfmots_schedules_keep_as_many():
    ours = tf_lap.LookaheadPruningSchedule(0.9, end_step=10, frequency=2)
    for schedule in (ours, decay()):
        model = compiled(tf_lap.prune_lookahead(perceptron(), schedule))
        fit(model)
        assert [int(mask.sum()) for mask in masks(model).values()] == exactly(0.9)


def test_a_part_of_a_model_is_pruned_by_itself():
    # A head trained on the features that a body gave: the body is not called, and is not what prunes.
    model = tf_lap.prune_lookahead(perceptron(), at_once())
    head = compiled(
        tf_keras.Sequential([layers.Input((16,)), tf_lap.PrunableLayer(layers.Dense(24), at_once()), *model.layers[1:]])
    )
    fit(head)
    assert [int(mask.sum()) for mask in masks(head).values()][1:] == exactly(0.9)[1:]
    assert masks(model)["first"].all()


def test_outside_a_model_with_a_graph_magnitude_ranks_and_a_warning_says_so_once():
    model = compiled(Subclassed(), still())
    model(np.zeros((1, 16)))
    with pytest.warns(UserWarning, match="PrunableLayer") as caught:
        fit(model)
    messages = [str(w.message) for w in caught if "PrunableLayer" in str(w.message)]
    assert len(messages) == 1
    assert "'hidden' (Dense), 'head' (Dense) by magnitude: it is called outside a model with a graph" in messages[0]
    kernel = np.abs(model.hidden.layer.kernel)
    assert np.count_nonzero(kernel) == 38


def test_a_wrapper_alone_is_ranked_by_magnitude_and_says_so_once():
    wrapper = tf_lap.PrunableLayer(layers.Dense(10, name="alone"), at_once())
    wrapper.build((None, 16))
    wrapper.pruning_step.assign(0)
    kernel = np.abs(wrapper.layer.kernel)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            wrapper(np.ones((2, 16), np.float32), training=True)
    assert [str(w.message)[:74] for w in caught] == [
        "tf_lap.PrunableLayer ranks the weights of 'alone' (Dense) by magnitude: it"
    ]
    np.testing.assert_array_equal(wrapper.pruning_vars[0][1] != 0, kernel >= np.sort(kernel.ravel())[-16])


def test_a_model_that_is_gone_leaves_nothing_behind():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()))
    fit(model)
    gone = weakref.ref(model)
    del model
    tf_keras.backend.clear_session()
    gc.collect()
    assert gone() is None


def test_wrapped_models_are_seen_through():
    model = nested()
    wrapped = tf_lap.prune_lookahead(model, at_once())
    assert tf_lap.neighbors(wrapped) == tf_lap.neighbors(model)
    for path, (incoming, outgoing) in tf_lap.channel_energies(model).items():
        for ours, expected in zip(tf_lap.channel_energies(wrapped)[path], (incoming, outgoing), strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_a_pruner_does_not_take_a_model_that_wears_wrappers():
    wrapped = compiled(tf_lap.prune_lookahead(perceptron(), at_once()))
    with pytest.raises(ValueError, match=r"wears tfmot's pruning wrappers.*strip_pruning"):
        tf_lap.prune(wrapped, 0.5)
    with pytest.raises(ValueError, match="wears tfmot's pruning wrappers"):
        fit(wrapped, [tf_lap.LAPCallback(tf_lap.LookaheadPruningSchedule(0.5, end_step=5))])


def test_a_stripped_model_may_be_pruned_on_by_a_callback():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once(0.5)))
    fit(model)
    stripped = compiled(sparsity.strip_pruning(model))
    schedule = tf_lap.LookaheadPruningSchedule(0.9, initial_sparsity=0.5, end_step=5, frequency=1)
    fit(stripped, callbacks=None)
    callback = tf_lap.LAPCallback(schedule, allocation="uniform")
    stripped.fit(np.zeros((96, 16)), np.zeros(96), batch_size=16, callbacks=[callback], verbose=0)
    assert [np.count_nonzero(layer.kernel) for layer in stripped.layers] == exactly(0.9)


def test_a_wrapper_that_the_graph_does_not_show_prunes_alone():
    hidden = tf_lap.PrunableLayer(layers.Dense(24, name="hidden"), at_once())
    hidden.build((None, 16))
    hidden.pruning_step.assign(0)
    inputs = tf_keras.Input((16,))
    x = layers.Lambda(lambda t: hidden(t, training=True))(inputs)
    model = compiled(tf_keras.Model(inputs, tf_lap.PrunableLayer(layers.Dense(10, name="head"), at_once())(x)))
    with pytest.warns(UserWarning, match="it is called outside a model with a graph"):
        fit(model)
    assert [np.count_nonzero(kernel) for kernel in (hidden.layer.kernel, model.layers[-1].layer.kernel)] == [38, 24]


def test_a_plain_function_serves_as_a_schedule():
    model = compiled(tf_lap.prune_lookahead(perceptron(), lambda step: (step == 3, tf.constant(0.9))))
    fit(model)
    assert [int(mask.sum()) for mask in masks(model).values()] == exactly(0.9)


def test_a_wrapper_that_is_gone_leaves_nothing_behind():
    wrapper = tf_lap.PrunableLayer(layers.Dense(3), at_once())
    wrapper.build((None, 4))
    wrapper.pruning_step.assign(0)
    with pytest.warns(UserWarning, match="by magnitude"):
        wrapper(np.ones((1, 4), np.float32), training=True)
    gone = weakref.ref(wrapper)
    del wrapper
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("first", [sparsity.prune_low_magnitude, tf_lap.PrunableLayer])
def test_wrappers_of_tfmot_beside_ours_prune_by_themselves(first):
    second = tf_lap.PrunableLayer if first is sparsity.prune_low_magnitude else sparsity.prune_low_magnitude
    stack = [first(layers.Dense(24), pruning_schedule=at_once(), input_shape=(16,))]
    model = compiled(tf_keras.Sequential([*stack, second(layers.Dense(10), pruning_schedule=at_once())]))
    fit(model)
    assert [np.count_nonzero(layer.layer.kernel) for layer in model.layers] == [38, 24]


class Distiller(tf_keras.Model):
    def __init__(self, student):
        super().__init__()
        self.student = student

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compiled_loss(y, self.student(x, training=True))
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}

    def call(self, x):
        return self.student(x)


@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of")
@pytest.mark.parametrize("make", [lambda: Distiller(tf_lap.prune_lookahead(perceptron(), decay())), Subclassed])
def test_averages_hold_no_pruned_weights_whoever_has_the_optimizer(make):
    model = make()
    model(np.zeros((1, 16), np.float32))
    compiled(model, tf_keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5))
    steps = sparsity.UpdatePruningStep()
    model.fit(np.ones((96, 16)), np.zeros(96), batch_size=16, epochs=2, callbacks=[steps], verbose=0)
    kernels = [w for w in model.trainable_variables if len(w.shape) == 2]
    assert [np.count_nonzero(kernel) for kernel in kernels] in (exactly(0.9), [38, 24])


def test_sparsities_of_tfmot_count_as_what_they_stand_for():
    # 25 weights at 0.9: float32's 0.9 is a little less, and 2.5 of them would round to 3.
    wrapped = compiled(
        tf_lap.prune_lookahead(tf_keras.Sequential([layers.Input((16,)), layers.Dense(5), layers.Dense(5)]), at_once())
    )
    wrapped.compile("sgd", "mse")
    wrapped.fit(np.zeros((4, 16)), np.zeros((4, 5)), callbacks=[sparsity.UpdatePruningStep()], verbose=0)
    assert [int(layer.pruning_vars[0][1].numpy().sum()) for layer in wrapped.layers] == [8, 2]


class Penalty(layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_mean(x**2))
        return x


def test_losses_that_layers_and_models_add_are_kept():
    inputs = tf_keras.Input((16,))
    x = layers.Dense(24, name="hidden")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(10, name="head")(Penalty()(x)))
    model.add_loss(layers.Lambda(lambda t: tf.reduce_mean(t**2))(x))
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once()))
    fit(wrapped)
    assert [int(mask.sum()) for mask in masks(wrapped).values()] == [38, 24]
    assert len(wrapped.losses) == 2


@pytest.mark.slow
def test_masks_of_a_large_network_are_those_of_prune():
    model = tf_keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
    expected = reference(model)
    wrapped = tf_lap.prune_lookahead(model, at_once())
    for wrapper in wrappers(wrapped):
        wrapper.pruning_step.assign(0)
    wrapped(np.zeros((2, 32, 32, 3), np.float32), training=True)
    assert len(expected) == 36
    assert_masks(wrapped, expected)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_weights_that_are_not_due_keep_their_threshold(run_eagerly):
    every_step = tf_lap.LookaheadPruningSchedule(0.5, begin_step=0, end_step=12, frequency=1)
    every_third = tf_lap.LookaheadPruningSchedule(0.5, begin_step=0, end_step=12, frequency=3)
    model = tf_keras.Sequential(
        [
            layers.Input((16,)),
            tf_lap.PrunableLayer(layers.Dense(24, name="often"), every_step),
            tf_lap.PrunableLayer(layers.Dense(10, name="seldom"), every_third),
        ]
    )
    compiled(model, run_eagerly=run_eagerly)
    seen = []

    class Thresholds(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([float(layer.pruning_vars[0][2].numpy()) for layer in model.layers])

    model.fit(*data(), batch_size=16, verbose=0, callbacks=[sparsity.UpdatePruningStep(), Thresholds()])
    seldom = [thresholds[1] for thresholds in seen]
    assert len(seldom) == 6
    assert min(seldom[2:]) > 0
    assert len(set(seldom[2:])) <= 3
