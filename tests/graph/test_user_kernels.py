"""Kernels of users' own layers, which `register_kernel` describes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from neighborhoods import list_paths

import tf_lap

BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def layer_class(library, equation, **shapes):
    """A class of layers of its own: the sum of einsums of its input with variables of these shapes."""

    class Custom(library.layers.Layer):
        def build(self, shape):
            for name, kernel_shape in shapes.items():
                setattr(self, name, self.add_weight(shape=kernel_shape, name=name, initializer="glorot_uniform"))
            self.built = True

        def call(self, x):
            return tf.add_n([tf.einsum(equation, x, tf.convert_to_tensor(getattr(self, name))) for name in shapes])

        def compute_output_spec(self, x):  # for Keras 3, which does not run raw TensorFlow on symbolic tensors
            kernel = next(iter(shapes.values()))
            operands, output = equation.split("->")
            sizes = dict(zip("".join(operands.split(",")), (*x.shape, *kernel), strict=True))
            return keras.KerasTensor([sizes[letter] for letter in output], "float32")

    return Custom


def between(library, layer, units, width):
    """A Dense layer `stem` of so many units, the layer, and a Dense layer `head` on all that it puts out."""
    inputs = library.Input((*units[:-1], width))
    x = layer(library.layers.Dense(units[-1], name="stem")(inputs))
    return library.Model(inputs, library.layers.Dense(2, name="head")(x))


def squares(model, path):
    name, _, variable = path.partition("/")
    layer = model.get_layer(name)
    return np.square(np.asarray(layer.get_weights()[0] if not variable else getattr(layer, variable)))


@BOTH
@pytest.mark.parametrize(("roles", "shape", "equation"), [("io", (4, 5), "ab,bc->ac"), ("oi", (5, 4), "ab,cb->ac")])
def test_a_matrix_has_both_sides(library, roles, shape, equation):
    custom = layer_class(library, equation, w=shape)
    tf_lap.register_kernel(custom, "w", roles)
    model = between(library, custom(name="custom"), (4,), 3)
    assert list_paths(tf_lap.neighbors(model)) == {
        "stem": ((), ("custom",)),
        "custom": (("stem",), ("head",)),
        "head": (("custom",), ()),
    }
    energies = tf_lap.channel_energies(model)
    matrix = squares(model, "custom") if roles == "io" else squares(model, "custom").T
    np.testing.assert_allclose(energies["custom"].incoming, squares(model, "stem").sum(0), rtol=1e-5)
    np.testing.assert_allclose(energies["custom"].outgoing, squares(model, "head").sum(1), rtol=1e-5)
    np.testing.assert_allclose(energies["head"].incoming, matrix.sum(0), rtol=1e-5)
    np.testing.assert_allclose(energies["stem"].outgoing, matrix.sum(1), rtol=1e-5)
    report = tf_lap.prune(model, 0.5, allocation="uniform")
    assert [(layer.path, layer.kept) for layer in report.layers] == [("stem", 6), ("custom", 10), ("head", 5)]


def test_channels_on_several_axes():
    custom = layer_class(keras, "abc,cde->abde", w=(4, 2, 3))
    tf_lap.register_kernel(custom, "w", inputs=0, outputs=(1, -1), output_axis=(-2, -1))
    inputs = keras.Input((6, 3))
    x = custom(name="custom")(keras.layers.Dense(4, name="stem")(inputs))
    model = keras.Model(inputs, keras.layers.EinsumDense("abcd,cde->abe", (None, 5), name="head")(x))
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["head"].incoming, squares(model, "custom").sum(0).ravel(), rtol=1e-5)
    np.testing.assert_allclose(energies["custom"].outgoing, squares(model, "head").sum(2).ravel(), rtol=1e-5)


@pytest.mark.parametrize("arguments", [{"roles": "gio"}, {"inputs": (0, 1), "outputs": (0, 2)}], ids=["roles", "axes"])
def test_an_axis_that_both_share_is_a_group(arguments):
    custom = layer_class(keras, "abgi,gio->abgo", w=(2, 3, 4))
    tf_lap.register_kernel(custom, "w", **arguments, input_axis=(-2, -1), output_axis=(2, 3))
    inputs = keras.Input((5, 6))
    x = keras.layers.Reshape((5, 2, 3))(keras.layers.Dense(6, name="stem")(inputs))
    x = keras.layers.Reshape((5, 8))(custom(name="custom")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["head"].incoming, squares(model, "custom").sum(1).ravel(), rtol=1e-5)
    np.testing.assert_allclose(energies["stem"].outgoing, squares(model, "custom").sum(2).ravel(), rtol=1e-5)
    np.testing.assert_allclose(energies["custom"].incoming, squares(model, "stem").sum(0), rtol=1e-5)


@BOTH
def test_several_kernels_read_the_input_and_are_added_up(library):
    custom = layer_class(library, "ab,bc->ac", a=(4, 5), b=(4, 5))
    for name in "ab":
        tf_lap.register_kernel(custom, name, "io")
    model = between(library, custom(name="custom"), (4,), 3)
    assert list_paths(tf_lap.neighbors(model)) == {
        "stem": ((), ("custom/a", "custom/b")),
        "custom/a": (("stem",), ("head",)),
        "custom/b": (("stem",), ("head",)),
        "head": (("custom/a", "custom/b"), ()),
    }
    both = squares(model, "custom/a") + squares(model, "custom/b")
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["head"].incoming, both.sum(0), rtol=1e-5)
    np.testing.assert_allclose(energies["stem"].outgoing, both.sum(1), rtol=1e-5)


def test_the_same_variable_again_replaces_and_subclasses_add():
    base = layer_class(keras, "ab,bc->ac", a=(4, 4), b=(4, 4))
    derived = type("Derived", (base,), {})
    tf_lap.register_kernel(base, "a", "oi")
    assert list(tf_lap.neighbors(between(keras, derived(name="custom"), (4,), 3))) == ["stem", "custom", "head"]
    tf_lap.register_kernel(base, "a", "io")
    tf_lap.register_kernel(derived, "b", "io")
    assert "custom/b" in tf_lap.neighbors(between(keras, derived(name="custom"), (4,), 3))
    model = between(keras, base(name="custom"), (4,), 3)
    assert list(tf_lap.neighbors(model)) == ["stem", "custom", "head"]
    incoming = tf_lap.channel_energies(model)["head"].incoming
    np.testing.assert_allclose(incoming, squares(model, "custom/a").sum(0), rtol=1e-5)


def test_the_last_of_a_rule_and_kernels_counts():
    custom = layer_class(keras, "ab,bc->ac", a=(4, 4), b=(4, 4))
    tf_lap.register_kernel(custom, "a", "io")
    tf_lap.register_rule(custom)(lambda layer, x: x)
    model = between(keras, custom(name="custom"), (4,), 3)
    assert list_paths(tf_lap.neighbors(model)) == {"stem": ((), ("head",)), "head": (("stem",), ())}
    tf_lap.register_kernel(custom, "b", "io")
    assert list(tf_lap.neighbors(model)) == ["stem", "custom", "head"]
    assert tf_lap.Pruner(model).masks["custom"].shape == (4, 4)


def test_an_attribute_that_is_none_is_no_kernel():
    class Optional(layer_class(keras, "ab,bc->ac", a=(4, 5))):
        b = None

    tf_lap.register_kernel(Optional, "b", "io")
    (reason,) = tf_lap.neighbors(between(keras, Optional(name="custom"), (4,), 3))["head"].boundaries[:1]
    assert reason == "Optional 'custom': has none of the kernels that are registered for its class"
    tf_lap.register_kernel(Optional, "a", "io")
    assert "custom" in tf_lap.neighbors(between(keras, Optional(name="custom"), (4,), 3))


def test_other_inputs_and_outputs_stand_at_boundaries():
    class Gated(keras.layers.Layer):
        def build(self, *shapes):
            self.w = self.add_weight(shape=(4, 5))

        def call(self, x, gate, padding_mask=None):
            return keras.ops.matmul(x, self.w) * gate, gate

    tf_lap.register_kernel(Gated, "w", "io")
    inputs = keras.Input((3,))
    gate, padding = (keras.layers.Dense(5, name=name)(inputs) for name in ("gate", "padding"))
    y, z = Gated(name="gated")(keras.layers.Dense(4, name="stem")(inputs), gate, padding_mask=padding)
    outputs = [keras.layers.Dense(2, name="first")(y), keras.layers.Dense(2, name="second")(z)]
    around = tf_lap.neighbors(keras.Model(inputs, outputs))
    reason = "Gated 'gated': its kernels read its first input and put out its first output"
    assert (around["gated"].previous, around["gated"].following) == (("stem",), ("first",))
    assert reason in around["gate"].boundaries
    assert reason in around["second"].boundaries
    assert reason not in around["padding"].boundaries  # a mask carries no channels


def test_layers_inside_are_pruned_between_boundaries():
    class Outer(layer_class(keras, "ab,bc->ac", w=(4, 5))):
        def build(self, shape):
            super().build(shape)
            self.inner = keras.layers.Dense(5, name="inner")
            self.inner.build(shape)

    tf_lap.register_kernel(Outer, "w", "io")
    around = tf_lap.neighbors(between(keras, Outer(name="outer"), (4,), 3))
    assert around["outer/inner"].boundaries == ("Outer 'outer' has one rule for all that is inside it",)


REGISTRATION = [
    (("Custom", "w", "io"), {}, TypeError, "register_kernel takes a layer class, got 'Custom'"),
    ((keras.layers.Layer, 3, "io"), {}, TypeError, "variable=3: expected the name of an attribute of Layer"),
    ((keras.layers.Layer, "w"), {}, ValueError, "'w', ...\\) got roles=None, inputs=None, .*both inputs= and outputs="),
    ((keras.layers.Layer, "w", "io"), {"inputs": 0}, ValueError, "got roles='io', inputs=\\(0,\\), outputs=None: give"),
    ((keras.layers.Layer, "w"), {"inputs": 0}, ValueError, "give a letter for each axis, such as 'io', or both"),
    (
        (keras.layers.Layer, "w", "ix"),
        {},
        ValueError,
        "got roles='ix': expected a letter for each axis, 'i' for inputs",
    ),
    ((keras.layers.Layer, "w", "it"), {}, ValueError, "with an input and an output, or a group, among them"),
    ((keras.layers.Layer, "w", "io"), {"input_axis": "last"}, TypeError, "input_axis='last': expected an axis"),
]


@pytest.mark.parametrize(("args", "kwargs", "error", "message"), REGISTRATION)
def test_what_fits_no_layer_is_an_error_at_once(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        tf_lap.register_kernel(*args, **kwargs)


MISFITS = [
    ("v", {"roles": "io"}, "names no attribute of the layer; its weights are 'w' \\(4, 5\\): expected the name"),
    ("w", {"roles": "tio"}, "does not fit 'w' of shape \\(4, 5\\): roles='tio', expected 2 letters, 'i' for inputs"),
    ("w", {"inputs": 0, "outputs": 2}, "outputs=\\(2,\\), expected different axes from 0 to 1, or from -2 to -1"),
    ("w", {"inputs": (0, -2), "outputs": 1}, "inputs=\\(0, -2\\), expected different axes"),
    (
        "w",
        {"roles": "oi"},
        "reads 5 channels with 'w' .* has shape \\(None, 4\\): input_axis=-1 holds 4, expected axes",
    ),
    ("w", {"roles": "io", "input_axis": 0}, "input_axis=0, expected different axes from 1 to 1, or from -1 to -1"),
    (
        "w",
        {"roles": "io", "output_axis": (1, 2)},
        "puts out 5 channels .*output_axis=\\(1, 2\\), expected different axes",
    ),
]


@BOTH
@pytest.mark.parametrize(("variable", "arguments", "message"), MISFITS)
def test_what_does_not_fit_is_an_error_with_the_path_before_anything_changes(library, variable, arguments, message):
    custom = layer_class(library, "ab,bc->ac", w=(4, 5))
    tf_lap.register_kernel(custom, variable, **arguments)
    inner = between(library, custom(name="custom"), (4,), 3)
    inputs = library.Input((3,))
    model = library.Model(inputs, library.Sequential([inner], name="outer")(inputs))
    before = model.get_weights()
    start = rf"layer 'outer/{inner.name}/custom': register_kernel\(Custom, '{variable}', \.\.\.\) "
    with pytest.raises(ValueError, match=start + "(.*)" + message):
        tf_lap.prune(model, 0.5)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_a_layer_that_no_step_reaches_is_checked_too():
    custom = layer_class(keras, "ab,bc->ac", w=(4, 5))
    tf_lap.register_kernel(custom, "w", "ioo")

    class Opaque(keras.Model):
        def __init__(self):
            super().__init__()
            self.custom = custom(name="custom")

        def call(self, x):
            return tf.nn.relu(self.custom(x))

    model = Opaque()
    model(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"layer 'custom': register_kernel.* does not fit 'w' of shape"):
        tf_lap.neighbors(model)
