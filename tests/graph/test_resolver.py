"""The graph of a model: nested models, shared layers, operators, inputs and outputs, masks."""

import keras
import numpy as np
import pytest
from neighborhoods import list_paths

import tf_lap
from tf_lap.graph.model_graph import BoundaryStep
from tf_lap.graph.resolver import resolve

layers = keras.layers


def test_nested_models_are_inlined_at_any_depth():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="deep")], name="inner")
    inputs = keras.Input((3,))
    functional = keras.Model(inputs, inner(layers.Dense(4, name="before")(inputs)), name="functional")
    model = keras.Sequential([keras.Input((3,)), functional, layers.ReLU(), layers.Dense(2, name="head")])
    assert list_paths(tf_lap.neighbors(model)) == {
        "functional/before": ((), ("functional/inner/deep",)),
        "functional/inner/deep": (("functional/before",), ("head",)),
        "head": (("functional/inner/deep",), ()),
    }


def test_a_nested_model_used_twice_is_shared_layer_by_layer():
    tower = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="a"), layers.Dense(4, name="b")], name="tower")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1, name="head")(tower(tower(inputs))))
    assert {k.path: k.uses for k in resolve(model).kernels} == {"tower/a": 2, "tower/b": 2, "head": 1}
    assert tf_lap.neighbors(model)["tower/b"].following == ("tower/a", "head")


def test_a_layer_called_from_another_model_too_counts_this_model_only():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    other = keras.Model(inputs, layers.Dense(9, name="elsewhere")(shared(inputs)))
    model = keras.Model(inputs, layers.Dense(2, name="head")(shared(inputs)))
    assert list_paths(tf_lap.neighbors(model)) == {"shared": ((), ("head",)), "head": (("shared",), ())}
    assert "elsewhere" in tf_lap.neighbors(other)


def test_several_inputs_and_outputs():
    left, right = keras.Input((3,), name="left"), keras.Input((5,), name="right")
    a, b = layers.Dense(4, name="a")(left), layers.Dense(4, name="b")(right)
    joined = layers.Concatenate(name="joined")([a, b])
    out = layers.Dense(2, name="out")(joined)
    model = keras.Model({"left": left, "right": right}, {"joined": joined, "out": out})
    around = tf_lap.neighbors(model)
    assert list_paths(around) == {"a": ((), ("out",)), "b": ((), ("out",)), "out": (("a", "b"), ())}
    assert around["a"].boundaries == ("network input 'left'", "network output 'joined'")
    energies = tf_lap.channel_energies(model)
    read = np.sum(model.get_layer("out").kernel.numpy() ** 2, axis=1)
    np.testing.assert_allclose(energies["b"].outgoing, read[4:] + 1, rtol=1e-6)


def test_operators_between_tensors_are_followed():
    inputs = keras.Input((4,))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    x = keras.ops.relu(a + b) * 2.0 - a * b
    x = keras.ops.concatenate([x, 3.0 * a], axis=-1)
    model = keras.Model(inputs, layers.Dense(2, name="out")(1.0 - x / 4.0))
    assert not [step for step in resolve(model).steps if isinstance(step, BoundaryStep)]
    put = {n: np.sum(model.get_layer(n).kernel.numpy() ** 2, axis=0) for n in "ab"}
    first = (put["a"] + put["b"]) * 4 + put["a"] + put["b"]
    incoming = tf_lap.channel_energies(model)["out"].incoming
    np.testing.assert_allclose(incoming, np.concatenate([first, 9 * put["a"]]) / 16, rtol=1e-5)


def test_a_gate_is_broadcast_over_its_channels():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1, name="features")(inputs)
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="out")(layers.Multiply()([x, gate])))
    energies = tf_lap.channel_energies(model)
    put = {n: np.sum(model.get_layer(n).kernel.numpy() ** 2, axis=(0, 1, 2)) for n in ("features", "gate")}
    read = np.sum(model.get_layer("out").kernel.numpy() ** 2, axis=(0, 1, 3))
    np.testing.assert_allclose(energies["out"].incoming, put["features"] + put["gate"], rtol=1e-5)
    np.testing.assert_allclose(energies["gate"].outgoing, [np.sum(read)], rtol=1e-5)


