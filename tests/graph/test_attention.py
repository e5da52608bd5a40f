"""Attention by brute force: value to output head by head, queries and keys through their bilinear form."""

import keras
import numpy as np
import pytest
import tf_keras
from scored import Scored, check_operator, randomize, score_kernels

import tf_lap

layers, ops = keras.layers, keras.ops

# The attention of each head is fixed.
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
    returned = attend([query, value, key], return_attention_scores=True)
    # Keras 3.7 puts out one symbolic tensor all the same.
    outputs, *scores = returned if isinstance(returned, (tuple, list)) else [returned]
    model = namespace.Model(inputs, [dense(3, name="last")(outputs), *scores])
    around = tf_lap.neighbors(model)
    end = f"{name} 'attend': its scores are a sum over channels"
    assert around["value"].following == ("last",)
    assert around["last"].previous == ("value",)
    for path in ("query", "key"):
        assert around[path].following == ()
        assert around[path].boundaries[-1] == end
    # A factor for each channel reads it.
    scale = np.asarray(attend.scale) if name == "AdditiveAttention" else np.ones(2, np.float32)
    np.testing.assert_allclose(tf_lap.channel_energies(model)["query"].outgoing, scale**2, rtol=1e-6)


def test_queries_of_a_layer_may_be_a_constant():
    class Pool(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.attend = layers.Attention(name="attend")

        def call(self, x):
            return self.attend([ops.ones((1, 1, 4)), x])

    model = keras.Sequential(
        [keras.Input((POSITIONS, 3)), layers.Dense(4, name="first"), Pool(name="pool"), layers.Dense(2, name="last")]
    )
    first = tf_lap.neighbors(model)["first"]
    assert first.following == ("last",)
    assert first.boundaries[-1] == "Attention 'pool/attend': its scores are a sum over channels"
