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
        compat.assign(new, tf.convert_to_tensor(old))
    result.finish()
    assert all(np.array_equal(a, tf.convert_to_tensor(b)) for a, b in zip(before, model.weights, strict=True))
    assert not {id(v) for v in model.weights} & {id(v) for v in result.model.weights}
    return result.model


def agree(model, inputs, **settings):
    new = rebuilt(model, **settings)
    reset_states(model, new)
    for old_output, output in zip(tf.nest.flatten(model(inputs)), tf.nest.flatten(new(inputs)), strict=True):
        np.testing.assert_array_equal(old_output, output)
    assert [weight.name for weight in new.weights] == [weight.name for weight in model.weights]
    assert new.name == model.name
    assert [tensor.name for tensor in new.inputs] == [tensor.name for tensor in model.inputs]
    assert getattr(new, "output_names", None) == getattr(model, "output_names", None)
    assert [layer.name for layer in new.layers] == [layer.name for layer in model.layers]
    assert type(new) is type(model)
    return new


def reset_states(*models):
    for layer in (layer for model in models for layer in model.layers):
        if getattr(layer, "stateful", False):
            layer.reset_states() if hasattr(layer, "reset_states") else layer.reset_state()


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
def test_nested_models_of_several_tensors(kr):
    inner_inputs = [kr.Input((4,), name="a"), kr.Input((3,), name="b")]
    joined = kr.layers.Concatenate()(inner_inputs)
    outputs = {"sum": kr.layers.Dense(2, name="sum")(joined), "rest": kr.layers.Dense(3, name="rest")(joined)}
    inner = kr.Model(inner_inputs, outputs, name="inner")
    x, y = kr.Input((4,), name="x"), kr.Input((3,), name="y")
    put = inner([x, y])
    model = kr.Model([x, y], [put["rest"], put["sum"], x])
    agree(model, [draw(5, 4), draw(5, 3)])


@KERASES
def test_a_sequential_model_may_have_been_built_late_and_with_a_fixed_batch(kr):
    model = kr.Sequential([kr.layers.Dense(3), kr.layers.BatchNormalization()])
    model.build((None, 4))
    agree(model, draw(5, 4))
    fixed = kr.Sequential([kr.Input(batch_shape=(2, 4)), kr.layers.Dense(3)])
    assert tuple(agree(fixed, draw(2, 4)).inputs[0].shape) == (2, 4)


@KERASES
def test_a_class_of_the_users_stays_where_it_is_made_as_functional_models_are(kr):
    class Trainer(kr.Model):
        def train_step(self, data):
            return {"seven": tf.constant(7.0)}

    inputs = kr.Input((4,))
    model = Trainer(inputs, kr.layers.Dense(2)(inputs))
    new = agree(model, draw(5, 4))
    new.compile("sgd", "mse")
    assert new.fit(draw(5, 4), draw(5, 2), verbose=0).history["seven"] == [7.0]


@KERASES
def test_statistics_that_were_adapted_are_used(kr):
    norm = kr.layers.Normalization()
    model = kr.Sequential([kr.Input((4,)), norm, kr.layers.Dense(2)])
    norm.adapt(draw(50, 4) * 3 + 2)
    agree(model, draw(5, 4))


@KERASES
def test_states_are_copied(kr):
    model = kr.Sequential([kr.Input(batch_shape=(2, 3, 4)), kr.layers.LSTM(3, stateful=True), kr.layers.Dense(1)])
    agree(model, draw(2, 3, 4))


def test_operations_of_keras_3_keep_their_arguments():
    ops = keras.ops
    inputs = keras.Input((6, 4))
    x = ops.pad(inputs, [[0, 0], [1, 1], [0, 0]])
    x = ops.transpose(ops.einsum("btc,cd->btd", x, np.eye(4, dtype="float32")), (0, 2, 1))
    a, b = ops.split(x, 2, axis=1)
    x = ops.concatenate([ops.stack([a, b], axis=-1), ops.expand_dims(ops.where(a > 0.1, a, -b), -1)], axis=-1)
    x = ops.reshape(ops.repeat(x, 2, axis=1), (-1, 4, 24))
    x = ops.take(x, [0, 2], axis=1) + ops.mean(x, axis=1, keepdims=True) * ops.cast(ops.shape(x)[1], "float32")
    x = ops.clip(ops.flip(x, axis=-1), -1.0, 1.0)[:, ::-1, 2:-2:3]
    largest, places = ops.top_k(x, 2)
    x = ops.matmul(x, ops.softmax(ops.swapaxes(x, 1, 2), axis=1)) + ops.norm(x, axis=(1, 2), keepdims=True)
    outputs = {"x": x, "largest": largest, "hot": ops.one_hot(places, 7), "log": ops.logsumexp(x, axis=(-1,))}
    agree(keras.Model(inputs, outputs), draw(3, 6, 4))


def test_functions_of_tensorflow_keep_their_arguments():
    inputs = tf_keras.Input((6, 4))
    x = tf.pad(inputs, [[0, 0], [1, 1], [0, 0]])
    x = tf.transpose(tf.einsum("btc,cd->btd", x, tf.eye(4)), (0, 2, 1))
    a, b = tf.split(x, 2, axis=1)
    x = tf.concat([tf.stack([a, b], axis=-1), tf.where(a > 0.1, a, -b)[..., tf.newaxis]], axis=-1)
    x = tf.reshape(tf.repeat(x, 2, axis=1), (-1, 4, 24))
    x = tf.gather(x, [0, 2], axis=1) + tf.reduce_mean(x, axis=1, keepdims=True) * tf.cast(tf.shape(x)[1], tf.float32)
    x = tf.clip_by_value(tf.reverse(x, [-1]), -1.0, 1.0)[:, ::-1, 2:-2:3]
    largest, places = tf.math.top_k(x, 2)
    x = tf.matmul(x, x, transpose_b=True) / tf.norm(x)
    agree(tf_keras.Model(inputs, [x, largest, tf.one_hot(places, 7)]), draw(3, 6, 4))


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
