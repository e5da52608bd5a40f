"""A smaller copy is compiled as the model is, and its optimizer remembers what the model's does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from helpers.shrunk import draw, mask_channels, randomize

from tf_lap import PreserveSparsity, shrink
from tf_lap.warn import PruningWarning

KERASES = pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras3", "tf_keras"])


def trained(kr, optimizer, **options):
    """A masked network after some steps with its zeros kept, compiled."""
    model = kr.Sequential(
        [
            kr.Input((8, 8, 3)),
            kr.layers.Conv2D(8, 3, activation="relu"),
            kr.layers.BatchNormalization(),
            kr.layers.Conv2D(8, 3, activation="relu"),
            kr.layers.Flatten(),
            kr.layers.Dense(2),
        ]
    )
    randomize(model)
    assert mask_channels(model, 0.4)
    model.compile(optimizer, "mse", metrics=["mae"], **options)
    model.fit(draw(16, 8, 8, 3), draw(16, 2), batch_size=8, epochs=2, verbose=0, callbacks=[PreserveSparsity()])
    return model


def train_on(model, small):
    """Trains both for one step more, the model with its zeros kept, and returns other inputs."""
    x, y = draw(8, 8, 8, 3, seed=5), draw(8, 2, seed=6)
    model.fit(x, y, verbose=0, callbacks=[PreserveSparsity()])
    small.fit(x, y, verbose=0)
    return draw(4, 8, 8, 3, seed=7)


OPTIMIZERS = {
    "sgd": lambda kr: kr.optimizers.SGD(0.01),
    "momentum": lambda kr: kr.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": lambda kr: kr.optimizers.Adam(1e-3, amsgrad=True),
    "ema": lambda kr: kr.optimizers.AdamW(1e-3, use_ema=True),
    "adafactor": lambda kr: kr.optimizers.Adafactor(1e-3),
    "schedule": lambda kr: kr.optimizers.RMSprop(kr.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.9)),
    "ftrl": lambda kr: kr.optimizers.Ftrl(1e-2),
}


@KERASES
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_the_model_would(kr, name):
    model = trained(kr, OPTIMIZERS[name](kr))
    small = shrink(model)
    assert int(tf.convert_to_tensor(small.optimizer.iterations)) == 4
    assert small.optimizer is not model.optimizer
    # The masked channels learn nothing in one step but biases and scales, which nobody reads.
    x = train_on(model, small)
    if name != "adafactor":  # it scales by the mean square of whole variables
        np.testing.assert_allclose(small(x), model(x), atol=1e-4)
    assert small.evaluate(x, draw(4, 2), verbose=0, return_dict=True).keys() == {"loss", "mae"}


def test_legacy_optimizers_and_loss_scales():
    for optimizer in (
        tf_keras.optimizers.legacy.Adam(1e-3),
        tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam(1e-3)),
        tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.legacy.SGD(1e-2, momentum=0.9)),
    ):
        model = trained(tf_keras, optimizer)
        small = shrink(model)
        assert int(small.optimizer.iterations) == 4
        x = train_on(model, small)
        np.testing.assert_allclose(small(x), model(x), atol=1e-4)


def test_loss_scales_and_accumulated_gradients():
    for optimizer in (
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3)),
        keras.optimizers.Adam(1e-3, gradient_accumulation_steps=3),
        keras.optimizers.Lion(1e-3),
    ):
        model = trained(keras, optimizer)
        small = shrink(model)
        x = train_on(model, small)
        np.testing.assert_allclose(small(x), model(x), atol=1e-4)


@KERASES
def test_weights_that_do_not_decay_still_do_not(kr):
    inputs = kr.Input((4,))
    hidden = kr.layers.Dense(4, name="first")(inputs)
    model = kr.Model(inputs, kr.layers.Dense(2, name="last")(hidden))
    optimizer = kr.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.get_layer("last").kernel])
    model.compile(optimizer, "mse")
    model.get_layer("last").set_weights([np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0], [1.0, 1.0]]), np.zeros(2)])
    small = shrink(model)
    assert tuple(small.get_layer("last").kernel.shape) == (3, 2)
    before = [np.array(layer.get_weights()[0]) for layer in small.layers[1:]]
    small.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)  # no gradient: what moves is decay
    first, last = (np.array(layer.get_weights()[0]) for layer in small.layers[1:])
    np.testing.assert_allclose(first, before[0] * 0.95, rtol=1e-5)
    np.testing.assert_array_equal(last, before[1])


@KERASES
def test_metrics_are_not_shared(kr):
    model = trained(kr, "adam", weighted_metrics=[kr.metrics.MeanSquaredError(name="square")])
    small = shrink(model)
    small.evaluate(draw(4, 8, 8, 3), draw(4, 2), verbose=0)
    own, others = ({id(metric) for metric in either.metrics} for either in (small, model))
    assert not own & others
    assert {metric.name for metric in small.metrics} >= {"loss", "square"} or kr is keras


@KERASES
def test_a_bias_that_is_new_is_trained(kr):
    inputs = kr.Input((4,))
    hidden = kr.layers.Dense(3, activation="sigmoid", name="first")(inputs)
    model = kr.Model(inputs, kr.layers.Dense(2, use_bias=False, name="last")(hidden))
    model.compile("adam", "mse")
    model.fit(draw(4, 4), draw(4, 2), verbose=0)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, 1] = 0
    model.get_layer("first").set_weights([kernel, bias])
    small = shrink(model)
    before = np.array(tf.convert_to_tensor(small.get_layer("last").bias))
    assert np.any(before)
    small.fit(draw(4, 4), draw(4, 2), verbose=0)
    assert np.all(np.array(tf.convert_to_tensor(small.get_layer("last").bias)) != before)


@KERASES
def test_an_optimizer_that_cannot_be_copied_is_left(kr):
    class Odd(kr.optimizers.SGD):
        def get_config(self):
            raise NotImplementedError("none")

    model = trained(kr, Odd(0.1))
    with pytest.warns(PruningWarning, match=r"could not be copied \(NotImplementedError: none\).*compile"):
        small = shrink(model)
    small.compile("sgd", "mse")


@KERASES
def test_a_model_that_is_not_compiled_stays_so(kr):
    model = kr.Sequential([kr.Input((4,)), kr.layers.Dense(3), kr.layers.Dense(2)])
    model.layers[1].set_weights([np.diag([1.0, 1.0, 0.0])[:, :2], np.zeros(2)])
    assert getattr(shrink(model), "optimizer", None) is None
