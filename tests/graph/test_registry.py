"""Rules that users register for their own layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap

layers = keras.layers


class Scaled(layers.Layer):
    """Two inputs and a learned scale, in raw TensorFlow that cannot be followed."""

    def build(self, shapes):
        self.scale = self.add_weight(shape=(shapes[0][-1],), initializer="ones")

    def call(self, inputs):
        return tf.add(inputs[0], inputs[1] * tf.convert_to_tensor(self.scale))

    def compute_output_shape(self, shapes):
        return shapes[0]


def test_register_rule_cures_a_boundary_in_five_lines():
    inputs = keras.Input((4,))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    x = Scaled(name="scaled")([a, b])
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    model.get_layer("scaled").scale.assign([1.0, 2.0, 3.0, 4.0])
    assert tf_lap.neighbors(model)["out"].previous == ()
    assert "Scaled 'scaled'" in str(tf_lap.prune(model, 0.0, score="magnitude"))

    @tf_lap.register_rule(Scaled)
    def scaled_rule(layer, x, branch):
        scale = tf.convert_to_tensor(layer.scale)
        return x + branch * scale**2

    assert tf_lap.neighbors(model)["out"].previous == ("a", "b")
    put = {n: np.sum(model.get_layer(n).kernel.numpy() ** 2, axis=0) for n in "ab"}
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["out"].incoming, put["a"] + put["b"] * [1, 4, 9, 16], rtol=1e-5)
    read = np.sum(model.get_layer("out").kernel.numpy() ** 2, axis=1)
    np.testing.assert_allclose(energies["b"].outgoing, read * [1, 4, 9, 16], rtol=1e-5)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda layer, x: x[:2], ValueError, "returns 2 energies for layer 'odd', whose output .* has 4 channels"),
        (lambda layer, x: None, TypeError, "returns None for layer 'odd'; expected a float32 tensor"),
    ],
)
def test_a_rule_that_returns_something_else_says_so(returned, error, message):
    class Odd(layers.Layer):
        def call(self, x):
            return x

    tf_lap.register_rule(Odd)(returned)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(Odd(name="odd")(layers.Dense(4)(inputs))))
    with pytest.raises(error, match=message):
        tf_lap.neighbors(model)


def test_a_rule_may_tell_the_channels_of_the_networks_input_apart():
    class Weighted(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],))

        def call(self, x):
            return tf.multiply(x, self.scale)

        def compute_output_shape(self, shape):
            return shape

    tf_lap.register_rule(Weighted)(lambda layer, x: x * tf.convert_to_tensor(layer.scale) ** 2)
    inputs = keras.Input((5, 4))
    layer = Weighted()
    model = keras.Model(inputs, layers.Dense(2, name="dense")(layers.Flatten()(layer(inputs))))
    layer.scale.assign([1.0, 2.0, 3.0, 4.0])
    incoming = tf_lap.channel_energies(model)["dense"].incoming
    np.testing.assert_allclose(incoming, np.tile([1, 4, 9, 16], 5))


def test_a_rule_of_the_wrong_form_says_so():
    with pytest.raises(TypeError, match="register_rule takes a layer class, got 'Scaled'"):
        tf_lap.register_rule("Scaled")
    with pytest.raises(TypeError, match="the rule of Scaled must be a function"):
        tf_lap.register_rule(Scaled)(3)

    class Twice(layers.Layer):
        def call(self, x):
            return x

    tf_lap.register_rule(Twice)(lambda layer, x, y: x)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Twice(name="twice")(inputs)))
    with pytest.raises(TypeError, match=r"rule registered for Twice does not take .* with 1 energies"):
        tf_lap.neighbors(model)
