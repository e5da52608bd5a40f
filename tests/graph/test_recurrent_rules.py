"""Recurrent layers: linear ones by brute force, and all by their rule, written out in NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tf_keras
from scored import check_operator, randomize, score_kernels

import tf_lap

BOTH = pytest.mark.parametrize("namespace", [keras, tf_keras], ids=lambda namespace: namespace.__name__)


def surround(namespace, recurrent, shape=(5, 3)):
    """A model of `recurrent` between kernels `first` and `last`."""
    inputs = namespace.Input(shape)
    x = recurrent(namespace.layers.Dense(4, use_bias=False, name="first")(inputs))
    return randomize(namespace.Model(inputs, namespace.layers.Dense(2, use_bias=False, name="last")(x)))


# One time step of a linear layer: h = x W + h' U, where h is read by what follows and by U.


@BOTH
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"unroll": True}], ids=str)
def test_zeroing_a_weight_changes_one_time_step_by_its_score(namespace, options):
    recurrent = namespace.layers.SimpleRNN(3, activation="linear", name="rnn", **options)
    scored = score_kernels(surround(namespace, recurrent))
    first, w, u, last = (scored[path].weights for path in ("first", "rnn/kernel", "rnn/recurrent_kernel", "last"))
    check_operator(scored["first"], lambda kernel: [kernel @ w])
    check_operator(scored["rnn/kernel"], lambda kernel: [first @ kernel @ last, first @ kernel @ u])
    sides = list(itertools.product((w, u), (last, u)))
    check_operator(scored["rnn/recurrent_kernel"], lambda kernel: [one @ kernel @ other for one, other in sides])
    check_operator(scored["last"], lambda kernel: [w @ kernel, u @ kernel])


@BOTH
def test_zeroing_a_weight_of_what_a_linear_layer_begins_with(namespace):
    inputs, begin = namespace.Input((5, 3)), namespace.Input((2,))
    state = namespace.layers.Dense(3, use_bias=False, name="state")(begin)
    recurrent = namespace.layers.SimpleRNN(3, activation="linear", name="rnn")
    x = namespace.layers.Dense(2, use_bias=False, name="last")(recurrent(inputs, initial_state=state))
    scored = score_kernels(randomize(namespace.Model([inputs, begin], x)))
    p, w, u, last = (scored[path].weights for path in ("state", "rnn/kernel", "rnn/recurrent_kernel", "last"))
    check_operator(scored["state"], lambda kernel: [kernel @ u])
    check_operator(scored["rnn/kernel"], lambda kernel: [kernel @ last, kernel @ u])
    sides = list(itertools.product((p, w, u), (last, u)))
    check_operator(scored["rnn/recurrent_kernel"], lambda kernel: [one @ kernel @ other for one, other in sides])
    check_operator(scored["last"], lambda kernel: [w @ kernel, u @ kernel])


# The rule: the energies of gates are added up, and each gate's column is read as its hidden channel is.


def sum_squares(kernel, axis):
    """The sum of squares along an axis, counted from the end, and over taps."""
    matrix = np.square(kernel.weights).sum(axis=tuple(range(kernel.weights.ndim - 2)))
    return matrix.sum(axis=axis)


def put_by(scored, path):
    """What a cell puts into its hidden state."""
    kernel, recurrent = scored[f"{path}/kernel"], scored[f"{path}/recurrent_kernel"]
    units = recurrent.weights.shape[-2]
    return (sum_squares(kernel, -2) + sum_squares(recurrent, -2)).reshape(-1, units).sum(axis=0)


def check_cell(scored, path, incoming, read, state=0.0, carried=0.0):
    """The scores of a cell's kernels.

    Args:
        scored: the kernels.
        path: the cell's.
        incoming: the energy of what it reads.
        read: what reads its hidden state, except its recurrent kernel.
        state: the energy of the state that it begins with.
        carried: likewise, of a state that the layers behind read.
    """
    kernel, recurrent = scored[f"{path}/kernel"], scored[f"{path}/recurrent_kernel"]
    units = recurrent.weights.shape[-2]
    reads = np.tile(read + sum_squares(recurrent, -1), recurrent.weights.shape[-1] // units)
    check_scores(kernel, incoming, reads)
    check_scores(recurrent, put_by(scored, path) + state + carried, reads)


def check_scores(kernel, incoming, outgoing):
    expected = np.abs(kernel.weights) * np.sqrt(np.multiply.outer(incoming, outgoing))
    np.testing.assert_allclose(kernel.scores, expected, rtol=1e-4, err_msg=str(kernel.weights.shape))


@BOTH
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_a_layer_of_gates(namespace, name, return_sequences):
    layer = getattr(namespace.layers, name)(3, return_sequences=return_sequences, name="rnn")
    scored = score_kernels(surround(namespace, layer))
    assert list(scored) == ["first", "rnn/kernel", "rnn/recurrent_kernel", "last"]
    check_cell(scored, "rnn", sum_squares(scored["first"], -2), sum_squares(scored["last"], -1))
    check_scores(scored["first"], np.ones(3), sum_squares(scored["rnn/kernel"], -1))
    check_scores(scored["last"], put_by(scored, "rnn"), np.ones(2))


@BOTH
@pytest.mark.parametrize("wrap", [False, True])
def test_stacked_cells(namespace, wrap):
    cells = [getattr(namespace.layers, f"{n}Cell")(u, name=n) for n, u in (("LSTM", 3), ("GRU", 2), ("SimpleRNN", 4))]
    cell = namespace.layers.StackedRNNCells(cells) if wrap else cells
    scored = score_kernels(surround(namespace, namespace.layers.RNN(cell, name="rnn")))
    paths = ["rnn/LSTM", "rnn/GRU", "rnn/SimpleRNN"]
    read = [sum_squares(scored[f"{path}/kernel"], -1) for path in paths[1:]] + [sum_squares(scored["last"], -1)]
    incoming = sum_squares(scored["first"], -2)
    for path, reads in zip(paths, read, strict=True):
        check_cell(scored, path, incoming, reads)
        incoming = put_by(scored, path)
    check_scores(scored["last"], incoming, np.ones(2))


MERGES = {
    "concat": lambda one, other: np.concatenate([one, other]),
    "sum": lambda one, other: one + other,
    "mul": lambda one, other: one + other,
    "ave": lambda one, other: (one + other) / 4,
}


@BOTH
@pytest.mark.parametrize(
    ("merge_mode", "return_sequences"),
    [("concat", False), ("concat", True), ("sum", True), ("mul", False), ("ave", True)],
)
def test_both_directions(namespace, merge_mode, return_sequences):
    inner = namespace.layers.GRU(3, return_sequences=return_sequences, name="gru")
    layer = namespace.layers.Bidirectional(inner, merge_mode=merge_mode, name="both")
    scored = score_kernels(surround(namespace, layer))
    paths = ["both/forward_gru", "both/backward_gru"]
    put = MERGES[merge_mode](*(put_by(scored, path) for path in paths))
    check_scores(scored["last"], put, np.ones(2))
    read = sum_squares(scored["last"], -1)
    reads = np.split(read, 2) if merge_mode == "concat" else [read * (0.25 if merge_mode == "ave" else 1)] * 2
    for path, behind in zip(paths, reads, strict=True):
        check_cell(scored, path, sum_squares(scored["first"], -2), behind)
    total = sum(sum_squares(scored[f"{path}/kernel"], -1) for path in paths)
    check_scores(scored["first"], np.ones(3), total)


@pytest.mark.parametrize(("namespace", "width"), [(keras, 3), (tf_keras, 2)], ids=["keras", "tf_keras"])
def test_both_directions_side_by_side(namespace, width):
    """Keras 3 takes the backward layer for as wide as the forward one."""
    layers = namespace.layers
    inputs = namespace.Input((5, 3))
    x = layers.Dense(4, use_bias=False, name="first")(inputs)
    backward = layers.SimpleRNN(width, go_backwards=True, name="backward")
    layer = layers.Bidirectional(layers.LSTM(3, name="forward"), merge_mode=None, backward_layer=backward, name="both")
    one, other = layer(x)
    ends = [layers.Dense(2, name="one")(one), layers.Dense(2, name="other")(other)]
    scored = score_kernels(randomize(namespace.Model(inputs, ends)))
    for end, inner in (("one", layer.forward_layer), ("other", layer.backward_layer)):
        path = f"both/{inner.name}"
        check_cell(scored, path, sum_squares(scored["first"], -2), sum_squares(scored[end], -1))
        check_scores(scored[end], put_by(scored, path), np.ones(2))


@BOTH
@pytest.mark.parametrize(
    ("rank", "data_format", "return_sequences"),
    [
        (1, "channels_last", False),
        (1, "channels_first", True),
        (2, "channels_last", True),
        (2, "channels_first", False),
        (2, "channels_first", True),
    ],
)
def test_convolutions_over_time(namespace, rank, data_format, return_sequences):
    layers, first = namespace.layers, data_format == "channels_first"
    options = {"data_format": data_format, "padding": "same"}
    space, axis = (4,) * rank, 2 if first else rank + 2
    inputs = namespace.Input((2, 3, *space) if first else (2, *space, 3))
    before = getattr(layers, f"Conv{rank}D")(4, 1, use_bias=False, name="first", **options)
    x = layers.TimeDistributed(before, name="each")(inputs)
    layer = getattr(layers, f"ConvLSTM{rank}D")(3, 2, return_sequences=return_sequences, name="rnn", **options)
    x = layer(x)
    assert x.shape[axis - (not return_sequences)] == 3
    last = getattr(layers, f"Conv{rank}D")(2, 1, use_bias=False, name="last", **options)
    x = layers.TimeDistributed(last, name="next")(x) if return_sequences else last(x)
    scored = score_kernels(randomize(namespace.Model(inputs, x)))
    end = scored["next/last" if return_sequences else "last"]
    check_cell(scored, "rnn", sum_squares(scored["each/first"], -2), sum_squares(end, -1))
    check_scores(end, put_by(scored, "rnn"), np.ones(2))
    check_scores(scored["each/first"], np.ones(3), sum_squares(scored["rnn/kernel"], -1))


@BOTH
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_states_that_gates_begin_with(namespace, name):
    """The recurrent kernel reads all of them. What follows reads what the cell carries on: c of an LSTM, h of a GRU."""
    layers = namespace.layers
    inputs, begin = namespace.Input((5, 3)), namespace.Input((2,))
    states = [layers.Dense(3, use_bias=False, name=state)(begin) for state in ("h", "c")[: 1 + (name == "LSTM")]]
    x = getattr(layers, name)(3, name="rnn")(inputs, initial_state=states)
    scored = score_kernels(randomize(namespace.Model([inputs, begin], layers.Dense(2, name="last")(x))))
    read, looped = sum_squares(scored["last"], -1), sum_squares(scored["rnn/recurrent_kernel"], -1)
    h = sum_squares(scored["h"], -2)
    if name == "LSTM":
        carried, state = sum_squares(scored["c"], -2), h
        check_scores(scored["c"], np.ones(2), read + looped)
        check_scores(scored["h"], np.ones(2), looped)
    else:
        carried, state = h, 0.0
        check_scores(scored["h"], np.ones(2), read + looped)
    check_cell(scored, "rnn", np.ones(3), read, state, carried)
    check_scores(scored["last"], put_by(scored, "rnn") + carried, np.ones(2))


@BOTH
def test_states_go_from_an_encoder_to_a_decoder_in_both_directions(namespace):
    layers = namespace.layers
    inputs, others = namespace.Input((5, 3)), namespace.Input((4, 2))
    encoder = layers.Bidirectional(layers.LSTM(3, return_state=True), name="encoder")
    _, *states = encoder(others)
    decoder = layers.Bidirectional(layers.LSTM(3), name="decoder")
    x = layers.Dense(2, name="last")(decoder(inputs, initial_state=states))
    model = randomize(namespace.Model([inputs, others], x))
    scored = score_kernels(model)
    encoders, decoders = (
        [f"{layer.name}/{inner.name}" for inner in (layer.forward_layer, layer.backward_layer)]
        for layer in (encoder, decoder)
    )
    reads = np.split(sum_squares(scored["last"], -1), 2)
    for path, other, read in zip(encoders, decoders, reads, strict=True):
        put, looped = put_by(scored, path), sum_squares(scored[f"{other}/recurrent_kernel"], -1)
        check_cell(scored, other, np.ones(3), read, put, put)  # h is read once, by the loop; c by all
        check_cell(scored, path, np.ones(2), read + 2 * looped)


@BOTH
def test_a_state_of_several_cells_is_a_boundary(namespace):
    layers = namespace.layers
    inputs, begin = namespace.Input((5, 3)), namespace.Input((2,))
    states = [layers.Dense(3, name=f"state_{place}")(begin) for place in range(2)]
    recurrent = layers.RNN([layers.SimpleRNNCell(3), layers.SimpleRNNCell(3)], name="rnn")
    model = namespace.Model([inputs, begin], recurrent(inputs, initial_state=states))
    around = tf_lap.neighbors(model)
    assert around["state_0"].boundaries[-1] == "RNN 'rnn': the initial state of several cells"


class Cell(keras.layers.Layer):
    """A user's cell; what it has by the names of kernels is none of Keras's."""

    state_size = output_size = 3

    def __init__(self, make_kernels=None, **kwargs):
        super().__init__(**kwargs)
        self.make_kernels = make_kernels

    def build(self, shape):
        if self.make_kernels:
            self.kernel, self.recurrent_kernel = self.make_kernels(self)

    def call(self, inputs, states):
        return inputs + states[0], [inputs + states[0]]


CELLS = pytest.mark.parametrize(
    "make_kernels",
    [
        None,
        lambda cell: (cell.add_weight(shape=(3, 3)), cell.add_weight(shape=(3,))),
        lambda cell: (keras.layers.Dense(3), keras.layers.Dense(3)),
    ],
    ids=["nothing", "vector", "layers"],
)
REASON = "its cell Cell has not the kernels of a cell of Keras's"


@CELLS
def test_a_cell_without_the_two_kernels_is_a_boundary(make_kernels):
    inputs = keras.Input((5, 3))
    x = keras.layers.RNN(Cell(make_kernels), name="rnn")(keras.layers.Dense(3, name="first")(inputs))
    boundaries = tf_lap.neighbors(keras.Model(inputs, x))["first"].boundaries
    assert boundaries[-1] == f"RNN 'rnn': {REASON}"


@CELLS
def test_no_direction_is_followed_where_one_has_such_a_cell(make_kernels):
    backward = keras.layers.RNN(Cell(make_kernels), go_backwards=True)
    both = keras.layers.Bidirectional(keras.layers.LSTM(3, name="forward"), backward_layer=backward, name="both")
    around = tf_lap.neighbors(keras.Sequential([keras.Input((5, 3)), both, keras.layers.Dense(2, name="last")]))
    paths = [path for path in around if path.startswith("both")]
    assert [path.rpartition("/")[2] for path in paths] == ["kernel", "recurrent_kernel"]
    for path in (*paths, "last"):
        assert around[path].previous == ()
        assert around[path].boundaries[0] == f"Bidirectional 'both': {REASON}"


def test_a_constant_keeps_the_place_of_a_state():
    inputs, zeros = keras.Input((5, 3)), np.zeros((1, 4), np.float32)
    _, hidden, carry = keras.layers.LSTM(4, return_state=True, name="encode")(inputs)
    decode = keras.layers.Bidirectional(keras.layers.LSTM(4), name="decode")
    model = keras.Model(inputs, decode(inputs, initial_state=[hidden, carry, zeros, zeros]))
    around = {path.removeprefix("decode/")[:7]: near.previous for path, near in tf_lap.neighbors(model).items()}
    assert "encode/kernel" in around["forward"]
    assert "encode/kernel" not in around["backwar"]


def test_a_decoder_may_read_constants():
    _, *states = keras.layers.LSTM(4, return_state=True, name="encode")(inputs := keras.Input((5, 3)))
    decode = keras.layers.LSTM(4, return_sequences=True, name="decode")
    x = decode(np.zeros((1, 5, 3), np.float32), initial_state=states)
    around = tf_lap.neighbors(keras.Model(inputs, keras.layers.Dense(2, name="last")(x)))
    assert around["decode/kernel"].previous == ()
    assert around["decode/kernel"].following == ("decode/recurrent_kernel", "last")
    assert around["decode/recurrent_kernel"].previous[:2] == ("encode/kernel", "encode/recurrent_kernel")


def test_directions_of_different_widths_are_joined_as_they_are():
    inputs = keras.Input((4, 3))
    backward = keras.layers.LSTM(5, go_backwards=True)
    joined = keras.layers.Bidirectional(keras.layers.LSTM(2), backward_layer=backward, name="both")(inputs)
    model = keras.Model(inputs, keras.layers.ReLU()(joined))
    shapes = [energies.outgoing.shape for path, energies in tf_lap.channel_energies(model).items() if "kernel" in path]
    assert shapes == [(8,), (8,), (20,), (20,)]
