"""Rows times a kernel's matrices are what its layer puts out, for every kind of layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from observed import check_layer, find_readers, multiply, observe_rows, record_outputs
from relu_chains import data

from tf_lap.moments import rows as rows_module

layers = keras.layers


def built(layer, shape, flavour=keras):
    """A model of one layer, for samples of a shape."""
    inputs = flavour.Input(shape)
    return flavour.Model(inputs, layer(inputs))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_dense(flavour, shape):
    flavour = pytest.importorskip(flavour)
    rows = check_layer(built(flavour.layers.Dense(4, "relu", name="a"), shape, flavour), data(shape, 6), "a")
    np.testing.assert_array_equal(rows, data(shape, 6).reshape(1, -1, 5))


CONVOLUTIONS = {
    "valid": {},
    "same": {"padding": "same"},
    "strides": {"strides": 2},
    "strides same": {"strides": 2, "padding": "same"},
    "strides that leave a rest": {"strides": 3, "padding": "same"},
    "dilation": {"dilation_rate": 2},
    "dilation same": {"dilation_rate": 2, "padding": "same"},
    "groups": {"groups": 2, "padding": "same"},
    "groups and strides": {"groups": 2, "strides": 2},
}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions(flavour, options, rank):
    flavour = pytest.importorskip(flavour)
    if flavour is not keras and rank == 3 and "groups" in options:
        pytest.skip("tf_keras runs no grouped Conv3D on the host")
    layer = getattr(flavour.layers, f"Conv{rank}D")(6, (3, 2, 3)[:rank], activation="relu", name="a", **options)
    shape = (*(8, 7, 6)[:rank], 4)
    check_layer(built(layer, shape, flavour), data(shape, 3), "a")


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"dilation_rate": 3}])
def test_causal_convolutions(flavour, options):
    flavour = pytest.importorskip(flavour)
    layer = flavour.layers.Conv1D(5, 3, padding="causal", name="a", **options)
    check_layer(built(layer, (9, 4), flavour), data((9, 4), 3), "a")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "same"}, {"groups": 2}])
def test_channels_first_reads_as_channels_last(rank, options):
    sizes = (8, 7, 6)[:rank]
    options = {"kernel_size": 3, "filters": 4, "name": "a", **options}
    if rank == 1:
        options.pop("groups", None)
    kind = getattr(layers, f"Conv{rank}D")
    x = data((*sizes, 4), 3)
    last = built(kind(**options), (*sizes, 4))
    first = built(kind(**options, data_format="channels_first"), (4, *sizes))
    first.set_weights(last.get_weights())
    (kernel,), readers, _ = find_readers(first)
    rows = (
        readers[0].read(tf.constant(np.moveaxis(x, -1, 1))).numpy()
    )  # TensorFlow runs no such convolution on the host
    np.testing.assert_array_equal(rows, observe_rows(last, [[x]])["a"])
    (output,) = record_outputs(last, last.layers[-1], [[x]])
    np.testing.assert_allclose(multiply(kernel, rows), output.reshape(-1, 4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize(
    "options", [{}, {"strides": 2}, {"padding": "same", "depth_multiplier": 3}, {"dilation_rate": 2}], ids=str
)
@pytest.mark.parametrize("rank", [1, 2])
def test_depthwise_kernels(flavour, options, rank):
    flavour = pytest.importorskip(flavour)
    layer = getattr(flavour.layers, f"DepthwiseConv{rank}D")(3, name="a", **options)
    shape = (*(8, 7)[:rank], 4)
    rows = check_layer(built(layer, shape, flavour), data(shape, 3), "a")
    assert rows.shape[0] == 4
    assert rows.shape[2] == 3**rank


EQUATIONS = {  # input shape, output shape, axes of the output's channels in the kernel's order
    "ab,bc->ac": ((5,), 4, (1,)),
    "ab,cb->ac": ((5,), 4, (1,)),
    "abc,cd->abd": ((3, 5), (3, 4), (2,)),
    "abc,cd->adb": ((3, 5), (4, 3), (1,)),
    "abc,cde->abde": ((3, 5), (3, 2, 4), (2, 3)),
    "abc,dce->abde": ((3, 5), (3, 2, 4), (2, 3)),
    "abc,cde->abed": ((3, 5), (3, 4, 2), (3, 2)),
    "abcd,cde->abe": ((3, 2, 5), (3, 4), (2,)),
    "abcd,dce->abe": ((3, 2, 5), (3, 4), (2,)),
    "abcd,bde->ace": ((3, 2, 5), (2, 4), (2,)),
    "abc,bcd->abd": ((3, 5), (3, 4), (1, 2)),
    "abc,cbd->abd": ((3, 5), (3, 4), (1, 2)),
    "abc,bdc->adb": ((3, 5), (4, 3), (2, 1)),
    "abcd,cdef->abecf": ((6, 2, 5), (6, 3, 2, 4), (3, 2, 4)),
    "...b,bc->...c": ((3, 5), (3, 4), (2,)),
}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_dense(flavour, equation):
    flavour = pytest.importorskip(flavour)
    shape, output, channel_axes = EQUATIONS[equation]
    layer = flavour.layers.EinsumDense(equation, output, name="a")
    check_layer(built(layer, shape, flavour), data(shape, 6), "a", channel_axes)


def test_multi_head_attention():
    inputs, others = keras.Input((4, 6)), keras.Input((5, 7))
    attention = layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=8, name="a")
    model = keras.Model([inputs, others], attention(inputs, others))
    x, y = data((4, 6), 3), data((5, 7), 3)
    kernels, _, reasons = find_readers(model)
    assert not reasons
    rows = observe_rows(model, [[x, y]])
    assert rows.keys() == {f"a/{name}" for name in ("query", "key", "value", "attention_output")}
    np.testing.assert_array_equal(rows["a/query"][0], x.reshape(-1, 6))
    np.testing.assert_array_equal(rows["a/value"][0], y.reshape(-1, 7))
    by_path = {kernel.path: kernel for kernel in kernels}
    (output,) = record_outputs(model, attention, [[x, y]])
    made = multiply(by_path["a/attention_output"], rows["a/attention_output"])
    np.testing.assert_allclose(made, output.reshape(-1, 8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_time_distributed_layers_read_every_step(flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((3, 5))
    dense = flavour.layers.Dense(4, name="a")
    model = flavour.Model(inputs, flavour.layers.TimeDistributed(dense, name="steps")(inputs))
    x = data((3, 5), 6)
    ((path, rows),) = observe_rows(model, [[x]]).items()
    assert path == "steps/a"
    # Keras 3 calls the layer once a step.
    assert sorted(map(tuple, rows[0])) == sorted(map(tuple, x.reshape(-1, 5)))


def test_a_shared_layer_has_the_rows_of_all_its_calls():
    inputs, shared = keras.Input((5,)), layers.Dense(5, name="shared")
    model = keras.Model(inputs, shared(layers.ReLU()(shared(inputs))))
    rows = check_layer(model, data((5,), 6), "shared")
    assert rows.shape == (1, 12, 5)


RECURRENT = {
    "SimpleRNN": lambda k: k.layers.SimpleRNN(4, name="a"),
    "LSTM": lambda k: k.layers.LSTM(4, return_sequences=True, name="a"),
    "GRU": lambda k: k.layers.GRU(4, go_backwards=True, name="a"),
    "RNN": lambda k: k.layers.RNN(k.layers.LSTMCell(4, name="cell"), name="a"),
    "Bidirectional": lambda k: k.layers.Bidirectional(k.layers.GRU(4), name="a"),
}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_read_their_inputs_with_one_of_two_kernels(flavour, kind):
    flavour = pytest.importorskip(flavour)
    x = data((3, 5), 6)
    model = built(RECURRENT[kind](flavour), (3, 5), flavour)
    _, _, reasons = find_readers(model)
    rows = observe_rows(model, [[x]])
    count = 2 if kind == "Bidirectional" else 1
    assert len(rows) == len(reasons) == count
    assert all(path.endswith("recurrent_kernel") for path in reasons)
    assert all("are no input of the layer" in reason for reason in reasons.values())
    for path, found in rows.items():
        assert path.endswith("/kernel")
        np.testing.assert_array_equal(found, x.reshape(1, -1, 5))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_recurrent_layer_that_begins_with_a_state_reads_its_sequence(flavour):
    flavour = pytest.importorskip(flavour)
    inputs, state = flavour.Input((3, 5)), flavour.Input((4,))
    model = flavour.Model([inputs, state], flavour.layers.GRU(4, name="a")(inputs, initial_state=state))
    x = data((3, 5), 6)
    rows = observe_rows(model, [[x, data((4,), 6)]])
    np.testing.assert_array_equal(rows["a/kernel"], x.reshape(1, -1, 5))


def nested():
    inputs = keras.Input((6, 3))
    inner = keras.Sequential([keras.Input((6, 3)), layers.Conv1D(4, 3, activation="relu", name="conv")], name="inner")
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(inner(inputs))))


def subclassed():
    class Block(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = layers.Dense(3, name="inside")

        def call(self, x):
            return keras.ops.relu(self.dense(x)) + x

    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = Block(name="block")
            self.head = layers.Dense(2, name="head")

        def call(self, x):
            return self.head(self.block(x))

    model = Network()
    model(np.ones((1, 6, 3), np.float32))
    return model


def subclassed_tf_keras():
    legacy = pytest.importorskip("tf_keras")

    class Network(legacy.Model):
        def __init__(self):
            super().__init__()
            self.hidden = legacy.layers.Dense(3, activation="relu", name="inside")
            self.head = legacy.layers.Dense(2, name="head")

        def call(self, x):
            return self.head(self.hidden(x))

    model = Network()
    model(np.ones((1, 6, 3), np.float32))
    return model


@pytest.mark.parametrize(
    ("make", "paths"),
    [
        (nested, ["inner/conv", "head"]),
        (subclassed, ["block/inside", "head"]),
        (subclassed_tf_keras, ["inside", "head"]),
    ],
)
def test_nested_and_subclassed_models(make, paths):
    model = make()
    for path in paths:
        check_layer(model, data((6, 3), 5), path)


def test_mixed_precision_is_read_in_float32():
    inputs = keras.Input((5,))
    hidden = layers.Dense(4, dtype="mixed_float16", name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(3, dtype="mixed_float16", name="b")(hidden))
    x = data((5,), 6) / 3
    rows = observe_rows(model, [[x]])
    np.testing.assert_array_equal(rows["a"][0], x)
    np.testing.assert_allclose(rows["b"][0], x @ model.get_layer("a").kernel.numpy(), rtol=1e-5, atol=1e-6)
    assert model.get_layer("a").compute_dtype == "float16"


def test_float64_stays():
    inputs = keras.Input((5,), dtype="float64")
    model = keras.Model(inputs, layers.Dense(4, dtype="float64", name="a")(inputs))
    x = data((5,), 6).astype(np.float64) / 3
    rows = check_layer(model, x, "a")
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows[0], x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: built(layers.Conv2D(4, 3, strides=2, groups=2, name="a"), (9, 8, 4)),
        lambda: built(layers.DepthwiseConv2D(3, name="a"), (9, 8, 4)),
        lambda: built(layers.Dense(4, name="a"), (9, 8, 4)),
    ],
)
def test_rows_are_made_in_parts_that_are_bounded(make, monkeypatch):
    model, x = make(), data((9, 8, 4), 7)
    whole = observe_rows(model, [[x]])["a"]
    _, readers, _ = find_readers(model)
    size = readers[0].count_numbers(x[:1])
    assert size * 7 == whole.size
    monkeypatch.setattr(rows_module, "_MAX_NUMBERS", 2 * size)
    parts = list(readers[0].read_in_parts(tf.constant(x)))
    assert [part.shape[1] for part in parts] == [whole.shape[1] * n // 7 for n in (2, 2, 2, 1)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
