"""The traced update: what it is made of, where it can run, and that it does what the plain one does."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

import tf_lap
from tf_lap.pruning.traced_update import TracedUpdater

layers = keras.layers

# Operations that are taken apart or run by the runtime itself, on any device.
BY_THE_RUNTIME = {
    "If",
    "NoOp",
    "PartitionedCall",
    "Placeholder",
    "ReadVariableOp",
    "StatefulPartitionedCall",
    "StatelessIf",
    "_Arg",
}


SETTINGS = {"axis", "begin", "dims", "end", "multiples", "paddings", "perm", "reduction_indices", "shape", "size"}
SETTINGS |= {"split_dim", "start", "limit", "delta", "strides", "dimension", "num_segments", "resource", "k"}

# Computed from shapes, and from the counts that the host gives: these are on the host already.
OF_SHAPES = {
    "BroadcastGradientArgs int32",
    "Const",
    "Greater int32",
    "Size int64",
    "StridedSlice int32",
}


def network(dtype=None):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(24, 3, name="conv", dtype=dtype),
            layers.BatchNormalization(dtype=dtype),
            layers.Conv2D(32, 3, groups=2, name="grouped", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(50, name="wide", dtype=dtype),
            layers.Dense(5, name="last", dtype=dtype),
        ]
    )
    rng = np.random.default_rng(0)
    for kernel in model.trainable_variables:
        kernel.assign(rng.standard_normal(kernel.shape))
    return model


def traced(model, **choices):
    """The concrete function of an update, and the pruner."""
    pruner = tf_lap.Pruner(model, **choices)
    keep = pruner._targets.count_kept(pruner._targets.fractions(0.5))
    updater = TracedUpdater(pruner._engine.updater)
    return updater.traced_update.get_concrete_function(tf.constant(keep, tf.int32), {}), pruner


def nodes(function):
    """The nodes of a function's graph and of the functions in it."""
    graph = function.graph.as_graph_def()
    return [node for body in (graph.node, *(each.node_def for each in graph.library.function)) for node in body]


def gpu_kernels(node):
    """The kernels registered for GPUs that take a node's types."""
    found = kernels.get_registered_kernels_for_op(node.op).kernel
    return [
        kernel
        for kernel in found
        if kernel.device_type in ("GPU", "DEFAULT")
        and all(node.attr[c.name].type in c.allowed_values.list.type for c in kernel.constraint if c.name in node.attr)
    ]


CHOICES = [
    {},
    {"allocation": "uniform"},
    {"allocation": "global"},
    {"pattern": "2:4"},
    {"pattern": "block:1x4"},
    {"score": "magnitude"},
    {"score": tf_lap.scores.Lookahead(distance=2)},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "dtype"), [*((each, "float32") for each in CHOICES), ({}, "bfloat16"), ({}, "float16")], ids=str
)
def test_every_operation_of_the_traced_update_has_a_gpu_kernel(choices, dtype):
    if not kernels.get_registered_kernels_for_op("DenseBincount").kernel or not tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow was built without GPU kernels")
    function, _ = traced(network(dtype), **choices)
    run = [node for node in nodes(function) if node.op not in BY_THE_RUNTIME]
    assert not {_described(node) for node in run if not gpu_kernels(node)}
    # Arguments that a GPU takes from the host are shapes, axes and the like: no weights, scores or masks among them.
    taken = {_described(node) for node in run if not any(set(k.host_memory_arg) <= SETTINGS for k in gpu_kernels(node))}
    assert not taken - OF_SHAPES


def _described(node):
    types = {name: tf.as_dtype(a.type).name for name, a in node.attr.items() if a.type}
    return f"{node.op} {types.get('T', '')}".strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices", [{}, {"allocation": "uniform"}, {"allocation": "global", "pattern": "block:1x4"}], ids=str
)
def test_it_compiles_whole_under_xla_and_chooses_the_same(choices):
    plain, whole = network(), network()
    _, pruner = traced(whole, **choices)
    compiled = tf.function(functools.partial(pruner._engine.updater.update), jit_compile=True, autograph=False)
    expected = tf_lap.Pruner(plain, **choices)
    for sparsity in (0.3, 0.5):
        keep = tf.constant(pruner._targets.count_kept(pruner._targets.fractions(sparsity)), tf.int32)
        compiled(keep, {})
        expected.update(sparsity)
        for path, mask in expected.masks.items():
            np.testing.assert_array_equal(pruner.masks[path], mask)
        for ours, theirs in zip(whole.weights, plain.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert "HloModule" in compiled.experimental_get_compiler_ir(keep, {})(stage="hlo")


@pytest.mark.slow
@pytest.mark.parametrize("choices", [*CHOICES, {"score": "random"}], ids=str)
def test_traced_it_chooses_the_same_and_is_traced_once(choices):
    plain, model = network(), network()
    one, other = tf_lap.Pruner(plain, **choices), tf_lap.Pruner(model, **choices)
    other._engine.runner = TracedUpdater(other._engine.updater)
    for sparsity in (0.1, 0.3, 0.5):
        one.update(sparsity)
        other.update(sparsity)
        for path, mask in one.masks.items():
            np.testing.assert_array_equal(other.masks[path], mask)
    assert other._engine.runner.traced_update.experimental_get_tracing_count() == 1


class Thinned(tf_lap.patterns.Unstructured):
    def expand(self, kept, live, layout):
        number = tf.reshape(tf.range(layout.size), layout.shape)
        return kept & tf.not_equal(number, 0)


def test_weights_are_counted_as_a_pattern_leaves_them():
    pruner = tf_lap.Pruner(network(), pattern=Thinned())
    pruner.update(0.0)
    assert [layer.kept for layer in pruner.report().layers] == [layer.weights - 1 for layer in pruner.report().layers]


class Borrowed(tf_lap.scores.Magnitude):
    def score(self, kernel, weights, incoming, outgoing):
        scores = tf.numpy_function(np.abs, [weights], tf.float32)
        return tf.reshape(scores, kernel.layout.shape)


def test_a_score_of_ones_own_may_run_on_the_host_where_updates_are_traced():
    ours, theirs = network(), network()
    one, other = tf_lap.Pruner(ours, score=Borrowed()), tf_lap.Pruner(theirs, score="magnitude")
    one._engine.runner = TracedUpdater(one._engine.updater)
    one.update(0.5)
    other.update(0.5)
    for path, mask in other.masks.items():
        np.testing.assert_array_equal(one.masks[path], mask)


def test_where_something_is_not_finite_the_traced_update_changes_nothing():
    model = network()
    pruner = tf_lap.Pruner(model)
    pruner._engine.runner = TracedUpdater(pruner._engine.updater)
    pruner.update(0.2)
    kernel = model.get_layer("wide").kernel
    kernel.assign(spoiled(kernel))
    before = model.get_weights(), {path: mask.numpy() for path, mask in pruner.masks.items()}
    with pytest.raises(ValueError, match="wide"):
        pruner.update(0.5)
    for ours, theirs in zip(model.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for path, mask in pruner.masks.items():
        np.testing.assert_array_equal(mask, before[1][path])


def spoiled(kernel):
    array = np.array(kernel)
    array[0, 0] = np.nan
    return array
