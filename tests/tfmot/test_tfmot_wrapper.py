"""What tfmot's wrapper does, done by both side by side; and what ours does beside."""

import copy
import json

import numpy as np
import pytest
import tensorflow as tf
from wrapped import (
    at_once,
    both,
    compiled,
    data,
    decay,
    exactly,
    fit,
    kept,
    layers,
    masks,
    perceptron,
    sparsity,
    tf_keras,
    tfmot,
)

import tf_lap
from tf_lap import compat


@both
def test_without_the_callback_training_is_an_error(wrap):
    model = compiled(wrap(perceptron(), at_once()))
    with pytest.raises(tf.errors.InvalidArgumentError, match="UpdatePruningStep"):
        fit(model, callbacks=None)


@both
def test_a_loop_of_ones_own(wrap):
    model = wrap(perceptron(), at_once())
    steps, optimizer = sparsity.UpdatePruningStep(), tf_keras.optimizers.Adam(0.01)
    model.optimizer = optimizer
    steps.set_model(model)
    steps.on_train_begin()
    x = tf.random.stateless_normal((16, 16), seed=(1, 2))
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    steps.on_epoch_end(batch=-1)
    assert kept(sparsity.strip_pruning(model)) == exactly(0.9)


@both
def test_summaries_are_written(wrap, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorFlow 2.21 does not install it")
    model = compiled(wrap(perceptron(), at_once()))
    fit(model, [sparsity.PruningSummaries(str(tmp_path))])
    tags, values = set(), []
    for path in (tmp_path / "metrics").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.add(value.tag.split("/")[-1])
                if value.tag.endswith("sparsity"):
                    values.append(float(tf.make_ndarray(value.tensor)))
    assert {"sparsity", "threshold"} <= tags
    assert max(values) == pytest.approx(0.9, abs=0.01)


@pytest.mark.slow
@both
def test_stripping_gives_the_model_back_with_its_zeros(wrap):
    model = compiled(wrap(perceptron(), at_once()))
    fit(model)
    stripped = sparsity.strip_pruning(model)
    assert [type(layer) for layer in stripped.layers] == [layers.Dense] * 3
    assert [layer.name for layer in stripped.layers] == ["first", "second", "head"]
    assert kept(stripped) == exactly(0.9)
    # Trained again without a wrapper, a model is dense again; and what was stripped may go on being pruned.
    fit(compiled(stripped), callbacks=None)
    assert sum(kept(stripped)) > 2 * sum(exactly(0.9))
    compiled(model)
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == exactly(0.9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of")
@pytest.mark.parametrize("optimizer", ["adam", "legacy"])
def test_zeros_of_a_stripped_model_are_held_by_whoever_sets_constraints(optimizer):
    inputs = tf_keras.Input((6,))
    x = layers.Embedding(50, 8)(inputs)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    model = tf_keras.Model(inputs, layers.Dense(10)(layers.LSTM(3)(x)))
    legacy = optimizer == "legacy"

    def fresh_optimizer():
        return tf_keras.optimizers.legacy.Adam(0.01) if legacy else "adam"

    wrapped = compiled(tf_lap.prune_lookahead(model, at_once(0.5)), fresh_optimizer())
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 50, (32, 6)), rng.integers(0, 10, 32)
    wrapped.fit(tokens, labels, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    stripped = sparsity.strip_pruning(wrapped)
    compiled(stripped, fresh_optimizer())
    matrices = [weight for weight in stripped.trainable_weights if len(weight.shape) > 1 and "bias" not in weight.name]
    # Legacy optimizers refuse constraints on embeddings, whose gradients are sparse.
    held = [weight for weight in matrices if not (legacy and "embeddings" in weight.name)]
    zeros = [weight.numpy() == 0 for weight in held]
    assert len(matrices) == 8
    assert all(zero.sum() == zero.size // 2 for zero in zeros)
    for weight, zero in zip(held, zeros, strict=True):
        live = tf.constant(~zero, tf.float32)
        compat.set_constraint(weight, lambda value, live=live: value * live)
    stripped.fit(tokens, labels, epochs=2, verbose=0)
    for weight, zero in zip(held, zeros, strict=True):
        np.testing.assert_array_equal(weight.numpy() == 0, zero, err_msg=weight.name)
    if legacy:  # nothing of the wrapper holds what nobody else does
        assert np.count_nonzero(matrices[0]) > 200


@pytest.mark.slow
@both
def test_the_averages_that_fit_writes_back_hold_no_pruned_weights(wrap):
    optimizer = tf_keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    model = compiled(wrap(perceptron(), decay()), optimizer)
    fit(model)
    # Read without a pass through the model, after fit wrote the averages into the weights.
    counts = [np.count_nonzero(layer.layer.kernel.numpy()) for layer in model.layers]
    assert (counts == exactly(0.9)) == (wrap is tf_lap.prune_lookahead)  # with tfmot's wrapper they come back


@both
def test_between_two_updates_pruned_weights_stay_zero(wrap):
    model = compiled(wrap(perceptron(), at_once()), tf_keras.optimizers.SGD(0.5))
    steps = sparsity.UpdatePruningStep()
    steps.set_model(model)
    steps.on_train_begin()
    x, y = data()
    for _ in range(3):
        model.train_on_batch(x, y)
    counts = [np.count_nonzero(layer.layer.kernel.numpy()) for layer in model.layers]
    assert (counts == exactly(0.9)) == (wrap is tf_lap.prune_lookahead)  # with tfmot's they get gradients


def test_a_users_constraint_is_kept():
    bound = tf_keras.constraints.MaxNorm(0.05)
    model = tf_keras.Sequential([layers.Input((16,)), layers.Dense(10, name="dense", kernel_constraint=bound)])
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once()), tf_keras.optimizers.SGD(1.0))
    fit(wrapped)
    kernel = wrapped.layers[0].layer.kernel.numpy()
    assert np.count_nonzero(kernel) == 16
    assert np.all(np.linalg.norm(kernel, axis=0) <= 0.05 + 1e-6)


@both
def test_weights_that_were_set_are_masked_in_the_next_pass(wrap):
    model = compiled(wrap(perceptron(), at_once()))
    fit(model)
    model.layers[0].layer.kernel.assign(tf.ones((16, 24)))
    model.predict(np.zeros((2, 16)), verbose=0)
    assert kept(sparsity.strip_pruning(model)) == exactly(0.9)


class Scaled(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight("matrix", (shape[-1], 10))

    def call(self, x):
        return tf.matmul(x, self.matrix)

    def get_prunable_weights(self):
        return [self.matrix]


@both
def test_custom_layers_say_what_to_prune(wrap):
    model = compiled(wrap(tf_keras.Sequential([layers.Input((16,)), Scaled(name="scaled")]), at_once()))
    fit(model)
    assert np.count_nonzero(sparsity.strip_pruning(model).layers[0].matrix) == 16


class Turned(Scaled):
    """A layer whose matrix is `(outputs, inputs)`, which nothing says."""

    def build(self, shape):
        self.matrix = self.add_weight("matrix", (10, shape[-1]))

    def call(self, x):
        return tf.matmul(x, self.matrix, transpose_b=True)


def test_a_custom_layer_without_a_rule_says_that_it_is_ranked_by_magnitude():
    model = compiled(tf_lap.prune_lookahead(tf_keras.Sequential([layers.Input((16,)), Turned(name="s")]), at_once()))
    with pytest.warns(
        UserWarning, match=r"ranks the weights of 's' \(Turned\) by magnitude: the model's graph has no place"
    ):
        fit(model)


@pytest.mark.slow
@both
def test_masks_of_time_steps_reach_the_next_layer(wrap):
    stack = [layers.Embedding(5, 4, mask_zero=True, input_length=6), layers.LSTM(3), layers.Dense(10)]
    model = tf_keras.Sequential(stack)
    tokens = np.array([[1, 2, 0, 0, 0, 0], [1, 2, 3, 4, 1, 2]])
    expected = model.predict(tokens, verbose=0)
    got = wrap(model, at_once()).predict(tokens, verbose=0)
    same = np.allclose(got, expected, atol=1e-6)
    assert same == (wrap is tf_lap.prune_lookahead)  # tfmot's wrapper loses the mask of the embedding


def test_a_layer_keeps_its_own_precision():
    model = tf_lap.prune_lookahead(perceptron(dtype="float64"), at_once())
    assert model.layers[-1].compute_dtype == "float64"
    assert sparsity.prune_low_magnitude(perceptron(dtype="float64"), at_once()).layers[-1].compute_dtype == "float32"


def test_a_kernel_that_is_not_finite_is_named_and_nothing_changes():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()))
    kernel = model.layers[1].layer.kernel
    kernel.assign(tf.where(tf.eye(24) > 0, np.nan, 1.0))
    with pytest.raises(tf.errors.InvalidArgumentError, match="the kernel of layer second holds NaN"):
        fit(model)
    assert all(mask.all() for mask in masks(model).values())


