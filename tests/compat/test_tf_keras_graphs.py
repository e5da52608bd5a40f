"""Graphs of tf_keras models are followed as those of Keras 3 are."""

import numpy as np
import pytest
import tensorflow as tf

import tf_lap

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
layers = tf_keras.layers


def test_operators_between_tensors_are_followed():
    inputs = tf_keras.Input((6, 6, 3))
    a, b = layers.Conv2D(4, 1, name="a")(inputs), layers.Conv2D(4, 1, name="b")(inputs)
    x = tf.nn.relu(a + b) * 2.0 - a * b
    x = tf.concat([x, 3.0 * a], axis=-1)
    x = tf.reduce_mean(x / 4.0, axis=[1, 2])
    model = tf_keras.Model(inputs, layers.Dense(2, name="out")(tf.reshape(x, (-1, 8))))
    assert tf_lap.neighbors(model)["out"].boundaries == ("network output 'out'",)
    put = {n: np.sum(model.get_layer(n).kernel.numpy() ** 2, axis=(0, 1, 2)) for n in "ab"}
    incoming = tf_lap.channel_energies(model)["out"].incoming
    first = (put["a"] + put["b"]) * 4 + put["a"] + put["b"]
    np.testing.assert_allclose(incoming, np.concatenate([first, 9 * put["a"]]) / 16, rtol=1e-5)


def test_a_function_without_a_rule_is_a_boundary_with_its_name():
    inputs = tf_keras.Input((6,))
    x = tf.cumsum(layers.Dense(4, name="first")(inputs), axis=-1)
    model = tf_keras.Model(inputs, layers.Dense(2, name="last")(x))
    assert "tf.math.cumsum has no channel rule" in tf_lap.neighbors(model)["last"].boundaries[0]


