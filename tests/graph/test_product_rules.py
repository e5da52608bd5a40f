"""Products by brute force: equations, and matrix products. Attention is in `test_attention`."""

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scored import check_operator, randomize, score_kernels

import tf_lap
from tf_lap.graph.channels import Signal
from tf_lap.graph.product_rules import match_channels

layers, ops = keras.layers, keras.ops
POSITIONS = 5


# Layers with an equation.


@dataclasses.dataclass(frozen=True)
class Stage:
    """A layer of a chain. Each axis but the batch, "z", has a letter.

    Attributes:
        inputs, kernel, outputs: the letters of the axes.
        is_dense: whether the layer is a Dense one.
        ellipsis: "leading" or "trailing", where an ellipsis stands for axes of positions.
    """

    inputs: str
    kernel: str
    outputs: str
    is_dense: bool = False
    ellipsis: str = ""

    @property
    def channels(self):
        """The axes of the output that tell channels apart."""
        return [letter for letter in self.outputs if letter in self.kernel]

    @property
    def positions(self):
        return [letter for letter in self.inputs if letter not in self.kernel]

    @property
    def equation(self):
        inputs, outputs = "z" + self.inputs, "z" + self.outputs
        if self.ellipsis == "leading":
            pairs = zip(inputs[:-1], outputs[:-1], strict=False)
            same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1] and pair[0] not in self.kernel, pairs)))
            same = min(same, 2)  # Keras puts more axes than that into the reverse order
            inputs, outputs = "..." + inputs[same:], "..." + outputs[same:]
        if self.ellipsis == "trailing":
            inputs, outputs = inputs[:-1] + "...", outputs[:-1] + "..."
        return f"{inputs},{self.kernel}->{outputs}"

    def make_layer(self, sizes):
        if self.is_dense:
            return layers.Dense(sizes[self.outputs[-1]])
        named = self.equation.split("->")[1].replace("...", "").removeprefix("z")
        return layers.EinsumDense(self.equation, [sizes[letter] for letter in named])

    def apply(self, x, kernel):
        return np.einsum(f"z{self.inputs},{self.kernel}->z{self.outputs}", x, kernel)


def draw_stage(draw, inputs, channels, fresh, positions_only):
    """A layer that reads some channels, each axis of its input being a position, contracted, or kept beside others."""
    roles = {a: "p" if a in positions_only else draw(st.sampled_from("pgi")) for a in inputs}
    assume(not channels or any(roles[letter] != "p" for letter in channels))
    put = [next(fresh) for _ in range(draw(st.integers(0, 2)))]
    kept = [a for a in inputs if roles[a] != "i"]
    kernel = [a for a in inputs if roles[a] != "p"] + put
    assume(kernel and 1 <= len(kept + put) <= 4)
    outputs = "".join(draw(st.permutations(kept + put)))
    stage = Stage(inputs, "".join(draw(st.permutations(kernel))), outputs)
    ways = ["", "leading"]
    if len(inputs) > 1 and inputs[-1] == outputs[-1] and inputs[-1] not in kernel:
        ways.append("trailing")
    if inputs[:-1] == outputs[:-1] and stage.kernel == inputs[-1] + outputs[-1]:
        ways.append("dense")
    way = draw(st.sampled_from(ways))
    return dataclasses.replace(stage, is_dense=way == "dense", ellipsis="" if way == "dense" else way)


@st.composite
def draw_chains(draw):
    """Three layers, and the sizes of all axes."""
    fresh = iter("abcdefghijkl")
    inputs = "".join(next(fresh) for _ in range(draw(st.integers(1, 3))))
    stages, channels, positions_only = [], [], set()
    sizes = {letter: draw(st.integers(1, 3)) for letter in "abcdefghijkl"}
    for _ in range(3):
        stage = draw_stage(draw, inputs, channels, fresh, positions_only)
        # What was a channel, and is a position now, is a mean. It is no channel again: that would mix places.
        positions_only = {letter for letter in stage.positions if letter in channels or letter in positions_only}
        channels = [letter for letter in stage.channels if sizes[letter] > 1]
        stages.append(stage)
        inputs = stage.outputs
    return stages, sizes


