"""Products by brute force: equations, attention head by head, queries and keys through their bilinear form."""

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
from scored import Scored, check_operator, randomize, score_kernels

import tf_lap
from tf_lap.graph.channels import Signal
from tf_lap.graph.product_rules import match_channels

layers, ops = keras.layers, keras.ops


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


# Attention: value to output head by head, with the attention of each head fixed; query and key as a bilinear form.

POSITIONS = 5


def check_attention(scored, factor=2**-0.5):
    """Checks the kernels of attention that goes from the output of `first` to itself, and is read by `last`.

    Args:
        scored: by name. Those of attention have axes for heads and their channels.
        factor: of the attention scores.
    """
    before, last = scored["first"].weights, scored["last"].weights
    q, k, v, o = (scored[name].weights for name in ("query", "key", "value", "output"))
    heads, shared_by = q.shape[1], q.shape[1] // k.shape[1]

    def form(left, right):
        """The operators `x Wq Wk^T` of all heads, times the factor."""
        pairs = [[kernel[:, h * kernel.shape[1] // heads] for kernel in (left, right)] for h in range(heads)]
        return [before @ one @ other.T * factor for one, other in pairs]

    def chain(value_kernel, output_kernel, with_first=True, with_last=False):
        """One position looks at one other in each head, and no two heads look alike."""
        repeated = np.repeat(value_kernel, shared_by, axis=1)
        attention = np.stack([np.roll(np.eye(POSITIONS), h, axis=0) for h in range(heads)])
        start = before if with_first else np.eye(len(value_kernel))
        end = last if with_last else np.eye(output_kernel.shape[-1])
        full = np.einsum("hts,xi,ihd,hdo,oy->txsy", attention, start, repeated, output_kernel, end)
        return [full / np.sqrt(POSITIONS)]

    check_operator(scored["query"], lambda kernel: form(kernel, k))
    check_operator(scored["key"], lambda kernel: form(kernel, q))
    check_operator(scored["value"], lambda kernel: chain(kernel, o))
    check_operator(scored["output"], lambda kernel: chain(v, kernel, with_first=False, with_last=True))
    reads = [np.reshape(kernel, (len(kernel), -1)) for kernel in (q, k, v)]
    check_operator(scored["first"], lambda kernel: [kernel @ read for read in reads])
    check_operator(scored["last"], lambda kernel: [o.reshape(-1, o.shape[-1]) @ kernel])


def surround(namespace, attend, positions=(POSITIONS,)):
    inputs = namespace.Input((*positions, 2))
    x = namespace.layers.Dense(3, name="first")(inputs)
    return randomize(namespace.Model(inputs, namespace.layers.Dense(2, name="last")(attend(x))))


def find_parts(model):
    """The kernels of a model, those of the layer `attend` by their parts."""
    parts = {path.removeprefix("attend/"): kernel for path, kernel in score_kernels(model).items()}
    return {**parts, "output": parts["attention_output"]}


@pytest.mark.parametrize(
    ("namespace", "options"),
    [
        (keras, {}),
        (keras, {"value_dim": 3, "output_shape": 5}),
        (keras, {"dropout": 0.1}),
        (tf_keras, {}),
        (tf_keras, {"value_dim": 3, "dropout": 0.1}),
    ],
    ids=str,
)
def test_multi_head_attention(namespace, options):
    attend = namespace.layers.MultiHeadAttention(2, 2, name="attend", **options)
    model = surround(namespace, lambda x: attend(x, x))
    check_attention(find_parts(model))


@pytest.mark.parametrize("namespace", [keras, tf_keras], ids=lambda namespace: namespace.__name__)
@pytest.mark.parametrize("axes", [2, (1, 2)])
def test_multi_head_attention_over_several_axes(namespace, axes):
    attend = namespace.layers.MultiHeadAttention(2, 2, attention_axes=axes, name="attend")
    check_attention(find_parts(surround(namespace, lambda x: attend(x, x), (2, 3))))


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1}], ids=str)
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (3, 1), (2, 2)])
def test_grouped_query_attention(heads, groups, options):
    attend = layers.GroupQueryAttention(2, heads, groups, name="attend", **options)
    model = surround(keras, lambda x: attend(x, x))
    check_attention(find_parts(model))


