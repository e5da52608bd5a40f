"""Depthwise kernels by brute force: each weight acts on one channel, between a kernel before it and one behind."""

import keras
import numpy as np
import pytest
import tf_keras
from scored import check_operator, randomize, score_kernels

import tf_lap

BOTH = pytest.mark.parametrize("namespace", [keras, tf_keras], ids=lambda namespace: namespace.__name__)


def operate(before, filters, behind):
    """The operator with the positions that taps read, and the filters of a channel, side by side."""
    filters = filters.reshape(-1, *filters.shape[-2:])
    return [np.einsum("pc,tcm,cmq->ptmq", before, filters, behind.reshape(*filters.shape[1:], -1))]


def check_three(scored, filters, first="first", last="last"):
    """Checks the kernels of a depthwise convolution and its neighbours, all of one tap but the filters."""
    one, two, three = (scored[name].weights for name in (first, filters, last))
    one, three = one.reshape(one.shape[-2:]), three.reshape(three.shape[-2:])
    check_operator(scored[first], lambda kernel: operate(kernel.reshape(one.shape), two, three))
    check_operator(scored[filters], lambda kernel: operate(one, kernel, three))
    check_operator(scored[last], lambda kernel: operate(one, two, kernel.reshape(three.shape)))


@BOTH
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_zeroing_a_weight_of_a_filter_changes_the_operator_by_its_score(namespace, rank, multiplier):
    layers = namespace.layers
    inputs = namespace.Input((*(6,) * rank, 2))
    x = layers.Dense(3, name="first")(inputs)
    x = getattr(layers, f"DepthwiseConv{rank}D")(2, depth_multiplier=multiplier, name="filters")(x)
    check_three(score_kernels(randomize(namespace.Model(inputs, layers.Dense(2, name="last")(x)))), "filters")


@BOTH
@pytest.mark.parametrize("rank", [1, 2])
def test_the_filters_of_a_separable_convolution(namespace, rank):
    layers = namespace.layers
    inputs = namespace.Input((*(6,) * rank, 2))
    x = layers.Dense(3, name="first")(inputs)
    x = getattr(layers, f"SeparableConv{rank}D")(2, 2, depth_multiplier=2, name="separable")(x)
    scored = score_kernels(randomize(namespace.Model(inputs, x)))
    assert set(scored) == {"first", "separable", "separable/depthwise_kernel"}
    check_three(scored, "separable/depthwise_kernel", last="separable")


@BOTH
def test_filters_of_channels_that_come_first(namespace):
    layers, options = namespace.layers, {"data_format": "channels_first"}
    inputs = namespace.Input((2, 6, 6))
    x = layers.Conv2D(3, 1, name="first", **options)(inputs)
    x = layers.DepthwiseConv2D(2, depth_multiplier=2, name="filters", **options)(x)
    x = layers.Conv2D(2, 1, name="last", **options)(x)
    check_three(score_kernels(randomize(namespace.Model(inputs, x))), "filters")


@BOTH
def test_filters_that_read_the_input(namespace):
    """All channels of a network's input are alike; behind the filters they are not."""
    layers = namespace.layers
    inputs = namespace.Input((6, 3))
    x = layers.DepthwiseConv1D(2, depth_multiplier=2, name="filters")(inputs)
    scored = score_kernels(randomize(namespace.Model(inputs, layers.Dense(2, name="last")(x))))
    two, three = scored["filters"].weights, scored["last"].weights
    check_operator(scored["filters"], lambda kernel: operate(np.eye(3), kernel, three))
    check_operator(scored["last"], lambda kernel: operate(np.eye(3), two, kernel))


def test_filters_used_twice_add_their_squares_up():
    inputs = keras.Input((8, 2))
    filters = keras.layers.DepthwiseConv1D(2, name="filters")
    x = filters(filters(keras.layers.Dense(3, name="first")(inputs)))
    model = randomize(keras.Model(inputs, keras.layers.Dense(2, name="last")(x)))
    scored = score_kernels(model)
    put = np.square(scored["first"].weights).sum(axis=0)
    read = np.square(scored["last"].weights).sum(axis=1)
    taps = np.square(scored["filters"].weights).sum(axis=0)[:, 0]
    expected = np.abs(scored["filters"].weights) * np.sqrt(2 * put * taps * read)[:, np.newaxis]
    np.testing.assert_allclose(scored["filters"].scores, expected, rtol=1e-4)
    assert tf_lap.neighbors(model)["filters"].previous == ("first",)
    assert tf_lap.neighbors(model)["filters"].following == ("last",)


@BOTH
@pytest.mark.parametrize("is_mask", [False, True])
def test_a_kernel_that_nothing_reads_has_a_boundary_behind_it(namespace, is_mask):
    layers = namespace.layers
    inputs = namespace.Input((6, 6, 3))
    x = layers.Dense(4, name="first")(inputs)
    filters = layers.DepthwiseConv2D(1, name="filters")(x)
    y = layers.Dense(2, name="last")(x)
    if is_mask:
        model = namespace.Model(inputs, layers.Softmax(name="soft")(y, mask=filters[..., :2] > 0.0))
        path = "filters"
    else:  # another output of the model inside is read
        read, _ = namespace.Model(inputs, [y, filters], name="inside")(inputs)
        model, path = namespace.Model(inputs, read), "inside/filters"
    assert tf_lap.channel_energies(model)[path].outgoing.tolist() == [1] * 4
    reason = f"DepthwiseConv2D {path!r}: nothing reads what it puts out but as a mask, a bound or a shape"
    assert reason in tf_lap.neighbors(model)[path].boundaries
    assert tf_lap.prune(model, {".*": 0.5}).sparsity == 0.5