def check_chain(stages, sizes):
    inputs = keras.Input([sizes[letter] for letter in stages[0].inputs])
    x, built = inputs, []
    for stage in stages:
        layer = stage.make_layer(sizes)
        layer.use_bias = False
        x = layer(x)
        assert x.shape[1:] == tuple(sizes[letter] for letter in stage.outputs)
        built.append(layer)
    scored = score_kernels(randomize(keras.Model(inputs, x)))
    assert list(scored) == [layer.name for layer in built]
    kernels = [scored[layer.name].weights for layer in built]
    for number, layer in enumerate(built):
        first, last = max(0, number - 1), min(len(built) - 1, number + 1)
        shape = [sizes[letter] for letter in stages[first].inputs]
        basis = np.eye(math.prod(shape)).reshape(-1, *shape)
        positions = math.prod(sizes[letter] for letter in stages[last].positions)

        def operator(kernel, number=number, first=first, last=last, basis=basis, positions=positions):
            values = basis
            for other in range(first, last + 1):
                values = stages[other].apply(values, kernel if other == number else kernels[other])
            return [values / np.sqrt(positions)]

        check_operator(scored[layer.name], operator)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(draw_chains())
def test_zeroing_a_weight_of_an_equation_changes_the_operator_by_its_score(drawn):
    check_chain(*drawn)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(draw_chains())
def test_zeroing_a_weight_of_many_equations_changes_the_operator_by_its_score(drawn):
    check_chain(*drawn)


@pytest.mark.parametrize(
    "stage",
    [
        Stage("ac", "cde", "ade"),
        Stage("ac", "cde", "eda"),
        Stage("abc", "bce", "ae"),
        Stage("abc", "cbe", "eba"),
        Stage("ac", "acd", "ad"),
        Stage("ac", "dca", "da"),
        Stage("ac", "c", "ac"),
        Stage("ac", "cd", "da"),
        Stage("ac", "cd", "ad", ellipsis="leading"),
        Stage("ca", "cd", "da", ellipsis="trailing"),
    ],
    ids=lambda stage: stage.equation,
)
def test_an_equation_between_dense_layers(stage):
    sizes = dict(zip("abcdefxy", (2, 3, 2, 3, 2, 3, 3, 4), strict=True))
    read = next(letter for letter in stage.inputs[::-1] if letter in stage.kernel)
    before = Stage(stage.inputs.replace(read, "x"), "x" + read, stage.inputs, is_dense=read == stage.inputs[-1])
    last = stage.outputs[-1]
    behind = Stage(stage.outputs, last + "y", stage.outputs[:-1] + "y", is_dense=last in stage.channels)
    if last not in stage.channels:
        behind = dataclasses.replace(behind, kernel="".join(stage.outputs) + "y", outputs="y")
    check_chain([before, stage, behind], sizes)


def test_an_equation_that_reads_none_of_the_channels_is_a_boundary():
    inputs = keras.Input((3, 2))
    x = layers.EinsumDense("abc,bde->acde", (4, 2, 2), name="mixes")(layers.Dense(4, name="first")(inputs))
    boundaries = tf_lap.neighbors(keras.Model(inputs, x))["mixes"].boundaries
    assert any(
        "EinsumDense 'mixes': reads channels along axis 1, but its input carries channels on axis 2" in b
        for b in boundaries
    )


