"""What XNNPACK's sparse path takes, and what it does not, rule by rule."""

import dataclasses
import re

import numpy as np
import pytest

from tf_lap.devices.clusters import find_clusters
from tf_lap.devices.rules import Role, judge
from tf_lap.tflite.operations import DeviceGraph, Operation

ONES, TWOS = (1, 1, 1, 1), (2, 2, 2, 2)


def operation(kind, *, shape=(1, 8, 8, 8), inputs=(0,), outputs=(1,), weights=None, second=None, **settings):
    """An operation that reads tensors, or a tensor and weights."""
    shapes = [shape]
    constants = ()
    if weights is not None:
        shapes.append(weights.shape)
        constants = (1,)
    elif second is not None:
        shapes.append(second)
    settings = {"label": kind.lower(), "constants": constants, "is_float": True, **settings}
    return Operation(kind, inputs=inputs, outputs=outputs, shapes=tuple(shapes), weights=weights, **settings)


def convolution(taps=1, reads=8, **settings):
    weights = np.zeros((8, taps, taps, reads), np.float32)
    shape = settings.pop("shape", (1, 8, 8, settings.pop("channels", reads)))
    return operation("CONV_2D", shape=shape, weights=weights, kernel=(taps, taps), **settings)


def depthwise(taps=3, **settings):
    weights = np.zeros((1, taps, taps, 8), np.float32)
    padding = settings.pop("padding", (taps // 2,) * 4)
    return operation("DEPTHWISE_CONV_2D", weights=weights, kernel=(taps, taps), padding=padding, **settings)


@pytest.mark.parametrize(
    ("taken", "role"),
    [
        (convolution(), Role.INSIDE),
        (convolution(3, 3, strides=(2, 2), padding=ONES), Role.BEGINS),
        (depthwise(), Role.INSIDE),
        (depthwise(strides=(2, 2)), Role.INSIDE),
        (depthwise(5), Role.INSIDE),
        (depthwise(5, strides=(2, 2)), Role.INSIDE),
        (operation("ADD", second=(1, 8, 8, 8)), Role.INSIDE),
        (operation("MUL", second=(1, 1, 1, 8)), Role.INSIDE),
        (operation("MUL", shape=(1, 1, 1, 8), second=(1, 1, 1, 1), constants=(1,)), Role.INSIDE),
        (operation("HARD_SWISH"), Role.INSIDE),
        (operation("RESIZE_BILINEAR"), Role.INSIDE),
        (operation("FULLY_CONNECTED", keeps_rank=True), Role.INSIDE),
        (operation("MEAN", axes=(1, 2)), Role.INSIDE | Role.ENDS),
        (operation("SUM", axes=(1, 2)), Role.INSIDE | Role.ENDS),
        (operation("DEPTH_TO_SPACE"), Role.ENDS),
    ],
    ids=lambda value: value.label if isinstance(value, Operation) else "",
)
def test_what_is_taken(taken, role):
    assert judge(taken) == (role, "", "")


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (convolution(strides=(2, 2)), "1x1 convolution of stride 2x2"),
        (convolution(padding=ONES), "a 1x1 convolution that pads"),
        (convolution(channels=16), "2 groups"),
        (convolution(3, 3, padding=ONES), "a 3x3 convolution of stride 1x1"),
        (convolution(3, 4, strides=(2, 2), padding=ONES), "reads 4 channels"),
        (convolution(3, 3, strides=(2, 2), padding=(0, 1, 0, 1)), r"pads \(0, 1\) rows"),
        (convolution(3, 3, strides=(2, 2), padding=None), "pads 'same' at stride 2"),
        (convolution(3, 3, strides=(2, 2), padding=None, shape=(1, 9, 8, 3)), "reads 9x8"),
        (convolution(dilations=(2, 2)), "dilated by 2x2"),
        (depthwise(dilations=(2, 2)), "dilated by 2x2"),
        (depthwise(multiplier=2), "depth_multiplier=2"),
        (depthwise(strides=(3, 3)), "stride 3x3"),
        (depthwise(7), "depthwise 7x7"),
        (depthwise(padding=TWOS), r"pads \(2, 2\) rows"),
        (operation("FULLY_CONNECTED", shape=(1, 8)), "Dense layer of 2 axes"),
        (operation("MEAN", shape=(1, 8, 8), axes=(1, 2)), "reads 3 axes"),
        (operation("TANH", shape=(1, 8)), "reads 2 axes"),
        (operation("ADD", second=(), constants=(1,)), "sum with a constant of 0 axes"),
        (operation("MUL", second=(1, 8)), "product of tensors of 4 and 2 axes"),
        (operation("MUL", second=(1, 1, 1, 8), constants=(1,)), "a product with a constant"),
        (operation("RESIZE_BILINEAR", shape=(1, 1, 1, 8)), "resizes 1x1"),
        (operation("CONCATENATION"), "is CONCATENATION"),
        (operation("RELU", is_float=False), "whole numbers"),
    ],
    ids=lambda value: value.label if isinstance(value, Operation) else value,
)
def test_what_is_not_taken_has_a_reason_and_a_remedy(refused, reason):
    judgement = judge(refused)
    assert not judgement.role
    assert re.search(reason, judgement.obstacle)
    assert judgement.remedy


