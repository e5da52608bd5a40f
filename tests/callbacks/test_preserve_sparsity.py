"""Zeros that are kept by PreserveSparsity or by a user's own Pruner."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
import tf_keras
from perceptrons import SIZES, assert_nothing_left, compiled, data, fit, of_tf_lap, polynomial

import tf_lap

both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])


def test_preserve_sparsity_keeps_zeros_while_fine_tuning():
    model = compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    tf_lap.prune(model, 0.9)
    zeros = model.get_layer("first").kernel.numpy() == 0
    before = model.get_layer("first").kernel.numpy()
    fit(model, [tf_lap.PreserveSparsity()])
    after = model.get_layer("first").kernel.numpy()
    np.testing.assert_array_equal(after == 0, zeros)
    assert np.mean(after[~zeros] != before[~zeros]) > 0.5  # a dead unit's weights do not move
    assert_nothing_left(model)


@pytest.mark.parametrize("turn", [1, -1])
def test_preserve_sparsity_and_pruning_do_not_go_together(turn):
    model = compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match="LAPCallback and PreserveSparsity in one fit"):
        fit(model, [tf_lap.LAPCallback(polynomial()), tf_lap.PreserveSparsity()][::turn])
    for weights, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_preserve_sparsity_needs_a_kernel():
    model = keras.Sequential([keras.Input((16,)), keras.layers.BatchNormalization(), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="has no trainable weight matrix whose zeros could be preserved"):
        fit(compiled(model), [tf_lap.PreserveSparsity()])


@pytest.mark.slow
@pytest.mark.parametrize("callback", [lambda: tf_lap.LAPCallback(polynomial()), tf_lap.PreserveSparsity])
def test_a_users_own_pruner_keeps_its_hold(callback):
    model = compiled()
    pruner = tf_lap.Pruner(model, filters="first")
    pruner.update(0.5)
    pruner.freeze()
    with pytest.raises(ValueError, match="kernel of layer 'first' is held by the masks of another Pruner"):
        fit(model, [callback()])
    assert pruner.enforcement.attached
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel) == SIZES["first"] // 2
    fit(model, [tf_lap.LAPCallback(polynomial(), filters="second|head")])
    assert np.count_nonzero(model.get_layer("first").kernel) == SIZES["first"] // 2


def halve(matrix):
    """Zeroes every other weight of a matrix."""
    values = matrix.numpy().copy()
    values.ravel()[::2] = 0
    matrix.assign(values)
    return values == 0


def sequence_model(package):
    layers = package.layers
    ids = package.Input((6,), dtype="int32")
    # Of the default size, the embeddings are so small that the queries' gradients can vanish beside their weights.
    h = layers.Embedding(20, 8, embeddings_initializer=package.initializers.RandomNormal(stddev=1), name="table")(ids)
    h = layers.LSTM(8, return_sequences=True, name="lstm")(h)
    h = layers.MultiHeadAttention(2, 4, name="attention")(h, h)
    return package.Model(ids, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(h)))


@both
def test_zeros_of_every_trained_matrix_stay_whoever_owns_it(package):
    model = sequence_model(package)
    matrices = [v for v in model.trainable_variables if len(v.shape) > 1 and "bias" not in v.name]
    assert len(matrices) == 8  # a table, two of the LSTM, four of attention, a head
    zeros = [halve(matrix) for matrix in matrices]
    before = [matrix.numpy() for matrix in matrices]
    model.compile(
        package.optimizers.SGD(0.5), package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    x, y = np.random.default_rng(0).integers(0, 20, (64, 6)), np.arange(64) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    for matrix, mask, old in zip(matrices, zeros, before, strict=True):
        assert not np.any(matrix.numpy()[mask])
        assert not np.array_equal(matrix.numpy(), old)


@pytest.mark.slow
def test_a_legacy_optimizer_that_takes_no_constraint_for_embeddings_keeps_their_zeros_too():
    model = sequence_model(tf_keras)
    zeros = halve(model.get_layer("table").embeddings)
    model.compile(tf_keras.optimizers.legacy.SGD(0.5), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.random.default_rng(0).integers(0, 20, (64, 6)), np.arange(64) % 3
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    assert not np.any(model.get_layer("table").embeddings.numpy()[zeros])


def test_zeros_under_an_adapter_are_named():
    model = compiled()
    tf_lap.prune(model, 0.9)
    model.get_layer("first").enable_lora(2)
    second = model.get_layer("second").kernel.numpy() == 0
    with pytest.warns(
        UserWarning, match=r"cannot hold the zeros of 'first': LoRA adds .* without enable_lora"
    ) as caught:
        fit(compiled(model), [tf_lap.PreserveSparsity()])
    assert len(of_tf_lap(caught)) == 1
    assert not np.any(model.get_layer("second").kernel.numpy()[second])
    assert np.any(model.get_layer("first").lora_kernel_b)  # it begins with zeros, and learns


def test_a_matrix_of_zeros_alone_is_left_free_and_named():
    model = compiled()
    tf_lap.prune(model, 0.9, filters="first|second")
    model.get_layer("head").kernel.assign(np.zeros((24, 10)))
    with pytest.warns(UserWarning, match="leaves 'head' free, where all weights are zero"):
        fit(model, [tf_lap.PreserveSparsity()])
    assert np.count_nonzero(model.get_layer("head").kernel) > 0


def test_a_model_without_zeros_is_said_to_have_none():
    with pytest.warns(UserWarning, match="found no zero in the weight matrices: prune first"):
        fit(compiled(), [tf_lap.PreserveSparsity()])


@both
def test_a_frozen_matrix_is_not_held(package):
    inner = package.Sequential([package.Input((16,)), package.layers.Dense(8, name="a")], name="inner")
    model = package.Sequential([package.Input((16,)), inner, package.layers.Dense(10, name="b")])
    tf_lap.prune(model, 0.5)
    inner.trainable = False
    callback = tf_lap.PreserveSparsity()
    model.compile("sgd", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    held = []
    look = package.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: held.extend(callback._enforcement.kernels))
    model.fit(*data(), batch_size=16, verbose=0, callbacks=[callback, look])
    assert held == ["b"]


@both
def test_a_model_that_fit_builds_has_no_zeros_to_preserve_and_is_told_so_in_our_words(package):
    model = package.Sequential([package.layers.Dense(10)])
    model.compile("sgd", package.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    with pytest.raises(ValueError, match=r"is not built, so it has no kernels yet. Build it first"):
        model.fit(*data(), verbose=0, callbacks=[tf_lap.PreserveSparsity()])


def test_it_is_copied_and_pickled_after_a_fit():
    model, callback = compiled(), tf_lap.PreserveSparsity()
    tf_lap.prune(model, 0.9, allocation="uniform")
    fit(model, [callback])
    for again in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        fit(model, [again])
    assert np.count_nonzero(model.get_layer("first").kernel) == 38
