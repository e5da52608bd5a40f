"""Which channels weights connect, against a loop; and what is cut out of variables and of what optimizers remember."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tf_lap.graph.layouts import Layout
from tf_lap.shrinking.weights import cut, cut_slot, find_connections

LAYOUTS = [
    Layout((3, 2)),
    Layout((2, 3), swapped=True),
    Layout((2, 2, 3, 4)),
    Layout((2, 3, 6), groups=3),
    Layout.of((3, 2, 4), "ioo"),
    Layout.of((3, 2, 4), "iio"),
    Layout.of((2, 4, 2), "tgo"),
    Layout.of((4, 3, 2), "gio"),
]


def sides(layout):
    """For each weight its input and output channel, each weight of an array of zeros set by itself."""
    for place in itertools.product(*map(range, layout.shape)):
        kernel = np.zeros(layout.shape, np.float32)
        kernel[place] = 1.0
        incoming, outgoing = layout.energies(tf.constant(kernel))
        yield place, int(np.flatnonzero(incoming)[0]), int(np.flatnonzero(outgoing)[0])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_connections_and_weights_between_channels(layout):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(layout.shape).astype("float32") * (rng.random(layout.shape) < 0.4)
    inputs, outputs = rng.random(layout.inputs) < 0.6, rng.random(layout.outputs) < 0.6
    expected = np.zeros((layout.inputs, layout.outputs), bool)
    left = np.broadcast_to(layout.find_between(inputs, outputs), layout.shape)
    for place, source, target in sides(layout):
        expected[source, target] |= kernel[place] != 0
        assert left[place] == (inputs[source] and outputs[target])
    found = find_connections(SimpleNamespace(layout=layout, variable=tf.Variable(kernel)))
    np.testing.assert_array_equal(found, expected)


def mask(*places):
    return np.array(places, bool)


def test_cutting():
    array = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(cut(array, [mask(0, 1), mask(1, 0, 1)]), [[3, 5]])


def test_slots_have_all_axes_of_a_variable_or_some():
    axes = [mask(0, 1), mask(1, 0, 1)]
    np.testing.assert_array_equal(cut_slot(np.arange(6).reshape(2, 3), axes, (1, 2)), [[3, 5]])
    np.testing.assert_array_equal(cut_slot(np.arange(3), axes, (2,)), [0, 2])
    np.testing.assert_array_equal(cut_slot(np.arange(2), axes, (1,)), [1])
    assert cut_slot(np.float32(3.0), axes, ()) == 3
    np.testing.assert_array_equal(cut_slot(np.arange(7), axes, (7,)), np.arange(7))


def test_a_slot_that_may_be_either_axis_is_left():
    axes = [mask(0, 1, 1), mask(1, 0, 1)]
    assert cut_slot(np.arange(3), axes, (2,)) is None
    np.testing.assert_array_equal(cut_slot(np.arange(3), [axes[0], axes[0]], (2,)), [1, 2])
    assert cut_slot(np.arange(5), axes, (4,)) is None