def test_channels_on_axes_of_size_one_are_read_on_any_axes():
    inputs = keras.Input((1, 1, 3))
    x = layers.EinsumDense("abcd,bce->ade", (3, 2), name="reads")(layers.Dense(3, name="first")(inputs))
    model = randomize(keras.Model(inputs, x))
    kernel = model.get_layer("first").kernel.numpy()
    incoming = tf_lap.channel_energies(model)["reads"].incoming
    np.testing.assert_allclose(incoming, [np.mean(np.sum(kernel**2, axis=0))], rtol=1e-5)


# Which channels of two tensors meet.


@st.composite
def draw_signals(draw):
    """Two tensors, each with channels on some axes. An axis that both share may have a size of 1 in one of them."""
    sizes = {letter: draw(st.integers(2, 3)) for letter in "abcd"}
    drawn = []
    for _ in range(2):
        labels = draw(st.permutations("abcd"))[: draw(st.integers(1, 4))]
        shape = [1 if draw(st.integers(0, 5)) == 0 else sizes[letter] for letter in labels]
        axes = [axis for axis in range(1, len(labels) + 1) if draw(st.integers(0, 3))]
        drawn.append((Signal((None, *shape), tuple(axes)), ("z", *labels)))
    return drawn


@settings(max_examples=150, deadline=None, derandomize=True)
@given(draw_signals())
def test_a_channel_is_read_by_all_channels_that_share_its_place(drawn):
    (left, left_labels), (right, right_labels) = drawn
    energy_map = match_channels(left, left_labels, right, right_labels)
    rng = np.random.default_rng(0)
    left_energy, right_energy = (rng.random(math.prod(s.sizes())).astype(np.float32) for s in (left, right))
    read_of_left, read_of_right = np.zeros_like(left_energy), np.zeros_like(right_energy)
    for i, place in enumerate(np.ndindex(*left.sizes())):
        for j, other in enumerate(np.ndindex(*right.sizes())):
            where = dict(zip((left_labels[axis] for axis in left.axes), place, strict=True))
            others = dict(zip((right_labels[axis] for axis in right.axes), other, strict=True))
            if all(where[label] == others[label] for label in where.keys() & others.keys()):
                read_of_left[i] += right_energy[j]
                read_of_right[j] += left_energy[i]
    for make in (np.asarray, tf.constant):
        arrays = make(left_energy), make(right_energy)
        np.testing.assert_allclose(energy_map.apply(arrays[1]), read_of_left, rtol=1e-5)
        np.testing.assert_allclose(energy_map.transpose(*arrays)[0], read_of_right, rtol=1e-5)


def test_a_matrix_product_of_transposed_operands():
    inputs = tf_keras.Input((POSITIONS, 2))
    query, key = (tf_keras.layers.Dense(3, name=name)(inputs) for name in ("query", "key"))
    turned = tf.transpose(query, (0, 2, 1))
    model = randomize(tf_keras.Model(inputs, tf.matmul(turned, key, transpose_a=True, transpose_b=True)))
    scored = score_kernels(model)
    check_operator(scored["query"], lambda kernel: [kernel @ scored["key"].weights.T])
    check_operator(scored["key"], lambda kernel: [kernel @ scored["query"].weights.T])


@pytest.mark.parametrize(
    ("multiply", "reason"),
    [
        (lambda x: ops.einsum("bsd,de->bse", x, np.ones((3, 4))), "multiplies its channels (axis 2) with a matrix"),
        (lambda x: ops.matmul(x, np.ones(3)), "multiplies a vector"),
        (lambda x: ops.einsum("bss->bs", x[:, :3]), "which takes a diagonal"),
        (lambda x: ops.einsum("bsd,bsd,bsd->bsd", x, x, x), "multiplies 3 tensors that carry channels"),
    ],
)
def test_a_product_that_cannot_be_followed_is_a_boundary(multiply, reason):
    inputs = keras.Input((POSITIONS, 2))
    x = multiply(layers.Dense(3, name="first")(inputs))
    boundaries = tf_lap.neighbors(keras.Model(inputs, x))["first"].boundaries
    assert any(reason in boundary for boundary in boundaries)