def chain(*between, outputs=(99,)):
    """A stem, operations that are given the numbers of what they read and put out, and a mean at the end."""
    operations = [convolution(3, 3, strides=(2, 2), padding=ONES, inputs=(0,), outputs=(1,))]
    number = 1
    for make in between:
        operations.append(make((number,), (number + 1,)))
        number += 1
    operations.append(operation("MEAN", axes=(1, 2), inputs=(number,), outputs=(99,)))
    return DeviceGraph(tuple(operations), frozenset(outputs))


def pointwise(inputs, outputs):
    return convolution(inputs=inputs, outputs=outputs)


def test_a_chain_is_one_cluster_and_runs_sparse():
    found = find_clusters(chain(pointwise, pointwise))
    (cluster,) = found.clusters
    assert cluster.operations == (0, 1, 2, 3)
    assert found.sparse == {1, 2}
    assert found.failing == ()
    assert cluster.is_sparse_enough


def test_an_output_on_the_way_spoils_it():
    assert find_clusters(chain(pointwise, pointwise, outputs=(2, 99))).clusters == ()


def test_a_reader_of_another_kind_spoils_it():
    graph = chain(pointwise, pointwise)
    other = operation("SOFTMAX", inputs=(2,), outputs=(50,))
    assert find_clusters(DeviceGraph((*graph.operations, other), frozenset({50, 99}))).clusters == ()


def test_two_thirds_of_zeros_are_too_few():
    full = np.ones((8, 1, 1, 9), np.float32)
    full.reshape(-1)[:48] = 0

    def make(inputs, outputs):
        return operation("CONV_2D", shape=(1, 8, 8, 9), weights=full, kernel=(1, 1), inputs=inputs, outputs=outputs)

    (cluster,) = find_clusters(chain(make)).clusters
    assert (cluster.zeros, cluster.weights) == (48, 72)
    assert not cluster.is_sparse_enough
    full.reshape(-1)[48] = 0
    assert find_clusters(chain(make)).clusters[0].is_sparse_enough


def behind_mean(*last, axes=(1, 2), keeps_rank=True):
    """A stem, a 1x1 convolution, a mean, and operations behind it: each reads what the one before puts out."""
    graph = chain(pointwise)
    mean = dataclasses.replace(graph.operations[-1], axes=axes, keeps_rank=keeps_rank)
    behind = [dataclasses.replace(one, inputs=(99 + i,), outputs=(100 + i,)) for i, one in enumerate(last)]
    return DeviceGraph((*graph.operations[:-1], mean, *behind), frozenset({99 + len(last)}))


POSITION = (1, 1, 1, 8)
LATE = convolution(shape=POSITION)
SIGMOID = operation("LOGISTIC", shape=POSITION)
FLAT = operation("RESHAPE", shape=POSITION)
DENSE = operation("FULLY_CONNECTED", shape=POSITION, weights=np.zeros((4, 8), np.float32))


@pytest.mark.parametrize(
    ("graph", "failing"),
    [
        (behind_mean(LATE), (3,)),
        (behind_mean(LATE, LATE), (4,)),
        (behind_mean(LATE, SIGMOID), ()),
        (behind_mean(SIGMOID), (3,)),
        (behind_mean(SIGMOID, FLAT), (3,)),
        (behind_mean(SIGMOID, LATE, SIGMOID), ()),
        (behind_mean(dataclasses.replace(DENSE, keeps_rank=True)), (3,)),
        (behind_mean(operation("SOFTMAX", shape=POSITION)), (3,)),
        (behind_mean(operation("MEAN", shape=POSITION, axes=(1, 2))), (3,)),
        (behind_mean(), ()),
        (behind_mean(FLAT), ()),
        (behind_mean(DENSE), ()),
        (behind_mean(keeps_rank=False), ()),
        (behind_mean(axes=(1,), keeps_rank=False), (2,)),
        (behind_mean(axes=(3,), keeps_rank=False), ()),
        (behind_mean(axes=(1, 2, 3), keeps_rank=False), ()),
    ],
)
def test_what_asks_for_the_shape_of_a_mean_that_keeps_dimensions_fails(graph, failing):
    assert find_clusters(graph).failing == failing


def test_a_mean_that_scales_needs_a_convolution_between():
    graph = chain(pointwise, pointwise)
    stem, first, last, mean = graph.operations
    scale = dataclasses.replace(mean, outputs=(50,), inputs=(2,), keeps_rank=True)
    product = operation("MUL", second=POSITION, inputs=(2, 51), outputs=(52,))
    last = dataclasses.replace(last, inputs=(52,))
    for between, failing in ((SIGMOID, (4,)), (LATE, ())):
        between = dataclasses.replace(between, inputs=(50,), outputs=(51,))
        operations = (stem, first, scale, between, product, last, mean)
        assert find_clusters(DeviceGraph(operations, graph.outputs)).failing == failing
