"""How wrapped layers are called: arguments by position and by name, masks of time steps, layers around layers."""

import numpy as np
import pytest
import tensorflow as tf
from wrapped import at_once, compiled, layers, sparsity, tf_keras, wrappers

import tf_lap
from tf_lap.tfmot.prunable import has_kernel

pytestmark = pytest.mark.slow  # each trains several times

pytestmark = pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of")

TOKENS = np.array([[1, 2, 0, 0, 0, 0], [1, 2, 3, 4, 1, 2], [3, 0, 0, 0, 0, 0]])


def fit(model):
    compiled(model).fit(TOKENS, np.zeros(3), verbose=0, callbacks=[sparsity.UpdatePruningStep()])


def is_word(tokens):
    return layers.Lambda(lambda t: tf_keras.backend.not_equal(t, 0))(tokens)


def assert_alike(layer, call, mask_zero=False):
    """A wrapped layer computes what the layer does, and is pruned."""
    inputs = tf_keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 4, mask_zero=mask_zero)(inputs)
    state, mask, head = layers.Dense(2)(layers.Flatten()(x)), is_word(inputs), layers.Dense(10)
    plain = tf_keras.Model(inputs, head(call(layer, x, mask, state)))
    wrapper = tf_lap.PrunableLayer(layer, at_once(0.5))
    model = tf_keras.Model(inputs, head(call(wrapper, x, mask, state)))
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), plain.predict(TOKENS, verbose=0), atol=1e-6)
    fit(model)
    for weight, kept, _ in wrapper.pruning_vars:
        assert kept.numpy().sum() == np.count_nonzero(weight) == weight.shape.num_elements() // 2


RECURRENT = {
    "mask by name": lambda layer, x, mask, state: layer(x, mask=mask),
    "the mask of the input": lambda layer, x, mask, state: layer(x),
    "states by position": lambda layer, x, mask, state: layer(x, [state, state]),
    "states by position, mask by name": lambda layer, x, mask, state: layer(x, [state, state], mask=mask),
    "states by name": lambda layer, x, mask, state: layer(x, initial_state=[state, state]),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", RECURRENT)
def test_masks_and_states_reach_a_recurrent_layer_however_they_are_passed(call):
    assert_alike(layers.LSTM(2), RECURRENT[call], mask_zero=call == "the mask of the input")


@pytest.mark.slow
def test_masks_reach_a_bidirectional_layer():
    assert_alike(layers.Bidirectional(layers.GRU(2)), RECURRENT["mask by name"])


class Masked(layers.Dense):
    def call(self, x, mask=None):
        return tf.reduce_sum(super().call(x) * tf.cast(mask, x.dtype)[..., None], axis=1)

    def compute_mask(self, inputs, mask=None):
        return None  # the time steps are added up


@pytest.mark.slow
@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize(
    "call", [lambda layer, x, mask, state: layer(x, mask), lambda layer, x, mask, state: layer(x, mask=mask)]
)
def test_a_mask_reaches_a_custom_layer_by_position_and_by_name(call, mask_zero):
    assert_alike(Masked(2), call, mask_zero)


def test_other_arguments_by_position_reach_the_layer():
    inputs = tf_keras.Input((6,), dtype="int32")
    x, y = (layers.Embedding(5, size)(inputs) for size in (4, 8))
    attention = layers.MultiHeadAttention(2, 4)
    plain = tf_keras.Model(inputs, attention(x, y, y))
    model = tf_keras.Model(inputs, tf_lap.PrunableLayer(attention, at_once())(x, y, y))
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), plain.predict(TOKENS, verbose=0), atol=1e-6)


def test_training_by_position_is_that_of_the_wrapper_where_the_layer_takes_nothing_else():
    for wrap in (sparsity.prune_low_magnitude, tf_lap.prune_lookahead):
        wrapper = wrap(layers.Dense(10, name="alone"), at_once())
        wrapper.build((None, 16))
        wrapper.pruning_step.assign(0)
        wrapper(np.ones((2, 16), np.float32), True)
        assert wrapper.pruning_step == 1


def test_a_layer_that_makes_its_weights_in_its_first_call_says_how_to_wrap_it():
    inputs = tf_keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    with pytest.raises(ValueError, match=r"'attention' \(MultiHeadAttention\) does not have the weights") as caught:
        tf_lap.PrunableLayer(attention, at_once())(inputs, inputs)
    assert "call it once on its inputs before it is wrapped, or wrap the whole model" in str(caught.value)
    plain = tf_keras.Model(inputs, attention(inputs, inputs))  # it has been called now
    assert len(tf_lap.PrunableLayer(attention, at_once())(inputs, inputs).shape) == 3
    assert [layer.layer for layer in wrappers(tf_lap.prune_lookahead(plain, at_once()))] == [attention]


class Unknown(layers.Layer):
    def call(self, x):
        return x


AROUND = {
    "time-distributed dense": (lambda: layers.TimeDistributed(layers.Dense(8)), [32]),
    "bidirectional LSTM": (lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True)), [32, 16] * 2),
    "stacked cells": (lambda: layers.Bidirectional(layers.RNN([layers.GRUCell(2)], True)), [24, 12] * 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", AROUND)
@pytest.mark.parametrize("mask_zero", [False, True])
def test_layers_inside_time_distributed_and_bidirectional_are_pruned(kind, mask_zero, tmp_path):
    make, sizes = AROUND[kind]
    stack = [layers.Input((6,)), layers.Embedding(5, 4, mask_zero=mask_zero), make(), layers.GRU(3), layers.Dense(10)]
    plain = tf_keras.Sequential(stack)
    model = tf_lap.prune_lookahead(plain, at_once(0.5))
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), plain.predict(TOKENS, verbose=0), atol=1e-6)
    fit(model)
    model.save(tmp_path / "model.keras")
    for trained in (model, tf_keras.models.load_model(tmp_path / "model.keras")):
        weights = [weight for weight, _, _ in trained.layers[1].pruning_vars]
        assert [weight.shape.num_elements() for weight in weights] == sizes
        assert [np.count_nonzero(weight) for weight in weights] == [size // 2 for size in sizes]
    assert type(sparsity.strip_pruning(model).layers[1]) is type(stack[2])


def test_what_is_inside_them_decides_whether_there_is_anything_to_prune():
    assert not has_kernel(layers.TimeDistributed(layers.Flatten()))
    assert not has_kernel(layers.TimeDistributed(Unknown()))
    assert has_kernel(layers.TimeDistributed(layers.TimeDistributed(layers.Dense(3))))


def test_models_inside_time_distributed_are_left_unpruned_and_named():
    inner = tf_keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    model = tf_keras.Sequential([layers.Input((6, 4)), layers.TimeDistributed(inner, name="frames"), layers.LSTM(3)])
    with pytest.warns(UserWarning, match=r"leaves 'frames' \(TimeDistributed\) unpruned"):
        wrapped = tf_lap.prune_lookahead(model)
    assert wrapped.layers[0].name == "frames"
