"""Embeddings by brute force: a look-up reads each row as often as another, and a table turned round them all."""

import keras
import numpy as np
import pytest
import tf_keras
from scored import check_operator, randomize, score_kernels

import tf_lap

BOTH = pytest.mark.parametrize("namespace", [keras, tf_keras], ids=lambda namespace: namespace.__name__)
ROWS = 6


@BOTH
def test_zeroing_a_weight_of_a_table_changes_the_operator_by_its_score(namespace):
    layers = namespace.layers
    tokens = namespace.Input((5,), dtype="int32")
    x = layers.Dense(2, use_bias=False, name="dense")(layers.Embedding(ROWS, 3, name="table")(tokens))
    scored = score_kernels(randomize(namespace.Model(tokens, x)))
    table, dense = scored["table"].weights, scored["dense"].weights
    check_operator(scored["table"], lambda kernel: [kernel @ dense / np.sqrt(ROWS)])
    check_operator(scored["dense"], lambda kernel: [table @ kernel / np.sqrt(ROWS)])


@BOTH
def test_words_and_places_are_added_up(namespace):
    layers = namespace.layers
    tokens, places = (namespace.Input((5,), dtype="int32", name=name) for name in ("tokens", "places"))
    x = layers.Embedding(ROWS, 3, name="words")(tokens) + layers.Embedding(4, 3, name="positions")(places)
    scored = score_kernels(randomize(namespace.Model([tokens, places], layers.Dense(2, name="dense")(x))))
    words, positions, dense = (scored[name].weights for name in ("words", "positions", "dense"))
    check_operator(scored["words"], lambda kernel: [kernel @ dense / np.sqrt(ROWS)])
    check_operator(scored["positions"], lambda kernel: [kernel @ dense / np.sqrt(4)])
    check_operator(scored["dense"], lambda kernel: [words @ kernel / np.sqrt(ROWS), positions @ kernel / np.sqrt(4)])


def build_reversible(**options):
    tokens = keras.Input((5,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(ROWS, 3, name="table", **options)
    x = keras.layers.Dense(3, use_bias=False, name="dense")(table(tokens))
    return randomize(keras.Model(tokens, table(x, reverse=True)))


@pytest.mark.skipif(not hasattr(keras.layers, "ReversibleEmbedding"), reason="this Keras has no ReversibleEmbedding")
def test_a_tied_table_is_one_kernel_of_two_uses():
    model = build_reversible()
    scored = score_kernels(model)
    assert list(scored) == ["table", "dense"]
    table, dense = scored["table"].weights, scored["dense"].weights
    check_operator(scored["table"], lambda kernel: [kernel @ dense / np.sqrt(ROWS), dense @ kernel.T])
    check_operator(scored["dense"], lambda kernel: [table @ kernel @ table.T / np.sqrt(ROWS)])
    assert tf_lap.neighbors(model)["table"].previous == tf_lap.neighbors(model)["table"].following == ("dense",)


@pytest.mark.skipif(not hasattr(keras.layers, "ReversibleEmbedding"), reason="this Keras has no ReversibleEmbedding")
def test_a_table_of_its_own_for_the_way_back():
    scored = score_kernels(build_reversible(tie_weights=False, logit_soft_cap=3.0))
    assert list(scored) == ["table", "dense", "table/reverse_embeddings"]
    table, dense, back = (kernel.weights for kernel in scored.values())
    check_operator(scored["table"], lambda kernel: [kernel @ dense / np.sqrt(ROWS)])
    check_operator(scored["dense"], lambda kernel: [table @ kernel @ back / np.sqrt(ROWS)])
    check_operator(scored["table/reverse_embeddings"], lambda kernel: [dense @ kernel])


def test_a_look_up_by_what_carries_channels_is_a_boundary():
    inputs = keras.Input((3,))
    numbers = keras.ops.cast(keras.layers.Dense(4, name="first")(inputs), "int32")
    model = keras.Model(inputs, keras.layers.Embedding(ROWS, 3, name="table")(numbers))
    boundaries = tf_lap.neighbors(model)["first"].boundaries
    assert boundaries[-1] == "Embedding 'table': looks up by a tensor that carries channels"
