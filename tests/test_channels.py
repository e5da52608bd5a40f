import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lap.channels import Boundary, Signal, moved, reshaped, scaled

DIMENSIONS = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)


def shapes_of_size(size, axes):
    if axes == 1:
        return [(size,)]
    return [(d, *rest) for d in range(1, size + 1) if size % d == 0 for rest in shapes_of_size(size // d, axes - 1)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_reshape_is_followed_exactly_where_one_axis_decides_the_channel(data):
    """Against the array of channel numbers itself, reshaped by NumPy."""
    shape = (1, *data.draw(DIMENSIONS))
    axis = data.draw(st.integers(1, len(shape) - 1))
    target = (1, *data.draw(st.sampled_from(shapes_of_size(math.prod(shape), data.draw(st.integers(1, 3))))))
    numbers = np.moveaxis(np.broadcast_to(np.arange(shape[axis]), (*np.delete(shape, axis), shape[axis])), -1, axis)
    there = numbers.reshape(target)
    energy = np.random.default_rng(0).random(shape[axis]).astype(np.float32)
    try:
        flow = reshaped(Signal(shape, axis), target)
    except Boundary:
        # Refused only where every axis holds several channels at one of its places, or fewer than all of them.
        for candidate in range(1, len(target)):
            lanes = np.moveaxis(there, candidate, -1).reshape(-1, target[candidate])
            counts = np.bincount(lanes[0], minlength=shape[axis])
            assert np.any(lanes != lanes[0]) or counts.min() != counts.max()
        return
    if flow.axis is None:
        assert shape[axis] == 1
        return
    lanes = np.moveaxis(there, flow.axis, -1).reshape(-1, target[flow.axis])
    np.testing.assert_array_equal(lanes, np.broadcast_to(lanes[0], lanes.shape))
    np.testing.assert_array_equal(flow.transform(energy), energy[lanes[0]])


def test_unknown_sizes_before_the_channels_do_not_matter():
    assert reshaped(Signal((None, None, 7, 4), 3), (None, None, 4)).axis == 2
    with pytest.raises(Boundary, match=r"reshapes \(None, 4, None\) with channels on axis 1 to \(None, None\)"):
        reshaped(Signal((None, 4, None), 1), (None, None))


def test_one_channel_is_like_any_other():
    assert Signal((None, 8, 8, 1), 3).axis is None
    assert reshaped(Signal((None, 8, 8, 1), 3), (None, 64)).axis is None


def test_a_transposition_takes_the_channels_along():
    assert moved(Signal((None, 2, 3, 4), 3), (0, 3, 1, 2)).axis == 1
    assert moved(Signal((None, 2, 3, 4), None), (0, 3, 1, 2)).axis is None


def test_a_scale_along_positions_counts_by_its_mean_square():
    squares = np.array([[1.0], [3.0]], np.float32)
    flow = scaled(Signal((None, 2, 5), 2), (2, 1), lambda: squares)
    np.testing.assert_allclose(flow.transform(np.ones(5, np.float32)), 2 * np.ones(5))
    with pytest.raises(Boundary, match="array of 4 axes, more than its own 3"):
        scaled(Signal((None, 2, 5), 2), (1, 1, 2, 5), lambda: squares)