def test_a_configuration_keeps_everything_and_any_registered_schedule():
    for schedule in (decay(), tf_lap.LookaheadPruningSchedule({"dense": 0.9}, end_step=10), Warmup(3)):
        wrapper = tf_lap.PrunableLayer(layers.Dense(3, name="dense"), schedule, sparsity_m_by_n=(2, 4))
        config = json.loads(json.dumps(wrapper.get_config()))
        again = tf_lap.PrunableLayer.from_config(config)
        assert again.sparsity_m_by_n == (2, 4)
        assert type(again.pruning_schedule) is type(schedule)
        assert json.dumps(again.get_config()) == json.dumps(config)
    theirs = sparsity.prune_low_magnitude(layers.Dense(3), sparsity_m_by_n=(2, 4))
    assert "sparsity_m_by_n" not in theirs.get_config()


@tf_keras.utils.register_keras_serializable(package="tests")
class Warmup(sparsity.PruningSchedule):
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        return step <= self.steps, tf.cast(step, tf.float32) / 10

    def get_config(self):
        return {"class_name": "Warmup", "config": {"steps": self.steps}}


def test_a_schedule_that_is_not_registered_is_an_error_that_names_it():
    config = tf_lap.PrunableLayer(layers.Dense(3), decay()).get_config()
    config["pruning_schedule"]["class_name"] = "Elsewhere"
    with pytest.raises(ValueError, match="schedule 'Elsewhere' is not known: decorate its class"):
        tf_lap.PrunableLayer.from_config(config)


def test_what_is_no_layer_is_an_error():
    with pytest.raises(ValueError, match="PrunableLayer wraps a layer of tf_keras, got 3"):
        tf_lap.PrunableLayer(3)
    with pytest.raises(ValueError, match="layer 'group' is a GroupNormalization, in which there is nothing that tfmot"):
        tf_lap.PrunableLayer(layers.GroupNormalization(name="group"))


def test_it_is_a_wrapper_of_tfmot():
    wrapper = sparsity.prune_low_magnitude(layers.Dense(2))
    assert issubclass(tf_lap.PrunableLayer, type(wrapper))
    assert tfmot.__version__


def test_a_trained_wrapper_can_be_copied():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()))
    fit(model)
    twin = copy.deepcopy(model.layers[0])
    assert twin.pruning_step == 12
    np.testing.assert_array_equal(twin.layer.kernel, model.layers[0].layer.kernel)
