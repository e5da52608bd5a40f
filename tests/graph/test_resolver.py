import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.graph.resolver import Wall, resolve

layers = keras.layers


def names(neighbors):
    return {path: (n.previous, n.following) for path, n in neighbors.items()}


def test_nested_models_are_inlined_at_any_depth():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="deep")], name="inner")
    inputs = keras.Input((3,))
    functional = keras.Model(inputs, inner(layers.Dense(4, name="before")(inputs)), name="functional")
    model = keras.Sequential([keras.Input((3,)), functional, layers.ReLU(), layers.Dense(2, name="head")])
    assert names(tf_lap.neighbors(model)) == {
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
    assert names(tf_lap.neighbors(model)) == {"shared": ((), ("head",)), "head": (("shared",), ())}
    assert "elsewhere" in tf_lap.neighbors(other)


def test_several_inputs_and_outputs():
    left, right = keras.Input((3,), name="left"), keras.Input((5,), name="right")
    a, b = layers.Dense(4, name="a")(left), layers.Dense(4, name="b")(right)
    joined = layers.Concatenate(name="joined")([a, b])
    out = layers.Dense(2, name="out")(joined)
    model = keras.Model({"left": left, "right": right}, {"joined": joined, "out": out})
    found = tf_lap.neighbors(model)
    assert names(found) == {"a": ((), ("out",)), "b": ((), ("out",)), "out": (("a", "b"), ())}
    assert found["a"].boundaries == ("network input 'left'", "network output 'joined'")
    energies = tf_lap.channel_energies(model)
    read = np.sum(model.get_layer("out").kernel.numpy() ** 2, axis=1)
    np.testing.assert_allclose(energies["b"].outgoing, read[4:] + 1, rtol=1e-6)


def test_operators_between_tensors_are_followed():
    inputs = keras.Input((4,))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    x = keras.ops.relu(a + b) * 2.0 - a * b
    x = keras.ops.concatenate([x, 3.0 * a], axis=-1)
    model = keras.Model(inputs, layers.Dense(2, name="out")(1.0 - x / 4.0))
    assert not [step for step in resolve(model).steps if isinstance(step, Wall)]
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
    found = tf_lap.neighbors(model)
    assert found["conv"].following == found["dense"].previous == ()
    (reason,) = (r for r in found["dense"].boundaries if "network" not in r)
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
    assert names(tf_lap.neighbors(model)) == {
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
    found = tf_lap.neighbors(model)
    assert found["raw/first"].previous == found["raw/first"].following == ()
    assert "RawTensorFlow 'raw': its call cannot be followed" in found["raw/first"].boundaries[0]
    assert "tf_lap.register_rule" in found["stem"].boundaries[1]
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["raw/first"].incoming, np.ones(4))
    with pytest.warns(UserWarning, match="the call of RawTensorFlow 'raw' cannot be followed"):
        report = tf_lap.prune(model, 0.5)
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
    assert names(tf_lap.neighbors(model)) == {"first": ((), ("second",)), "second": (("first",), ())}


def test_a_subclassed_model_that_cannot_be_followed_is_still_pruned():
    model = Opaque()
    model(np.zeros((2, 4), np.float32))
    assert "cannot be followed" in tf_lap.neighbors(model)["first"].boundaries[0]
    with pytest.warns(UserWarning, match="the call of Opaque 'opaque.*' cannot be followed"):
        assert [layer.kept for layer in tf_lap.prune(model, 0.5).layers] == [10, 8]
    assert [layer.kept for layer in tf_lap.prune(model, 0.5, score="magnitude").layers] == [10, 8]


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

    found = tf_lap.neighbors(model(Raw(4, name="raw")))
    assert found["head"].previous == ("stem",)
    assert found["raw/first"].boundaries == ("Raw 'raw' has one rule for all that is inside it",)


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


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_a_layer_pruned_before_lora_keeps_its_zeros():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    model.get_layer("a").enable_lora(2)
    (skipped,) = (layer.skipped for layer in tf_lap.prune(model, 0.5).layers if layer.path == "a/kernel")
    assert skipped.endswith("prune before it")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    assert [layer.kept for layer in tf_lap.prune(model, 0.5).pruned] == [12, 6]
    model.get_layer("a").enable_lora(2)
    assert np.count_nonzero(model.get_layer("a")._kernel) == 12


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
    found = names(tf_lap.neighbors(model))
    assert found == {
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
    found = tf_lap.neighbors(keras.Model(inputs, followed))
    assert found["each/inner"].boundaries[0] == "TimeDistributed 'each': its time steps are channels (axis 1)"


def test_a_nested_model_behind_a_mask_is_followed():
    inner = keras.Sequential([keras.Input((6, 8)), layers.Dense(5, name="deep")], name="inner")
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Dense(8, name="before")(layers.Embedding(9, 8, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(inner(x)))
    assert names(tf_lap.neighbors(model))["inner/deep"] == (("before",), ("head",))


def test_what_makes_a_mask_reads_nothing():
    inputs = keras.Input((6, 4))
    x = layers.Dense(8, name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Softmax()(layers.Masking()(x))))
    assert all(reason.startswith("network input") for reason in tf_lap.neighbors(model)["first"].boundaries)
    read = np.sum(np.square(model.get_layer("last").kernel.numpy()), axis=1)
    np.testing.assert_allclose(tf_lap.channel_energies(model)["first"].outgoing, read, rtol=1e-5)


def test_a_custom_layer_that_is_given_a_mask_is_followed():
    class Gated(layers.Layer):
        def call(self, x, mask=None):
            return x * keras.ops.cast(keras.ops.expand_dims(mask, -1), x.dtype)

    inputs, mask = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    x = layers.Dense(8, name="first")(inputs)
    for gated in (Gated()(x, mask=mask), Gated()(x, mask)):
        model = keras.Model([inputs, mask], layers.Dense(2, name="last")(gated))
        assert names(tf_lap.neighbors(model))["last"] == (("first",), ())
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
    assert names(tf_lap.neighbors(model)) == {"first": ((), ("last",)), "last": (("first",), ())}


def test_a_nested_model_called_by_names_gets_its_own_inputs():
    p, q = keras.Input((3,), name="p"), keras.Input((5,), name="q")
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    both = layers.Add()([layers.Dense(6, name="dz")(z), layers.Dense(6, name="da")(a)])
    inner = keras.Model([z, a], both, name="inner")
    x = inner({"z": layers.Dense(4, name="dp")(p), "a": layers.Dense(4, name="dq")(q)})
    model = keras.Model([p, q], layers.Dense(2, name="head")(x))
    found = tf_lap.neighbors(model)
    assert found["inner/dz"].previous == ("dp",)
    assert found["inner/da"].previous == ("dq",)


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
    found = names(tf_lap.neighbors(model))
    assert found["b"] == (("c",), ())


def test_a_call_with_a_training_argument_without_default_is_followed():
    class Strict(Subclassed):
        def call(self, x, training):
            return super().call(x)

    model = Strict()
    model(np.zeros((2, 4), np.float32), training=False)
    assert names(tf_lap.neighbors(model)) == {"first": ((), ("second",)), "second": (("first",), ())}


def test_a_subclass_of_dense_is_a_kernel():
    class MyDense(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((4,)), MyDense(6, name="mine"), layers.Dense(2, name="head")])
    assert names(tf_lap.neighbors(model)) == {"mine": ((), ("head",)), "head": (("mine",), ())}
