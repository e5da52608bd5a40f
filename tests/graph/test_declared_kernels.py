"""Kernels that custom layers declare by tfmot's method `get_prunable_weights`, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from neighborhoods import list_paths

import tf_lap

BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
UNKNOWN = "get_prunable_weights does not say what it reads and puts out; tf_lap.register_kernel can"


def matmul(x, matrix):
    """A product that both Kerases can follow."""
    return keras.ops.matmul(x, matrix) if keras.backend.is_keras_tensor(x) else tf.matmul(x, matrix)


def drop_last(x):
    """The channels but for the last."""
    return x[:, :-1]


def turn(library, x, matrix):
    return keras.ops.matmul(x, keras.ops.transpose(matrix)) if library is keras else tf.matmul(x, tf.transpose(matrix))


def declaring(library, run, **shapes):
    """A class of layers with variables of these shapes, which it declares; `run(layer, x)` is its call."""

    class Declaring(library.layers.Layer):
        def build(self, shape):
            for name, kernel_shape in shapes.items():
                setattr(self, name, self.add_weight(shape=kernel_shape, name=name, initializer="glorot_uniform"))
            self.bias = self.add_weight(shape=(3,), name="bias", initializer="zeros")
            self.built = True

        def call(self, x):
            return run(self, x)

        def get_prunable_weights(self):
            return [getattr(self, name) for name in shapes]

    return Declaring


def between(library, layer, units=4):
    inputs = library.Input((3,))
    x = layer(library.layers.Dense(units, name="stem")(inputs))
    return library.Model(inputs, library.layers.Dense(2, name="head")(x))


def boundaries(model, path):
    return tf_lap.neighbors(model)[path].boundaries


@BOTH
def test_one_matrix_that_fits_has_both_sides(library):
    layer = declaring(library, lambda layer, x: matmul(x, layer.w), w=(4, 5))
    model = between(library, layer(name="custom"))
    assert list_paths(tf_lap.neighbors(model)) == {
        "stem": ((), ("custom",)),
        "custom": (("stem",), ("head",)),
        "head": (("custom",), ()),
    }
    stem, kernel, head = (np.square(layer.get_weights()[0]) for layer in model.layers[1:])
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["custom"].incoming, stem.sum(0), rtol=1e-5)
    np.testing.assert_allclose(energies["custom"].outgoing, head.sum(1), rtol=1e-5)
    np.testing.assert_allclose(energies["head"].incoming, kernel.sum(0), rtol=1e-5)
    report = tf_lap.prune(model, 0.5, allocation="uniform")
    assert [(layer.path, layer.kept) for layer in report.layers] == [("stem", 6), ("custom", 10), ("head", 5)]


@BOTH
def test_a_matrix_that_fits_on_one_side_has_that_side(library):
    layer = declaring(library, lambda layer, x: drop_last(matmul(x, layer.w)), w=(4, 6))
    model = between(library, layer(name="custom"))
    around = tf_lap.neighbors(model)
    assert (around["custom"].previous, around["custom"].following) == (("stem",), ())
    (reason,) = around["custom"].boundaries
    assert reason == f"Declaring 'custom': its matrix of shape (4, 6) does not fit its channels, and {UNKNOWN}"
    assert reason in around["head"].boundaries
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["custom"].outgoing, np.ones(6))

    layer = declaring(library, lambda layer, x: matmul(drop_last(x), layer.w), w=(3, 5))
    around = tf_lap.neighbors(between(library, layer(name="custom")))
    assert (around["custom"].previous, around["custom"].following) == ((), ("head",))
    assert around["stem"].following == ()
    assert "its matrix of shape (3, 5) does not fit its channels" in around["stem"].boundaries[1]


@BOTH
def test_a_matrix_that_fits_nowhere_stands_between_boundaries(library):
    layer = declaring(library, lambda layer, x: turn(library, x, layer.w), w=(5, 4))
    model = between(library, layer(name="custom"))
    around = tf_lap.neighbors(model)
    assert list_paths(around)["custom"] == ((), ())
    assert "its matrix of shape (5, 4) does not fit its channels" in around["custom"].boundaries[0]
    assert around["head"].previous == ()
    assert [
        layer.kept for layer in tf_lap.prune(model, 0.5, allocation="uniform").layers if layer.path == "custom"
    ] == [10]

    tf_lap.register_kernel(layer, "w", "oi")  # what the reason names
    assert list_paths(tf_lap.neighbors(model))["custom"] == (("stem",), ("head",))


@BOTH
def test_several_matrices_stand_between_boundaries(library):
    layer = declaring(library, lambda layer, x: matmul(matmul(x, layer.a), layer.b), a=(4, 2), b=(2, 5))
    model = between(library, layer(name="custom"))
    around = tf_lap.neighbors(model)
    assert {path: around[path].boundaries for path in ("custom/a", "custom/b")} == dict.fromkeys(
        ("custom/a", "custom/b"), (f"Declaring 'custom': {UNKNOWN}",)
    )
    assert around["head"].previous == ()
    assert any("a matrix that is no kernel" in reason for reason in around["head"].boundaries)
    report = tf_lap.prune(model, 0.5, allocation="uniform")
    assert {layer.path: layer.kept for layer in report.layers if "custom" in layer.path} == {
        "custom/a": 4,
        "custom/b": 5,
    }


@BOTH
def test_layers_inside_keep_their_kernels(library):
    class Mixed(library.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = library.layers.Dense(4, name="inner")

        def build(self, shape):
            self.inner.build(shape)
            self.w = self.add_weight(shape=(4, 4), name="w", initializer="glorot_uniform")
            self.built = True

        def call(self, x):
            return self.inner(x) + matmul(x, self.w) * 0.0

        def get_prunable_weights(self):
            return [self.w, self.inner.kernel]

    around = tf_lap.neighbors(between(library, Mixed(name="mixed")))
    assert set(around) == {"stem", "mixed/inner", "mixed", "head"}
    assert around["mixed/inner"].previous == ("stem",)
    assert around["mixed"].previous == ()


@BOTH
def test_a_layer_whose_call_cannot_be_followed_gives_its_kernels(library):
    def refuse(layer, x):
        raise TypeError("real tensors only")

    class Opaque(declaring(library, refuse, a=(4, 2), b=(2, 5))):
        def compute_output_shape(self, shape):
            return tf.TensorShape((None, 5))

        def compute_output_spec(self, x):  # for Keras 3, which else runs the call
            return keras.KerasTensor((None, 5))

    options = {"dynamic": True} if library is tf_keras else {}  # then tf_keras does not run the call
    layer = Opaque(name="custom", **options)
    layer.build((None, 4))
    model = between(library, layer)
    assert "cannot be followed on symbolic tensors (TypeError: real tensors only)" in boundaries(model, "custom/a")[0]


def test_a_layer_that_is_not_built_and_weights_that_are_no_matrices_give_nothing():
    class Odd(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(4,), name="scale")
            self.steps = self.add_weight(shape=(4, 4), name="steps", dtype="int32", initializer="zeros")

        def call(self, x):
            return x * self.scale

        def get_prunable_weights(self):
            return [self.scale, self.steps]

    model = between(keras, Odd(name="odd"))
    model.spare = Odd(name="spare")
    assert list(tf_lap.neighbors(model)) == ["stem", "head"]
    assert tf_lap.neighbors(model)["head"].previous == ("stem",)


def test_other_inputs_end_at_a_boundary():
    class Gated(keras.layers.Layer):
        def build(self, *shapes):
            self.w = self.add_weight(shape=(4, 5), name="w")

        def call(self, x, gate):
            return keras.ops.matmul(x, self.w) * gate

        def get_prunable_weights(self):
            return [self.w]

    inputs = keras.Input((3,))
    stem, gate = (keras.layers.Dense(units, name=name)(inputs) for name, units in (("stem", 4), ("gate", 5)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(Gated(name="gated")(stem, gate)))
    around = tf_lap.neighbors(model)
    assert (around["gated"].previous, around["gated"].following) == (("stem",), ("head",))
    assert around["gate"].following == ()


def test_inside_tfmot_they_are_ranked_as_everywhere():
    layer = declaring(tf_keras, lambda layer, x: matmul(x, layer.w), w=(4, 5))
    model = between(tf_keras, layer(name="custom"))
    paths = list_paths(tf_lap.neighbors(model))
    schedule = tf_lap.LookaheadPruningSchedule(0.5, begin_step=0, end_step=1, frequency=1)
    wrapped = tf_lap.prune_lookahead(model, schedule)
    assert list_paths(tf_lap.neighbors(wrapped)) == paths