def test_nested_shared_separable_and_depthwise_layers():
    tower = tf_keras.Sequential([layers.Input((8, 8, 4)), layers.SeparableConv2D(4, 3, padding="same", name="s")])
    tower = tf_keras.Sequential([*tower.layers, layers.DepthwiseConv2D(3, padding="same", name="d")], name="tower")
    inputs = tf_keras.Input((8, 8, 4))
    x = tower(tower(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    report = tf_lap.prune(model, 0.5)
    paths = {layer.path: layer.skipped is None for layer in report.layers}
    assert paths == {"tower/s": True, "head": True, "tower/s/depthwise_kernel": False, "tower/d": False}
    assert tf_lap.neighbors(model)["tower/s"].previous == ("tower/s",)
    assert tf_lap.channel_energies(model)["tower/s"].incoming.shape == (2, 4)


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(5, name="first"), layers.Dense(3, name="second")

    def call(self, x):
        return self.second(self.first(x))


def test_a_subclassed_model_is_followed_through_its_call():
    called, built = Subclassed(), Subclassed()
    called(np.zeros((2, 4), np.float32))
    built.build((None, 4))
    for model in (called, built):
        neighbors = tf_lap.neighbors(model)
        assert neighbors["first"].following == ("second",)
        assert neighbors["second"].previous == ("first",)
        assert not any(layer._inbound_nodes for layer in (model.first, model.second))


class Several(Subclassed):
    def call(self, inputs, training=False, mask=None):
        return self.second(tf.nn.relu(self.first(inputs["a"]) + self.first(inputs["b"])))


def test_a_subclassed_model_of_several_inputs_is_followed():
    model = Several()
    model({"a": np.zeros((2, 4), np.float32), "b": np.zeros((2, 4), np.float32)}, training=True)
    assert tf_lap.neighbors(model)["second"].previous == ("first",)
    assert tf_lap.channel_energies(model)["first"].incoming.shape == (2, 4)


class Opaque(Subclassed):
    def call(self, x):
        return self.second(self.first(x if x.numpy().sum() > 1 else -x))


def test_what_the_message_about_a_model_that_cannot_be_followed_names_helps():
    model = Opaque()
    model.run_eagerly = True
    model(np.ones((2, 4), np.float32))
    with pytest.warns(UserWarning, match="the call of Opaque 'opaque.*' cannot be followed"):
        report = tf_lap.prune(model, 0.5, allocation="uniform")
    assert [layer.kept for layer in report.layers] == [10, 8]
    (reason,) = report.layers[0].boundaries
    assert "write it with layers and functions of tf on tensors, without NumPy and without Python conditions" in reason
    assert "build it with the functional API, or say with neighbors={path: (before, after)} what follows what" in reason
    assert tf_lap.neighbors(rewritten(Subclassed()))["second"].previous == ("first",)
    inputs = tf_keras.Input((4,))
    functional = tf_keras.Model(inputs, model.second(model.first(inputs)))
    assert tf_lap.neighbors(functional)["second"].previous == ("first",)
    with pytest.warns(UserWarning, match="cannot be followed"):
        told = tf_lap.prune(model, 0.5, neighbors={"first": ((), ("second",)), "second": (("first",), ())})
    assert [(layer.previous, layer.following) for layer in told.layers] == [((), ("second",)), (("first",), ())]


def rewritten(model):
    model(np.ones((2, 4), np.float32))
    return model


class OpaqueLayer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) if isinstance(x, tf.Tensor) else x.numpy()

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


class Following(OpaqueLayer):
    def call(self, x):
        return self.inner(x)


def test_what_the_message_about_a_layer_that_cannot_be_followed_names_helps():
    def model(layer):
        inputs = tf_keras.Input((4,))
        return tf_keras.Model(inputs, layers.Dense(2, name="last")(layer(layers.Dense(3, name="first")(inputs))))

    opaque = model(OpaqueLayer(name="opaque"))
    (reason,) = (r for r in tf_lap.neighbors(opaque)["last"].boundaries if "opaque" in r)
    assert (
        "without Python conditions on a tensor's value, or give OpaqueLayer a rule with tf_lap.register_rule" in reason
    )
    assert tf_lap.neighbors(model(Following(name="opaque")))["last"].previous == ("opaque/inner",)

    @tf_lap.register_rule(OpaqueLayer)
    def rule(layer, x):
        return tf.ones([3]) * tf.reduce_sum(x)

    neighbors = tf_lap.neighbors(model(OpaqueLayer(name="opaque")))
    assert neighbors["last"].previous == ("first",)
    assert neighbors["opaque/inner"].boundaries == ("OpaqueLayer 'opaque' has one rule for all that is inside it",)


# Arguments that are tensors and carry no channels: a shape, a bound, a rate, a mask.
SETTINGS_OF_CALLS = {
    "reshape by tf.shape": lambda h: tf.reshape(h, [tf.shape(h)[0], 16, 8]),
    "reshape by a stack": lambda h: tf.reshape(h, tf.stack([tf.shape(h)[0], tf.shape(h)[1] * 4, 8])),
    "clipped at its maximum": lambda h: tf.clip_by_value(h, 0.0, tf.reduce_max(h)),
    "clipped, by name": lambda h: tf.clip_by_value(clip_value_max=tf.reduce_max(h), clip_value_min=0.0, t=h),
    "a rate": lambda h: tf.nn.dropout(h, tf.reduce_mean(h) * 0.0),
    "a slope": lambda h: tf.nn.leaky_relu(h, alpha=0.2),
    "where": lambda h: tf.where(h > 0, h, 0.0),
    "a mask": lambda h: h * tf.cast(tf.reduce_any(h > 0, axis=-1, keepdims=True), tf.float32),
    "zeros of its shape": lambda h: tf.maximum(h, tf.zeros_like(h)),
    "a bound in proportion": lambda h: tf.clip_by_value(h, 0.0, tf.cast(tf.shape(h)[1], tf.float32)),
}


class Applied(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x, mask=None):
        return self.function(x)


@pytest.mark.parametrize("wrapped", [lambda f: f, layers.Lambda, Applied], ids=["bare", "Lambda", "layer"])
@pytest.mark.parametrize("setting", SETTINGS_OF_CALLS)
def test_arguments_without_channels_are_no_signals(setting, wrapped):
    inputs = tf_keras.Input((4, 4, 3))
    h = wrapped(SETTINGS_OF_CALLS[setting])(layers.Conv2D(8, 1, name="a")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(4, name="b")(h))
    neighbors = tf_lap.neighbors(model)
    assert neighbors["a"].following == ("b",)
    assert all(reason.startswith("network") for n in neighbors.values() for reason in n.boundaries)
    put = np.sum(model.get_layer("a").kernel.numpy() ** 2, axis=(0, 1, 2))
    np.testing.assert_allclose(tf_lap.channel_energies(model)["b"].incoming, put, rtol=1e-5)


def test_a_kernel_that_makes_a_bound_alone_ends_there():
    inputs = tf_keras.Input((4,))
    h, bound = layers.Dense(3, name="a")(inputs), layers.Dense(3, name="bound")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(2, name="b")(tf.clip_by_value(h, 0.0, tf.nn.relu(bound))))
    neighbors = tf_lap.neighbors(model)
    assert neighbors["b"].previous == ("a",)
    assert (
        "Dense 'bound': nothing reads what it puts out but as a mask, a bound or a shape"
        in neighbors["bound"].boundaries
    )
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["bound"].outgoing, np.ones(3))


def test_a_loss_that_is_added_is_an_end():
    inputs = tf_keras.Input((4,))
    h = layers.Dense(3, name="a")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(2, name="b")(inputs))
    model.add_loss(tf.reduce_mean(h))
    assert tf_lap.neighbors(model)["b"].following == ()
    tf_lap.prune(model, 0.5)
