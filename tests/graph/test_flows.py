import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lap.graph.channels import Boundary, Signal
from tf_lap.graph.flows import reduce_to_axis, reshape_signal, scale_signal, sum_signals, transpose_signal

DIMENSIONS = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)


def list_shapes(size, axes):
    if axes == 1:
        return [(size,)]
    divisors = [divisor for divisor in range(1, size + 1) if size % divisor == 0]
    return [(divisor, *shape) for divisor in divisors for shape in list_shapes(size // divisor, axes - 1)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_reshape_is_followed_exactly_where_axes_are_made_of_common_factors(data):
    """Against the array of channel numbers itself, reshaped by NumPy."""
    shape = (1, *data.draw(DIMENSIONS))
    axes = tuple(sorted(data.draw(st.sets(st.integers(1, len(shape) - 1), min_size=1))))
    target = (1, *data.draw(st.sampled_from(list_shapes(math.prod(shape), data.draw(st.integers(1, 4))))))
    sizes = [shape[a] if a in axes else 1 for a in range(len(shape))]
    numbers = np.broadcast_to(np.arange(math.prod(sizes)).reshape(sizes), shape)
    moved = numbers.reshape(target)
    energy = np.random.default_rng(0).random(numbers.max() + 1).astype(np.float32)
    try:
        flow = reshape_signal(Signal(shape, axes), target)
    except Boundary:
        # Refused only where the channel is no sum of what each axis adds to it.
        along = [moved[tuple(slice(None) if a == b else 0 for b in range(len(target)))] for a in range(len(target))]
        assert np.any(moved != sum(np.ix_(*along)))
        return
    spans = [target[a] if a in flow.axes else 1 for a in range(len(target))]
    assert set(flow.axes) <= {a for a in range(1, len(target)) if target[a] > 1}
    moved_energy = np.reshape(flow.energy_map.apply(energy), spans) if flow.axes else energy
    np.testing.assert_array_equal(np.broadcast_to(moved_energy, target), energy[moved])


def test_unknown_sizes_before_the_channels_do_not_matter():
    assert reshape_signal(Signal((None, None, 7, 4), (3,)), (None, None, 4)).axes == (2,)
    assert reshape_signal(Signal((None, 16, 4), (2,)), (None, 4)).axes == (1,)
    with pytest.raises(Boundary, match=r"reshapes \(None, 4, None\) with channels on axis 1 to \(None, None\)"):
        reshape_signal(Signal((None, 4, None), (1,)), (None, None))


def test_one_channel_is_like_any_other():
    assert reshape_signal(Signal((None, 8, 8, 1), (3,)), (None, 64)).axes == ()


def test_a_transposition_takes_the_channels_along():
    assert transpose_signal(Signal((None, 2, 3, 4), (3,)), (0, 3, 1, 2)).axes == (1,)
    assert transpose_signal(Signal((None, 2, 3, 4)), (0, 3, 1, 2)).axes == ()
    flow = transpose_signal(Signal((None, 2, 3, 4), (1, 3)), (0, 3, 2, 1))
    energy = np.arange(8, dtype=np.float32)
    np.testing.assert_array_equal(flow.energy_map.apply(energy), energy.reshape(2, 4).T.reshape(-1))


def test_a_scale_along_positions_counts_by_its_mean_square():
    squares = np.array([[1.0], [3.0]], np.float32)
    flow = scale_signal(Signal((None, 2, 5), (2,)), (2, 1), lambda read: squares)
    np.testing.assert_allclose(flow.energy_map.apply(np.ones(5, np.float32)), 2 * np.ones(5))
    with pytest.raises(Boundary, match="array of 4 axes, more than its own 3"):
        scale_signal(Signal((None, 2, 5), (2,)), (1, 1, 2, 5), lambda read: squares)


def test_places_on_other_axes_than_the_one_that_is_read_count_by_their_mean():
    signal = Signal((None, 2, 3), (1, 2))
    energy = np.arange(6, dtype=np.float32)
    np.testing.assert_allclose(reduce_to_axis(signal, 2, "reads").energy_map.apply(energy), [1.5, 2.5, 3.5])
    single = Signal((None, 2, 3, 1), (1, 2))
    np.testing.assert_allclose(reduce_to_axis(single, 3, "reads").energy_map.apply(energy), [2.5])
    with pytest.raises(Boundary, match=r"reads axis 3, but its input carries channels on axes \[1, 2\]"):
        reduce_to_axis(Signal((None, 2, 3, 4), (1, 2)), 3, "reads")


def test_a_sum_spans_the_axes_of_its_widest_input():
    flow = sum_signals([Signal((None, 2, 3), (1, 2)), Signal((None, 2, 3), (2,)), Signal((None, 3))], 3)
    energies = np.arange(6, dtype=np.float32), np.array([10, 20, 30], np.float32), np.array([100], np.float32)
    np.testing.assert_allclose(flow.energy_map.apply(*energies), [110, 121, 132, 113, 124, 135])
    with pytest.raises(Boundary, match=r"channels on different axes \[1, 2\]"):
        sum_signals([Signal((None, 2, 3), (1,)), Signal((None, 2, 3), (2,))], 3)