def attend_by_equations(x):
    query, key, value = (layers.Dense(4, use_bias=False, name=name)(x) for name in ("query", "key", "value"))
    query, key, value = (ops.reshape(tensor, (-1, POSITIONS, 2, 2)) for tensor in (query, key, value))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", query * 2**-0.5, key))
    attended = ops.einsum("bhts,bshd->btdh", scores, value)
    return ops.reshape(ops.transpose(attended, (0, 1, 3, 2)), (-1, POSITIONS, 4))


def attend_by_matrix_products(x):
    query, key, value = (layers.Dense(4, use_bias=False, name=name)(x) for name in ("query", "key", "value"))
    query, key, value = (
        ops.transpose(ops.reshape(tensor, (-1, POSITIONS, 2, 2)), (0, 2, 1, 3)) for tensor in (query, key, value)
    )
    scores = ops.softmax(ops.matmul(query / np.sqrt(2), ops.swapaxes(key, -1, -2)))
    attended = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
    return layers.Reshape((POSITIONS, 4))(attended)


def attend_by_split(x):
    """Queries, keys and values come from one kernel, `(inputs, 3 * heads * channels)`."""
    together = layers.Dense(12, use_bias=False, name="together")(x)
    query, key, value = (ops.reshape(part, (-1, POSITIONS, 2, 2)) for part in ops.split(together, 3, axis=-1))
    return ops.reshape(ops.dot_product_attention(query, key, value), (-1, POSITIONS, 4))


def attend_by_slices(x):
    """As `attend_by_split`, but heads are cut out of a reshaped tensor, `(batch, positions, 3, heads, channels)`."""
    together = ops.reshape(layers.Dense(12, use_bias=False, name="together")(x), (-1, POSITIONS, 3, 2, 2))
    query, key, value = (together[:, :, part] for part in range(3))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", query * 2**-0.5, key))
    return ops.reshape(ops.einsum("bhts,bshd->bthd", scores, value), (-1, POSITIONS, 4))


WRITTEN_OUT = [attend_by_equations, attend_by_matrix_products, attend_by_split, attend_by_slices]


@pytest.mark.parametrize("attend", WRITTEN_OUT, ids=lambda attend: attend.__name__)
def test_attention_that_is_written_out(attend):
    scored = score_kernels(surround(keras, lambda x: layers.Dense(3, use_bias=False, name="output")(attend(x))))
    if "together" in scored:
        for name, *parts in zip(
            ("query", "key", "value"), *(np.split(array, 3, axis=1) for array in scored["together"]), strict=True
        ):
            scored[name] = Scored(*parts)
        del scored["together"]
    by_head = {name: Scored(*(a.reshape(3, 2, 2) for a in scored[name])) for name in ("query", "key", "value")}
    check_attention({**scored, **by_head, "output": Scored(*(a.reshape(2, 2, 3) for a in scored["output"]))})


def share_heads_by_equations(query, key, value):
    """Queries `(batch, positions, groups, heads of a group, channels)`."""
    query = ops.reshape(query, (-1, POSITIONS, 2, 2, 2))
    key, value = (ops.reshape(tensor, (-1, POSITIONS, 2, 2)) for tensor in (key, value))
    scores = ops.softmax(ops.einsum("btghd,bsgd->bghts", query, key))
    return ops.einsum("bghts,bsgd->btghd", scores, value)


