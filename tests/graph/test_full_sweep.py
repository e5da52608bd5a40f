"""Energies through several kernels on each side, and through all: products, loops, tables that are turned round."""

import keras
import numpy as np
import pytest
from matrix_sweep import MatrixSweep
from scored import find_far_energies, randomize, score_kernels

layers, ops = keras.layers, keras.ops


def square_kernels(model):
    """The squares of all kernels of a model as matrices, `(inputs, outputs)`, summed over taps."""
    squares = {path: np.square(kernel.weights) for path, kernel in score_kernels(model).items()}
    by_rank = {2: lambda s: s, 3: lambda s: s.reshape(len(s), -1)}
    by_rank[3.5] = lambda s: s.reshape(-1, s.shape[-1])  # heads and their channels are inputs
    return {path: by_rank[s.ndim + 0.5 * path.endswith("attention_output")](s) for path, s in squares.items()}


def build_attention():
    """Grouped heads: 4 of queries, 2 of keys and values."""
    inputs = keras.Input((5, 3))
    x = layers.Dense(3, use_bias=False, name="first")(inputs)
    y = layers.Dense(3, use_bias=False, name="second")(x)
    y = layers.GroupQueryAttention(2, 4, 2, use_bias=False, name="attend")(y, x)
    y = layers.Dense(3, use_bias=False, name="third")(layers.Add()([y, y]))
    model = randomize(keras.Model(inputs, layers.Dense(2, use_bias=False, name="last")(y)))
    repeat = np.kron(np.repeat(np.eye(2), 2, axis=0), np.eye(2))  # (heads, groups), each of 2 channels
    steps = [
        ("kernel", "first", "input", "x"),
        ("kernel", "second", "x", "y"),
        ("kernel", "attend/query", "y", "query"),
        ("kernel", "attend/key", "x", "key"),
        ("kernel", "attend/value", "x", "value"),
        ("product", "query", "key", repeat / 2),
        ("map", {"value": repeat.T}, "attended"),
        ("kernel", "attend/attention_output", "attended", "projected"),
        ("map", {"projected": 2 * np.eye(3)}, "sum"),
        ("kernel", "third", "sum", "z"),
        ("kernel", "last", "z", "end"),
        ("out", "end"),
    ]
    widths = {
        "input": 3,
        "x": 3,
        "y": 3,
        "query": 8,
        "key": 4,
        "value": 4,
        "attended": 8,
        "projected": 3,
        "sum": 3,
        "z": 3,
        "end": 2,
    }
    return model, steps, widths


def build_loops():
    """Gates, two loops one behind the other, a kernel before them and behind."""
    inputs = keras.Input((5, 3))
    x = layers.Dense(4, use_bias=False, name="first")(inputs)
    x = layers.GRU(2, use_bias=False, return_sequences=True, name="gru")(x)
    x = layers.SimpleRNN(3, use_bias=False, name="rnn")(x)
    x = layers.Dense(3, use_bias=False, name="third")(x)
    model = randomize(keras.Model(inputs, layers.Dense(2, use_bias=False, name="last")(x)))
    gates = np.tile(np.eye(2), (3, 1))
    steps = [
        ("kernel", "first", "input", "x"),
        ("kernel", "gru/kernel", "x", "gates"),
        ("map", {"gates": gates, "gates before": gates}, "h"),
        ("loop", "gru/recurrent_kernel", "h", "gates before"),
        ("kernel", "rnn/kernel", "h", "sum"),
        ("map", {"sum": np.eye(3), "sum before": np.eye(3)}, "k"),
        ("loop", "rnn/recurrent_kernel", "k", "sum before"),
        ("kernel", "third", "k", "z"),
        ("kernel", "last", "z", "end"),
        ("out", "end"),
    ]
    widths = {"input": 3, "x": 4, "gates": 6, "gates before": 6, "h": 2, "sum": 3, "sum before": 3, "k": 3, "z": 3}
    return model, steps, {**widths, "end": 2}


def build_tied():
    """A table that is looked up at the beginning, and turned round at the end."""
    tokens = keras.Input((5,), dtype="int32")
    table = layers.ReversibleEmbedding(6, 3, name="table")
    x = layers.Dense(4, use_bias=False, name="first")(table(tokens))
    x = layers.Dense(3, use_bias=False, name="second")(x)
    model = randomize(keras.Model(tokens, table(x, reverse=True)))
    steps = [
        ("kernel", "table", "tokens", "row"),
        ("map", {"row": np.eye(3) / 6}, "x"),
        ("kernel", "first", "x", "y"),
        ("kernel", "second", "y", "z"),
        ("turned", "table", "z", "logits"),
        ("out", "logits"),
    ]
    return model, steps, {"tokens": 6, "row": 3, "x": 3, "y": 4, "z": 3, "logits": 6}


def build_filters():
    """Filters for each channel at the very beginning, and between kernels."""
    inputs = keras.Input((8, 2))
    x = layers.DepthwiseConv1D(2, depth_multiplier=2, use_bias=False, name="begin")(inputs)
    x = layers.Dense(3, use_bias=False, name="first")(x)
    x = layers.DepthwiseConv1D(2, use_bias=False, name="middle")(x)
    x = layers.Dense(3, use_bias=False, name="second")(x)
    model = randomize(keras.Model(inputs, layers.Dense(2, use_bias=False, name="last")(x)))
    begin, middle = (np.square(model.get_layer(name).kernel.numpy()).sum(axis=0) for name in ("begin", "middle"))
    steps = [
        ("filters", "begin", "input", "a", np.stack([[*begin[0], 0, 0], [0, 0, *begin[1]]])),
        ("kernel", "first", "a", "b"),
        ("filters", "middle", "b", "c", np.diag(middle[:, 0])),
        ("kernel", "second", "c", "d"),
        ("kernel", "last", "d", "end"),
        ("out", "end"),
    ]
    return model, steps, {"input": 2, "a": 4, "b": 3, "c": 3, "d": 3, "end": 2}


@pytest.mark.parametrize("distance", [1, 2, 3, None])
@pytest.mark.parametrize("build", [build_attention, build_loops, build_tied, build_filters], ids=lambda b: b.__name__)
def test_far_energies_are_those_of_a_network_of_matrices(build, distance):
    model, steps, widths = build()
    network = MatrixSweep(square_kernels(model), steps, widths)
    expected = network.to_ends() if distance is None else network.far(distance)
    energies = find_far_energies(model, distance)
    assert set(energies) == set(expected)
    for path, sides in energies.items():
        for side, uses in zip(sides, zip(*expected[path], strict=True), strict=True):
            numbers = np.stack(uses)
            if distance is None:  # those of a kernel are divided by a number of its own
                side, numbers = side / np.max(side), numbers / np.max(numbers)
            np.testing.assert_allclose(side, numbers, rtol=1e-4, err_msg=path)


def test_weights_far_from_one_change_nothing_round_a_loop():
    model, *_ = build_loops()
    expected = find_far_energies(model, None)
    for variable, factor in zip(model.variables, (1e12, 1e-12, 1.0, 1e9, 1.0, 1e-9, 1e10), strict=False):
        variable.assign(variable * factor)
    energies = find_far_energies(model, None)
    for path in ("gru/kernel", "first"):
        before, after = (np.asarray(sides[path][0]) for sides in (expected, energies))
        np.testing.assert_allclose(after / after.max(), before / before.max(), rtol=1e-4, err_msg=path)
    assert all(np.isfinite(side).all() for sides in energies.values() for side in sides)
