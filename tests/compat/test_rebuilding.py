"""A model of either Keras is made anew: the same names, structures and settings, and nothing shared."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tf_lap import compat

KERASES = pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras3", "tf_keras"])


def rebuilt(model, settings=None):
    before = [np.array(tf.convert_to_tensor(weight)) for weight in model.weights]
    result = compat.rebuild(model, lambda layer: (settings or {}).get(layer.name, {}))
    for old, new in result.variables():
        new.assign(tf.convert_to_tensor(old))
    assert all(np.array_equal(a, tf.convert_to_tensor(b)) for a, b in zip(before, model.weights, strict=True))
    assert not {id(v) for v in model.weights} & {id(v) for v in result.model.weights}
    return result.model


def agree(model, inputs, **settings):
    new = rebuilt(model, **settings)
    for old_output, output in zip(tf.nest.flatten(model(inputs)), tf.nest.flatten(new(inputs)), strict=True):
        np.testing.assert_array_equal(old_output, output)
    assert [weight.name for weight in new.weights] == [weight.name for weight in model.weights]
    assert new.name == model.name
    assert [tensor.name for tensor in new.inputs] == [tensor.name for tensor in model.inputs]
    assert getattr(new, "output_names", None) == getattr(model, "output_names", None)
    assert [layer.name for layer in new.layers] == [layer.name for layer in model.layers]
    assert type(new) is type(model)
    return new


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@KERASES
def test_a_graph_with_shared_layers_and_dicts(kr):
    inputs = {"left": kr.Input((4,), name="left"), "right": kr.Input((4,), name="right")}
    dense = kr.layers.Dense(3, activation=lambda x: x * 2, name="shared")
    total = dense(inputs["left"]) + dense(inputs["right"])
    total = total[..., :2] * np.ones(2, "float32")
    model = kr.Model(inputs, {"total": kr.layers.ReLU(name="total")(total), "left": dense(inputs["left"])}, name="two")
    new = agree(model, {"left": draw(5, 4), "right": draw(5, 4)})
    assert set(new({"left": draw(5, 4), "right": draw(5, 4)})) == {"total", "left"}


@KERASES
def test_nested_models_are_made_once(kr):
    inner = kr.Sequential([kr.Input((4,)), kr.layers.Dense(4), kr.layers.BatchNormalization()], name="inner")
    block = kr.Sequential([kr.Input((4,)), inner, kr.layers.Dense(4, name="behind")], name="block")
    inputs = kr.Input((4,))
    model = kr.Model(inputs, inner(block(inner(inputs))))
    new = agree(model, draw(3, 4))
    assert new.get_layer("block").get_layer("inner") is new.get_layer("inner")
    if kr is keras:
        assert new.get_layer("block").get_layer("behind").output is not None  # one call


@KERASES
def test_nested_models_read_what_is_in_front(kr):
    inner = kr.Sequential([kr.Input((4,)), kr.layers.ReLU(), kr.layers.Dense(2, name="head")], name="inner")
    model = kr.Sequential([kr.Input((5,)), kr.layers.Dense(4, name="front"), inner])
    result = compat.rebuild(model, lambda layer: {"units": 3} if layer.name == "front" else {})
    assert tuple(result.model.get_layer("inner").get_layer("head").kernel.shape) == (3, 2)
    assert tuple(result.model.get_layer("inner").inputs[0].shape) == (None, 3)


@KERASES
def test_what_is_frozen_stays_frozen(kr):
    inner = kr.Sequential([kr.Input((4,)), kr.layers.Dense(4)], name="inner")
    model = kr.Sequential([kr.Input((4,)), inner, kr.layers.Dense(4, trainable=False), kr.layers.BatchNormalization()])
    inner.trainable = False
    inner.layers[0].trainable = True
    new = rebuilt(model)
    assert [layer.trainable for layer in new.layers] == [layer.trainable for layer in model.layers]
    names, new_names = ([v.name for v in m.trainable_variables] for m in (model, new))
    assert new_names == names
    new.layers[0].trainable = True
    assert new.layers[0].layers[0].trainable


@KERASES
def test_custom_parts_need_no_registration(kr):
    class Shift(kr.layers.Layer):
        def __init__(self, amount, **kwargs):
            super().__init__(**kwargs)
            self.amount = amount

        def build(self, shape):
            self.offset = self.add_weight(shape=(shape[-1],), name="offset")

        def call(self, x):
            return x + self.offset * self.amount

        def get_config(self):
            return {**super().get_config(), "amount": self.amount}

    class Positive(kr.constraints.Constraint):
        def __call__(self, w):
            return abs(w)

    class Twice(kr.regularizers.Regularizer):
        def __call__(self, w):
            return 2.0 * kr.regularizers.L2(0.1)(w)

        def get_config(self):
            return {}

    def swing(x):
        return x * 0.5

    amount = 3.0
    model = kr.Sequential(
        [
            kr.Input((4,)),
            kr.layers.Dense(4, activation=swing, kernel_constraint=Positive(), kernel_regularizer=Twice()),
            kr.layers.Lambda(lambda x: x * amount, name="scale"),
            kr.layers.Activation(swing),
            Shift(2.0),
        ]
    )
    new = agree(model, draw(3, 4))
    assert isinstance(new.layers[0].kernel_constraint, Positive)
    assert isinstance(new.layers[0].kernel_regularizer, Twice)
    np.testing.assert_allclose(new.losses, model.losses)


@KERASES
def test_recurrent_wrapped_and_attending_layers(kr):
    inputs = kr.Input((6,), dtype="int32")
    x = kr.layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = kr.layers.Bidirectional(kr.layers.LSTM(3, return_sequences=True))(x)
    x = kr.layers.TimeDistributed(kr.layers.Dense(4))(x)
    x = kr.layers.MultiHeadAttention(2, 3)(x, x)
    x = kr.layers.RNN([kr.layers.GRUCell(3), kr.layers.LSTMCell(2)])(x)
    agree(kr.Model(inputs, x), np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 0]]))


@KERASES
def test_settings_reach_layers_inside(kr):
    inputs = kr.Input((6, 4))
    x = kr.layers.Bidirectional(kr.layers.LSTM(3, return_sequences=True), name="both")(inputs)
    x = kr.layers.TimeDistributed(kr.layers.Dense(4), name="each")(x)
    settings = {"both": {"layer": {"units": 2}, "backward_layer": {"units": 2}}, "each": {"layer": {"units": 5}}}
    model = kr.Model(inputs, x)
    result = compat.rebuild(model, lambda layer: settings.get(layer.name, {}))
    assert tuple(result.model.get_layer("each").layer.kernel.shape) == (4, 5)


@KERASES
def test_precision_stays(kr):
    policy = "mixed_bfloat16"
    model = kr.Sequential([kr.Input((4,)), kr.layers.Dense(3, dtype=policy), kr.layers.Dense(3, dtype="float32")])
    new = agree(model, draw(3, 4))
    assert [layer.compute_dtype for layer in new.layers] == ["bfloat16", "float32"]
    assert [layer.variable_dtype for layer in new.layers] == ["float32", "float32"]


@KERASES
def test_a_layer_that_its_config_does_not_make_is_named(kr):
    class Odd(kr.layers.Layer):
        def __init__(self, amount, **kwargs):
            super().__init__(**kwargs)

        def call(self, x):
            return x

        def get_config(self):
            raise NotImplementedError("none")

    model = kr.Sequential([kr.Input((4,)), Odd(3, name="odd")])
    with pytest.raises(ValueError, match=r"Odd 'odd' cannot be made anew.*give Odd a get_config"):
        rebuilt(model)


def test_a_loss_that_was_added_stays():
    inputs = tf_keras.Input((4,))
    hidden = tf_keras.layers.Dense(3)(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(hidden))
    model.add_loss(tf.reduce_mean(hidden))
    new = rebuilt(model)
    model(draw(3, 4)), new(draw(3, 4))
    assert len(new.losses) == len(model.losses) == 1


@KERASES
def test_a_subclassed_model_becomes_functional(kr):
    class Net(kr.Model):
        def __init__(self):
            super().__init__()
            self.dense = kr.layers.Dense(3, name="dense")
            self.head = kr.layers.Dense(2, name="head")

        def call(self, x):
            return self.head(self.dense(x) * 2.0)

    model = Net()
    model(draw(2, 4))
    new = rebuilt(model)
    np.testing.assert_allclose(new(draw(2, 4)), model(draw(2, 4)), rtol=1e-6)
    assert len(new.inputs) == 1
