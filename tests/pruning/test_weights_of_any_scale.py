"""Masks do not depend on the scale of weights, beyond float32's squares too."""

import keras
import numpy as np
import pytest
from chains import chain, kernels, lookahead_mask

import tf_lap

layers = keras.layers


EXPONENTS = [-100, -90, -62, -40, -3, 4, 40, 62, 90]


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"order": "forward"},
        {"order": "backward"},
        {"allocation": "global"},
        {"allocation": "lamp"},
        {"pattern": "block:1x4"},
        {"pattern": "2:4"},
        {"score": "magnitude"},
        {"score": tf_lap.scores.Lookahead(distance=2)},
        {"score": tf_lap.scores.Lookahead(distance=None)},
        {"neighbors": {"dense_1": (["dense_0"], [])}},
    ],
    ids=str,
)
def test_masks_do_not_depend_on_a_common_factor_of_the_weights(choices):
    """A power of two scales float32 exactly, so the masks are the same bit for bit."""
    model = chain(12, 20, 16, 5)
    weights = model.get_weights()

    def masks(exponent):
        model.set_weights([w * np.float32(2.0**exponent) for w in weights])
        pruner = tf_lap.Pruner(model, **choices)
        pruner.update(0.5)
        return list(pruner.masks.values())

    for exponent in EXPONENTS:
        for mask, expected in zip(masks(exponent), masks(0), strict=True):
            np.testing.assert_array_equal(mask, expected, err_msg=str(exponent))


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("exponent", [-100, -80, -60, 60, 100])
def test_one_kernel_of_another_scale_changes_no_mask_of_a_chain(exponent, number):
    model = chain(8, 256, 256, 3)
    weights = [w.astype(np.float64) for w in kernels(model).values()]
    model.layers[number].kernel.assign(model.layers[number].kernel * 2.0**exponent)
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    for i, mask in enumerate(pruner.masks.values()):
        np.testing.assert_array_equal(mask, lookahead_mask(weights, i, weights[i].size // 2))


def test_weights_may_grow_from_tiny_to_ordinary_between_updates():
    model = chain(12, 20, 5)
    weights = model.get_weights()
    model.set_weights([w * np.float32(2.0**-70) for w in weights])
    pruner = tf_lap.Pruner(model)
    pruner.update(0.2)
    model.set_weights(weights)
    pruner.apply()
    pruner.update(0.5)
    other = chain(12, 20, 5)
    other.set_weights(weights)
    expected = tf_lap.Pruner(other)
    expected.update(0.2)
    expected.update(0.5)
    for mask, same in zip(pruner.masks.values(), expected.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, same)


def test_weights_of_any_scale_beside_a_skip_from_the_input_count_as_they_are():
    """The input puts in 1, beside which a tiny kernel is nothing and a huge one is all."""

    def mask(exponent):
        inputs = keras.Input((8,))
        first = layers.Dense(8, name="first", use_bias=False)
        model = keras.Model(inputs, layers.Dense(4, name="last")(layers.Add()([inputs, first(inputs)])))
        rng = np.random.default_rng(0)
        model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
        first.kernel.assign(first.kernel * 2.0**exponent)
        pruner = tf_lap.Pruner(model, allocation="uniform")
        pruner.update(0.5)
        last = np.abs(model.get_layer("last").kernel.numpy().astype(np.float64))
        incoming = 1 + np.sum(np.square(first.kernel.numpy().astype(np.float64)), axis=0)
        score = last * np.sqrt(incoming)[:, np.newaxis]
        return pruner.masks["last"].numpy(), score >= np.sort(score, axis=None)[-16]

    for exponent in (-70, -30, 0, 30, 55):
        np.testing.assert_array_equal(*mask(exponent), err_msg=str(exponent))
