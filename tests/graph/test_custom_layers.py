"""Layers and models whose own `call` is followed, and what is said of those that cannot be."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from neighborhoods import list_paths

import tf_lap

layers = keras.layers


class Block(layers.Layer):
    """A custom layer that holds kernels and joins them with keras.ops."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(units, name="first"), layers.Dense(units, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.first.units))

    def call(self, x):
        return x + self.second(keras.ops.relu(self.first(x)))


class RawTensorFlow(Block):
    def call(self, x):
        return tf.matmul(x, self.first.kernel) + tf.matmul(x, self.second.kernel)

    def compute_output_shape(self, shape):
        return shape


def test_a_custom_layer_is_followed_through_its_call():
    inputs = keras.Input((4,))
    x = Block(4, name="block")(layers.Dense(4, name="stem")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    assert list_paths(tf_lap.neighbors(model)) == {
        "stem": ((), ("block/first", "head")),
        "block/first": (("stem",), ("block/second",)),
        "block/second": (("block/first",), ("head",)),
        "head": (("stem", "block/second"), ()),
    }


def test_following_a_custom_layer_leaves_no_trace_on_it():
    block = Block(4, name="block")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, block(inputs))
    nodes = [len(layer._inbound_nodes) for layer in (block, block.first, block.second)]
    name = layers.Add().name
    tf_lap.neighbors(model)
    assert [len(layer._inbound_nodes) for layer in (block, block.first, block.second)] == nodes
    following = layers.Add().name
    assert int(following.split("_")[-1]) == (int(name.split("_")[-1]) if "_" in name else 0) + 1


def test_kernels_inside_a_layer_that_cannot_be_followed_are_pruned_between_boundaries():
    inputs = keras.Input((4,))
    x = RawTensorFlow(4, name="raw")(layers.Dense(4, name="stem")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    around = tf_lap.neighbors(model)
    assert around["raw/first"].previous == around["raw/first"].following == ()
    assert "RawTensorFlow 'raw': its call cannot be followed" in around["raw/first"].boundaries[0]
    assert "tf_lap.register_rule" in around["stem"].boundaries[1]
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["raw/first"].incoming, np.ones(4))
    with pytest.warns(UserWarning, match="the call of RawTensorFlow 'raw' cannot be followed"):
        report = tf_lap.prune(model, 0.5, allocation="uniform")
    kept = {layer.path: layer.kept for layer in report.layers}
    assert kept == {"stem": 8, "head": 4, "raw/first": 8, "raw/second": 8}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(5, name="first"), layers.Dense(3, name="second")

    def call(self, x):
        return self.second(keras.ops.relu(self.first(x)))


class Opaque(Subclassed):
    def call(self, x):
        return tf.nn.relu(self.second(self.first(x)))


def test_a_subclassed_model_is_followed_through_its_call():
    model = Subclassed()
    model(np.zeros((2, 4), np.float32))
    assert list_paths(tf_lap.neighbors(model)) == {"first": ((), ("second",)), "second": (("first",), ())}


def test_a_subclassed_model_that_cannot_be_followed_is_still_pruned():
    model = Opaque()
    model(np.zeros((2, 4), np.float32))
    assert "cannot be followed" in tf_lap.neighbors(model)["first"].boundaries[0]
    with pytest.warns(UserWarning, match="the call of Opaque 'opaque.*' cannot be followed"):
        assert [layer.kept for layer in tf_lap.prune(model, 0.5, allocation="uniform").layers] == [10, 8]
    assert [layer.kept for layer in tf_lap.prune(model, 0.5, score="magnitude", allocation="uniform").layers] == [10, 8]


def test_what_the_message_about_a_model_that_cannot_be_followed_names_helps():
    model = Opaque()
    model(np.zeros((2, 4), np.float32))
    (reason,) = tf_lap.neighbors(model)["first"].boundaries
    assert "write it with layers and keras.ops, or build it with the functional API" in reason
    assert "or say with neighbors={path: (before, after)} what follows what" in reason
    inputs = keras.Input((4,))
    functional = keras.Model(inputs, model.second(model.first(inputs)))
    assert tf_lap.neighbors(functional)["second"].previous == ("first",)
    with pytest.warns(UserWarning, match="cannot be followed"):
        told = tf_lap.prune(model, 0.5, neighbors={"first": ((), ("second",)), "second": (("first",), ())})
    assert [(layer.previous, layer.following) for layer in told.layers] == [((), ("second",)), (("first",), ())]


