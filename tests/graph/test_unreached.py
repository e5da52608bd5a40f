"""Weights that no step of a recipe reaches, and the reasons that reports give."""

import keras
import numpy as np
import pytest

import tf_lap
from tf_lap.report.coverage import OPT_IN

layers = keras.layers


class LeakyCell(layers.Layer):
    """A cell that has not the kernels of Keras's cells."""

    state_size = 3

    def build(self, shape):
        self.reading = self.add_weight(shape=(shape[-1], 3), name="reading")

    def call(self, inputs, states):
        state = 0.5 * states[0] + inputs @ self.reading
        return state, [state]


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_layers_of_keras_that_cannot_be_followed_are_boundaries_and_their_weights_are_named():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(inputs)
    x = layers.RNN(LeakyCell(name="leaky"), name="memory")(x)
    x = layers.SpectralNormalization(layers.Dense(4, name="inner"), name="spectral")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    report = tf_lap.prune(model, 0.5)
    assert [layer.path for layer in report.pruned] == ["head", "spectral/inner"]
    skipped = {layer.path: layer.skipped for layer in report.layers if layer.skipped}
    assert skipped["words"] == OPT_IN
    assert skipped["memory/leaky"] == "LeakyCell has no kernel rule"
    assert len(skipped) == len([layer for layer in report.layers if layer.skipped])
    reason = "RNN 'memory': its cell LeakyCell has not the kernels of a cell of Keras's"
    assert reason in tf_lap.neighbors(model)["head"].boundaries or reason in report.render(width=200)
    reason = "SpectralNormalization 'spectral' has no channel rule; tf_lap.register_rule can add one"
    assert reason in tf_lap.neighbors(model)["head"].boundaries
    assert f"boundary: {reason}" in report.render(width=120).splitlines()


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_a_layer_pruned_before_lora_keeps_its_zeros():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    model.get_layer("a").enable_lora(2)
    (skipped,) = (layer.skipped for layer in tf_lap.prune(model, 0.5).layers if layer.path == "a/kernel")
    assert skipped.endswith("prune before it")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    assert [layer.kept for layer in tf_lap.prune(model, 0.5, allocation="uniform").pruned] == [12, 6]
    model.get_layer("a").enable_lora(2)
    assert np.count_nonzero(model.get_layer("a")._kernel) == 12


def test_a_kernel_with_an_obstacle_that_reads_a_comparison_has_the_obstacle_as_its_reason():
    inputs = keras.Input((4,))
    is_positive = keras.ops.cast(keras.ops.greater(inputs, 0.0), "float32")
    adapted, head = layers.Dense(6, name="adapted"), layers.Dense(2, name="head")
    model = keras.Model(inputs, head(adapted(is_positive)))
    adapted.enable_lora(2)
    reason = (
        "Dense 'adapted': its kernel is not a floating-point variable (LoRA or quantization is on): prune before it"
    )
    assert tf_lap.neighbors(model)["head"].boundaries[0] == reason
