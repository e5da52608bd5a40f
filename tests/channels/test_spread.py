import keras
import numpy as np
import pytest
import tf_keras

import tf_lap


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("scale", [True, False])
def test_behind_a_batch_normalization_the_square_of_its_scale_is_put_in(library, scale):
    layers = library.layers
    inputs = library.Input((5,))
    hidden = layers.Dense(6, name="hidden")(inputs)
    hidden = layers.BatchNormalization(scale=scale, name="norm")(hidden)
    model = library.Model(inputs, layers.Dense(3, name="head")(layers.Activation("relu")(hidden)))
    gamma = np.linspace(0.5, 2, 6) if scale else np.ones(6)
    if scale:
        model.get_layer("norm").gamma.assign(gamma)
    model.get_layer("norm").moving_variance.assign(np.linspace(3, 0.1, 6))
    pruner = tf_lap.Pruner(model, pattern="channels")
    scores = pruner._engine.score_channels()
    (group,) = pruner._targets.channels.prunable
    read = np.linalg.norm(np.asarray(model.get_layer("head").kernel), axis=1)
    np.testing.assert_allclose(scores[group.classes], gamma * read, rtol=1e-5)


def test_tiny_weights_have_the_same_scale_as_what_is_known():
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(6, name="hidden")(inputs)
    normalized = keras.layers.BatchNormalization()(keras.layers.Dense(4, name="other")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.Concatenate()([hidden, normalized])))
    model.get_layer("hidden").kernel.assign(model.get_layer("hidden").kernel * 1e-9)
    model.get_layer("head").kernel.assign(model.get_layer("head").kernel * 1e-9)
    model.get_layer("other").kernel.assign(model.get_layer("other").kernel * 1e-9)
    report = tf_lap.prune(model, 0.5, pattern="channels", allocation="global")
    assert sum(group.kept for group in report.channels.pruned) == 5


def test_neighbors_that_the_user_gives_count_in_place_of_it():
    inputs = keras.Input((5,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(6, name="hidden", use_bias=False)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    pruner = tf_lap.Pruner(model, pattern="channels", neighbors={"head": (["hidden"], [])})
    scores = pruner._engine.score_channels()
    (group,) = pruner._targets.channels.prunable
    fed = np.linalg.norm(model.get_layer("hidden").kernel.numpy(), axis=0)
    read = np.linalg.norm(model.get_layer("head").kernel.numpy(), axis=1)
    np.testing.assert_allclose(scores[group.classes], fed * read, rtol=1e-5)