def test_what_the_message_about_a_layer_that_cannot_be_followed_names_helps():
    class Raw(RawTensorFlow):
        pass

    class Written(Block):
        pass

    def model(layer):
        inputs = keras.Input((4,))
        return keras.Model(inputs, layers.Dense(2, name="head")(layer(layers.Dense(4, name="stem")(inputs))))

    (reason,) = (r for r in tf_lap.neighbors(model(Raw(4, name="raw")))["head"].boundaries if "raw" in r)
    assert reason.endswith("write it with layers and keras.ops, or give Raw a rule with tf_lap.register_rule")
    assert tf_lap.neighbors(model(Written(4, name="raw")))["head"].previous == ("stem", "raw/second")

    @tf_lap.register_rule(Raw)
    def rule(layer, x):
        return x

    around = tf_lap.neighbors(model(Raw(4, name="raw")))
    assert around["head"].previous == ("stem",)
    assert around["raw/first"].boundaries == ("Raw 'raw' has one rule for all that is inside it",)


def test_a_custom_layer_that_is_given_a_mask_is_followed():
    class Gated(layers.Layer):
        def call(self, x, mask=None):
            return x * keras.ops.cast(keras.ops.expand_dims(mask, -1), x.dtype)

    inputs, mask = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    x = layers.Dense(8, name="first")(inputs)
    for gated in (Gated()(x, mask=mask), Gated()(x, mask)):
        model = keras.Model([inputs, mask], layers.Dense(2, name="last")(gated))
        assert list_paths(tf_lap.neighbors(model))["last"] == (("first",), ())
        put = np.sum(np.square(model.get_layer("first").kernel.numpy()), axis=0)
        np.testing.assert_allclose(tf_lap.channel_energies(model)["last"].incoming, put, rtol=1e-5)


def test_bounds_and_shapes_in_a_custom_layer_are_no_signals():
    class Bounded(layers.Layer):
        def call(self, x):
            x = keras.ops.clip(x, 0.0, keras.ops.max(x))
            return keras.ops.reshape(x, (keras.ops.shape(x)[0], 2, 4))

    inputs = keras.Input((4,))
    x = Bounded()(layers.Dense(8, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    assert list_paths(tf_lap.neighbors(model)) == {"first": ((), ("last",)), "last": (("first",), ())}


def test_following_a_call_writes_no_variable():
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return keras.ops.relu(x)

    inputs = keras.Input((4,))
    layer = Counting()
    model = keras.Model(inputs, layers.Dense(2, name="head")(layer(layers.Dense(3, name="stem")(inputs))))
    layer.count.assign(0.0)
    assert tf_lap.neighbors(model)["head"].previous == ("stem",)
    with pytest.raises(ValueError, match="sparsity=2"):
        tf_lap.prune(model, 2)
    assert float(layer.count) == 0.0


def test_a_lambda_is_followed():
    inputs = keras.Input((4,))
    x = layers.Lambda(lambda t: keras.ops.relu(t) * 2.0)(layers.Dense(3, name="a")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="b")(x))
    assert tf_lap.neighbors(model)["b"].previous == ("a",)


def test_a_functional_model_with_a_call_of_its_own_is_followed_through_that():
    class Doubled(keras.Model):
        def call(self, x):
            return self.get_layer("b")(self.get_layer("c")(self.get_layer("a")(x)))

    inputs = keras.Input((4,))
    a, b, c = (layers.Dense(4, name=name) for name in "abc")
    model = Doubled(inputs, c(b(a(inputs))))
    paths = list_paths(tf_lap.neighbors(model))
    assert paths["b"] == (("c",), ())


def test_a_call_with_a_training_argument_without_default_is_followed():
    class Strict(Subclassed):
        def call(self, x, training):
            return super().call(x)

    model = Strict()
    model(np.zeros((2, 4), np.float32), training=False)
    assert list_paths(tf_lap.neighbors(model)) == {"first": ((), ("second",)), "second": (("first",), ())}