@pytest.mark.parametrize("target", [(16, 6), (96,), (4, 24)])
def test_a_reshape_that_keeps_channels_last_tiles_them(target):
    inputs = keras.Input((4, 4, 3))
    x = layers.Reshape(target)(layers.Conv2D(6, 1, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(x))
    put = np.sum(model.get_layer("conv").kernel.numpy() ** 2, axis=(0, 1, 2))
    incoming = tf_lap.channel_energies(model)["dense"].incoming
    np.testing.assert_allclose(incoming, np.tile(put, target[-1] // 6), rtol=1e-6)


def test_a_reshape_that_mixes_channels_is_a_boundary_with_its_reason():
    inputs = keras.Input((4, 4, 3))
    x = layers.Reshape((24, 4), name="mix")(layers.Conv2D(6, 1, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(x))
    around = tf_lap.neighbors(model)
    assert around["conv"].following == around["dense"].previous == ()
    (reason,) = (r for r in around["dense"].boundaries if "network" not in r)
    assert reason == (
        "Reshape 'mix': reshapes (None, 4, 4, 6) with channels on axis 3 to (None, 24, 4), which mixes channels"
    )
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["dense"].incoming, np.ones(4))
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["conv"].outgoing, np.ones(6))


def test_channels_that_are_permuted_away_and_back_are_followed():
    inputs = keras.Input((4, 3))
    x = layers.Permute((2, 1))(layers.Dense(6, name="first")(inputs))
    away = keras.Model(inputs, layers.Dense(5, name="mixer")(x))
    assert tf_lap.neighbors(away)["mixer"].previous == ()
    assert "carries channels on axis 1" in tf_lap.neighbors(away)["mixer"].boundaries[0]
    back = keras.Model(inputs, layers.Dense(5, name="second")(layers.Permute((2, 1))(x)))
    assert tf_lap.neighbors(back)["second"].previous == ("first",)


@pytest.mark.parametrize("library", [keras, pytest.importorskip("tf_keras")], ids=lambda library: library.__name__)
@pytest.mark.parametrize("remedy", ["keras.Input", "model.build", "call it once on a batch"])
def test_what_the_message_about_a_model_that_is_not_built_names_helps(library, remedy):
    model = library.Sequential([library.layers.Dense(3, name="a"), library.layers.Dense(2, name="b")])
    with pytest.raises(ValueError, match=f"is not built, so it has no kernels yet.*{remedy}"):
        tf_lap.neighbors(model)
    if remedy == "keras.Input":
        model = library.Sequential([library.Input((4,)), *model.layers])
    elif remedy == "model.build":
        model.build((None, 4))
    else:
        model(np.zeros((1, 4), np.float32))
    assert tf_lap.neighbors(model)["b"].previous == ("a",)


@pytest.mark.parametrize("library", [keras, pytest.importorskip("tf_keras")], ids=lambda library: library.__name__)
@pytest.mark.parametrize("steps", [5, None])
def test_what_is_inside_time_distributed_is_followed(library, steps):
    k = library.layers
    inputs = library.Input((steps, 6, 6, 3))
    x = k.TimeDistributed(k.Conv2D(4, 3, activation="relu", name="conv"), name="each")(inputs)
    x = k.TimeDistributed(k.BatchNormalization(), name="normed")(x)
    x = k.TimeDistributed(k.Flatten(), name="flat")(x)
    inner = library.Sequential(
        [library.Input((64,)), k.Dense(7, name="one"), k.ReLU(), k.Dense(5, name="two")], name="in"
    )
    x = k.TimeDistributed(inner, name="head")(x)
    model = library.Model(inputs, k.Dense(2, name="last")(k.GlobalAveragePooling1D()(x)))
    paths = list_paths(tf_lap.neighbors(model))
    assert paths == {
        "each/conv": ((), ("head/in/one",)),
        "head/in/one": (("each/conv",), ("head/in/two",)),
        "head/in/two": (("head/in/one",), ("last",)),
        "last": (("head/in/two",), ()),
    }
    conv = model.get_layer("each").layer
    put = np.sum(np.square(conv.kernel.numpy()), axis=(0, 1, 2)) / (1 + 1e-3)
    np.testing.assert_allclose(tf_lap.channel_energies(model)["head/in/one"].incoming, np.tile(put, 16), rtol=1e-5)


def test_time_steps_that_are_channels_are_a_boundary():
    inputs = keras.Input((4,))
    x = layers.Reshape((6, 1))(layers.Dense(6, name="first")(inputs))
    followed = layers.TimeDistributed(layers.Dense(3, name="inner"), name="each")(x)
    around = tf_lap.neighbors(keras.Model(inputs, followed))
    assert around["each/inner"].boundaries[0] == "TimeDistributed 'each': its time steps are channels (axis 1)"


def test_a_nested_model_behind_a_mask_is_followed():
    inner = keras.Sequential([keras.Input((6, 8)), layers.Dense(5, name="deep")], name="inner")
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Dense(8, name="before")(layers.Embedding(9, 8, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(inner(x)))
    assert list_paths(tf_lap.neighbors(model))["inner/deep"] == (("before",), ("head",))


def test_what_makes_a_mask_reads_nothing():
    inputs = keras.Input((6, 4))
    x = layers.Dense(8, name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Softmax()(layers.Masking()(x))))
    assert all(reason.startswith("network input") for reason in tf_lap.neighbors(model)["first"].boundaries)
    read = np.sum(np.square(model.get_layer("last").kernel.numpy()), axis=1)
    np.testing.assert_allclose(tf_lap.channel_energies(model)["first"].outgoing, read, rtol=1e-5)


def test_a_nested_model_called_by_names_gets_its_own_inputs():
    p, q = keras.Input((3,), name="p"), keras.Input((5,), name="q")
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    both = layers.Add()([layers.Dense(6, name="dz")(z), layers.Dense(6, name="da")(a)])
    inner = keras.Model([z, a], both, name="inner")
    x = inner({"z": layers.Dense(4, name="dp")(p), "a": layers.Dense(4, name="dq")(q)})
    model = keras.Model([p, q], layers.Dense(2, name="head")(x))
    around = tf_lap.neighbors(model)
    assert around["inner/dz"].previous == ("dp",)
    assert around["inner/da"].previous == ("dq",)


def test_a_subclass_of_dense_is_a_kernel():
    class MyDense(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((4,)), MyDense(6, name="mine"), layers.Dense(2, name="head")])
    assert list_paths(tf_lap.neighbors(model)) == {"mine": ((), ("head",)), "head": (("mine",), ())}