def share_heads_by_broadcasting(query, key, value):
    """Keys and values `(batch, groups, 1, positions, channels)`."""
    query = ops.transpose(ops.reshape(query, (-1, POSITIONS, 2, 2, 2)), (0, 2, 3, 1, 4))
    key, value = (
        ops.expand_dims(ops.transpose(ops.reshape(tensor, (-1, POSITIONS, 2, 2)), (0, 2, 1, 3)), 2)
        for tensor in (key, value)
    )
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 2, 4, 3))))
    return ops.transpose(ops.matmul(scores, value), (0, 3, 1, 2, 4))


def share_heads_by_repeating(query, key, value):
    query = ops.reshape(query, (-1, POSITIONS, 4, 2))
    key, value = (ops.repeat(ops.reshape(tensor, (-1, POSITIONS, 2, 2)), 2, axis=2) for tensor in (key, value))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", query, key))
    return ops.einsum("bhts,bshd->bthd", scores, value)


def share_heads_in_one_operation(query, key, value):
    query = ops.reshape(query, (-1, POSITIONS, 4, 2))
    key, value = (ops.reshape(tensor, (-1, POSITIONS, 2, 2)) for tensor in (key, value))
    return ops.dot_product_attention(query, key, value, scale=1.0)


SHARING = [share_heads_by_equations, share_heads_by_broadcasting, share_heads_by_repeating]
SHARING += [share_heads_in_one_operation]


@pytest.mark.parametrize("share", SHARING, ids=lambda share: share.__name__)
def test_heads_that_share_keys_written_out(share):
    def attend(x):
        query, key, value = (layers.Dense(n, name=name)(x) for n, name in ((8, "query"), (4, "key"), (4, "value")))
        attended = ops.reshape(share(query, key, value), (-1, POSITIONS, 8))
        return layers.Dense(3, name="output")(attended)

    scored = score_kernels(surround(keras, attend))
    by_head = {name: Scored(*(a.reshape(3, -1, 2) for a in scored[name])) for name in ("query", "key", "value")}
    output = Scored(*(a.reshape(4, 2, 3) for a in scored["output"]))
    check_attention({**scored, **by_head, "output": output}, factor=1)


@pytest.mark.parametrize("namespace", [keras, tf_keras], ids=lambda namespace: namespace.__name__)
@pytest.mark.parametrize("use_scale", [False, True])
def test_an_attention_layer_is_one_head(namespace, use_scale):
    def attend(x):
        query, key, value = (namespace.layers.Dense(2, name=name)(x) for name in ("query", "key", "value"))
        attended = namespace.layers.Attention(use_scale=use_scale, name="attend")([query, value, key])
        return namespace.layers.Dense(3, name="output")(attended)

    scored = score_kernels(surround(namespace, attend))
    one_head = {name: Scored(*(a[:, np.newaxis] for a in scored[name])) for name in ("query", "key", "value")}
    output = Scored(*(a[np.newaxis] for a in scored["output"]))
    check_attention({**scored, **one_head, "output": output}, factor=1)


@pytest.mark.parametrize("namespace", [keras, tf_keras], ids=lambda namespace: namespace.__name__)
@pytest.mark.parametrize(("name", "options"), [("AdditiveAttention", {}), ("Attention", {"score_mode": "concat"})])
def test_scores_that_are_a_sum_end_queries_and_keys(namespace, name, options):
    dense = namespace.layers.Dense
    inputs = namespace.Input((POSITIONS, 2))
    query, key, value = (dense(2, name=name)(inputs) for name in ("query", "key", "value"))
    attend = getattr(namespace.layers, name)(name="attend", **options)
    outputs, scores = attend([query, value, key], return_attention_scores=True)
    model = namespace.Model(inputs, [dense(3, name="last")(outputs), scores])
    around = tf_lap.neighbors(model)
    end = f"{name} 'attend': its scores are a sum over channels"
    assert around["value"].following == ("last",)
    assert around["last"].previous == ("value",)
    for path in ("query", "key"):
        assert around[path].following == ()
        assert around[path].boundaries[-1] == end
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["query"].outgoing, [1, 1])


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
