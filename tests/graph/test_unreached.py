"""Weights that no step of a recipe reaches, and the reasons that reports give."""

import keras
import numpy as np
import pytest

import tf_lap

layers = keras.layers


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_layers_of_keras_without_a_rule_are_boundaries_and_their_weights_are_named():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attend")(x, x)
    x = layers.LSTM(7, name="memory")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    report = tf_lap.prune(model, 0.5)
    assert [layer.path for layer in report.pruned] == ["head"]
    skipped = {layer.path: layer.skipped for layer in report.layers if layer.skipped}
    assert skipped["words"] == "Embedding has no kernel rule"
    assert skipped["memory/lstm_cell/recurrent_kernel"] == "LSTMCell has no kernel rule"
    assert skipped["attend/query"] == "EinsumDense has no kernel rule"
    assert len(skipped) == len([layer for layer in report.layers if layer.skipped])
    reason = "LSTM 'memory' has no channel rule; tf_lap.register_rule can add one"
    assert reason in tf_lap.neighbors(model)["head"].boundaries
    assert f"boundary: {reason}" in report.render(width=120).splitlines()


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_a_layer_pruned_before_lora_keeps_its_zeros():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    model.get_layer("a").enable_lora(2)
    (skipped,) = (layer.skipped for layer in tf_lap.prune(model, 0.5).layers if layer.path == "a/kernel")
    assert skipped.endswith("prune before it")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    assert [layer.kept for layer in tf_lap.prune(model, 0.5).pruned] == [12, 6]
    model.get_layer("a").enable_lora(2)
    assert np.count_nonzero(model.get_layer("a")._kernel) == 12
