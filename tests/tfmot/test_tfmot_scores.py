"""Scores of one's choice inside tfmot's pipelines: the masks are those of `tf_lap.prune` with the same score."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from wrapped import at_once, compiled, fit, layers, masks, perceptron, sparsity, still, tf_keras

import tf_lap
from tf_lap.scores import Lookahead, Magnitude, Random


@dataclasses.dataclass(frozen=True)
class FromBelow(Magnitude):
    """Small weights matter most."""

    def score(self, kernel, weights, incoming, outgoing):
        return 1 / (1e-3 + tf.abs(weights))


QUICK = ["magnitude", Lookahead(distance=None), FromBelow()]
SCORES = [*QUICK, "random", Lookahead(distance=2), Lookahead(look="back")]


def expected_masks(model, score, fraction=0.8):
    twin = tf_keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    pruner = tf_lap.Pruner(twin, score=score, allocation="uniform")
    pruner.update(fraction)
    return {path: mask.numpy() for path, mask in pruner.masks.items()}


@pytest.mark.parametrize(
    ("score", "jit_compile"),
    [
        pytest.param(score, jit, marks=() if score in QUICK and not jit else pytest.mark.slow, id=f"{score}-{jit}")
        for score in SCORES
        for jit in (False, True)
    ],
)
def test_masks_are_those_of_prune(score, jit_compile):
    model = perceptron()
    expected = expected_masks(model, score)
    wrapped = tf_lap.prune_lookahead(model, at_once(0.8), score=score)
    fit(compiled(wrapped, still(), jit_compile=jit_compile), epochs=1)
    for name, mask in masks(wrapped).items():
        np.testing.assert_array_equal(mask, expected[name])


@pytest.mark.slow
def test_by_magnitude_the_masks_are_tfmots():
    model, twin = perceptron(), perceptron()
    twin.set_weights(model.get_weights())
    pruned = [
        tf_lap.prune_lookahead(model, at_once(0.8), score="magnitude"),
        sparsity.prune_low_magnitude(twin, at_once(0.8)),
    ]
    for wrapped in pruned:
        fit(compiled(wrapped, still()), epochs=1)
    for name, mask in masks(pruned[0]).items():
        assert np.count_nonzero(mask != masks(pruned[1])[name]) <= 1  # tfmot counts in float32


def test_each_wrapper_may_have_its_own_score():
    inner = [layers.Dense(24, name="first"), layers.Dense(24, name="second"), layers.Dense(10, name="head")]
    scores = ["magnitude", "lookahead", Random(3)]
    wrapped = tf_keras.Sequential(
        [
            layers.Input((16,)),
            *(tf_lap.PrunableLayer(d, at_once(0.8), score=s) for d, s in zip(inner, scores, strict=True)),
        ]
    )
    plain = sparsity.strip_pruning(wrapped)
    expected = {d.name: expected_masks(plain, s)[d.name] for d, s in zip(inner, scores, strict=True)}
    fit(compiled(wrapped, still()), epochs=1)
    for name, mask in masks(wrapped).items():
        np.testing.assert_array_equal(mask, expected[name])


def with_gain(shape, initializer):
    """A model with a layer that lets a weight of its own be pruned."""

    class Gain(layers.Layer):
        def build(self, input_shape):
            self.gain = self.add_weight(name="gain", shape=shape, initializer=initializer)

        def call(self, x):
            return x * self.gain

        def get_prunable_weights(self):
            return [self.gain]

    return tf_keras.Sequential([layers.Input((16,)), Gain(name="gain"), layers.Dense(10, name="head")])


def test_a_vector_that_a_layer_lets_prune_is_pruned():
    model = with_gain((16,), "random_normal")
    wrapped = tf_lap.prune_lookahead(model, at_once(0.5), score="magnitude")
    before = np.abs(wrapped.layers[0].layer.gain.numpy())
    fit(compiled(wrapped, still()), epochs=1)
    np.testing.assert_array_equal(masks(wrapped)["gain"], before >= np.sort(before)[8])


@pytest.mark.slow
def test_at_a_distance_layers_between_the_kernels_are_read_as_they_are_in_the_step():
    model = tf_keras.Sequential(
        [
            layers.Input((16,)),
            layers.BatchNormalization(),
            layers.Dense(24, name="first"),
            layers.BatchNormalization(),
            layers.Dense(24, name="second"),
            layers.Dense(10, name="head"),
        ]
    )
    for score in (Lookahead(distance=2), Lookahead(distance=None)):
        expected = expected_masks(model, score)
        wrapped = tf_lap.prune_lookahead(model, at_once(0.8), score=score)
        fit(compiled(wrapped, still()), epochs=1)
        for name, mask in masks(wrapped).items():
            if not name.startswith("batch"):
                np.testing.assert_array_equal(mask, expected[name])


def test_a_number_that_a_layer_lets_prune_stays():
    model = with_gain((), "ones")
    wrapped = tf_lap.prune_lookahead(model, at_once(0.5), score="magnitude")
    fit(compiled(wrapped, still()), epochs=1)
    assert masks(wrapped)["gain"] == 1


@pytest.mark.slow
def test_nothing_is_said_of_weights_apart_where_the_score_does_not_look_around(recwarn):
    model = tf_keras.Sequential([layers.Input((6,)), layers.Embedding(20, 8), layers.LSTM(4), layers.Dense(10)])
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once(0.5), score="magnitude"))
    tokens = np.random.default_rng(0).integers(0, 20, (32, 6))
    wrapped.fit(tokens, np.zeros(32), verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    assert not [warning for warning in recwarn if issubclass(warning.category, tf_lap.warn.PruningWarning)]
    assert all(np.mean(mask) == 0.5 for mask in masks(wrapped).values())


class Apart(layers.Layer):
    """Lets a weight of its own be pruned, which fits no channels, so has no place in a graph; and changes nothing."""

    def build(self, input_shape):
        self.table = self.add_weight(name="table", shape=(32, 8))

    def call(self, x):
        return x + 0.0 * tf.reduce_sum(self.table)

    def get_prunable_weights(self):
        return [self.table]


@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of 'apart'")
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("score", ["lookahead", Lookahead(distance=2)], ids=str)
def test_weights_without_a_place_in_the_graph_change_no_other_mask(score, jit_compile):
    model = perceptron()
    for layer in model.layers:
        layer.kernel.assign(layer.kernel * 5e-6)
    apart = tf_keras.Sequential([layers.Input((16,)), Apart(name="apart"), *model.layers])
    chosen = []
    for magnitude in (1.0, 1e30):
        twin = tf_keras.models.clone_model(apart)
        twin.set_weights(apart.get_weights())
        twin.layers[0].table.assign(apart.layers[0].table * magnitude)
        wrapped = tf_lap.prune_lookahead(twin, at_once(0.8), score=score)
        fit(compiled(wrapped, still(), jit_compile=jit_compile), epochs=1)
        chosen.append(masks(wrapped))
    for name, mask in chosen[0].items():
        np.testing.assert_array_equal(chosen[1][name], mask, err_msg=name)
    assert np.count_nonzero(chosen[1]["apart"]) == round(256 * 0.2)


def test_a_score_that_is_measured_over_data_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"score='obd' is measured over data.*tf_lap\.LAPCallback"):
        tf_lap.prune_lookahead(perceptron(), at_once(), score="obd")


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="score='lookback' is not known"):
        tf_lap.PrunableLayer(layers.Dense(3), score="lookback")


@pytest.mark.parametrize("score", ["magnitude", Lookahead(distance=2), Random(5)], ids=str)
def test_a_configuration_keeps_the_score(score):
    wrapper = tf_lap.PrunableLayer(layers.Dense(3), score=score)
    again = tf_lap.PrunableLayer.from_config(json.loads(json.dumps(wrapper.get_config())))
    assert again.score == wrapper.score


def test_a_configuration_from_before_there_were_scores_looks_ahead():
    config = tf_lap.PrunableLayer(layers.Dense(3)).get_config()
    del config["score"]
    assert tf_lap.PrunableLayer.from_config(config).score == Lookahead()
