"""Layouts by plain loops over the weights: which input and which output a weight belongs to, and what is summed."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lap.graph.layouts import Layout
from tf_lap.graph.scaled_weights import ScaledWeights

PLAIN = [
    Layout((3, 4)),
    Layout((3, 4), True),
    Layout((2, 3, 1, 5)),
    Layout((2, 3, 5), True),
    Layout((2, 3, 6), groups=3),
    Layout((2, 6, 3), True, groups=2),
]


@st.composite
def draw_layouts(draw):
    roles = draw(st.text("tigo", min_size=1, max_size=5))
    return Layout.of(draw(st.lists(st.integers(1, 3), min_size=len(roles), max_size=len(roles))), roles)


def find_channels(layout, index):
    """The numbers of the input and of the output of the weight at an index, by the definition of a layout."""
    if layout.roles:
        places = {role: [axis for axis, letter in enumerate(layout.roles) if letter == role] for role in "igo"}

        def count(axes):
            number = 0
            for axis in axes:
                number = number * layout.shape[axis] + index[axis]
            return number

        return count(places["g"] + places["i"]), count(places["g"] + places["o"])
    i, o = (index[-1], index[-2]) if layout.swapped else (index[-2], index[-1])
    inputs, outputs = (layout.shape[-1], layout.shape[-2]) if layout.swapped else layout.shape[-2:]
    return o // (outputs // layout.groups) * inputs + i, o


def count_channels(layout):
    channels = [find_channels(layout, index) for index in np.ndindex(layout.shape)]
    return max(i for i, _ in channels) + 1, max(o for _, o in channels) + 1


def check(layout):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(layout.shape).astype(np.float32)
    inputs, outputs = count_channels(layout)
    assert (layout.inputs, layout.outputs, layout.size) == (inputs, outputs, kernel.size)
    incoming, outgoing = (rng.random(size).astype(np.float32) for size in (inputs, outputs))
    read, put, arriving, leaving = np.zeros(inputs), np.zeros(outputs), np.zeros(outputs), np.zeros(inputs)
    products = np.zeros(layout.shape)
    for index in np.ndindex(layout.shape):
        i, o = find_channels(layout, index)
        square = float(kernel[index]) ** 2
        read[i] += square
        put[o] += square
        arriving[o] += square * incoming[i]
        leaving[i] += square * outgoing[o]
        products[index] = incoming[i] * outgoing[o]
    tensor, squares = tf.constant(kernel), layout.squares(tf.constant(kernel))
    expected = [read, put, read, put, arriving, leaving]
    actual = [*layout.energies(tensor), *ScaledWeights.of(layout, kernel, 1.0, None).energies(layout.plain)]
    actual += [layout.propagate(squares, incoming), layout.propagate_back(squares, outgoing)]
    for array, numbers in zip(actual, expected, strict=True):
        assert array.shape == numbers.shape
        np.testing.assert_allclose(array, numbers, rtol=1e-5, atol=1e-6)
    outer = layout.outer(incoming, outgoing)
    np.testing.assert_allclose(np.broadcast_to(outer, layout.shape), products, rtol=1e-6)
    check_plain(layout, kernel)


def check_plain(layout, kernel):
    """A plain kernel has the weights of each input and output where a plain layout has them, and comes back."""
    plain = layout.plain
    assert not plain.roles
    moved = layout.to_plain(kernel)
    assert moved.shape == plain.shape
    assert sorted(moved.reshape(-1)) == sorted(kernel.reshape(-1))
    by_weight = {float(kernel[index]): find_channels(layout, index) for index in np.ndindex(layout.shape)}
    assert len(by_weight) == kernel.size
    for index in np.ndindex(plain.shape):
        assert find_channels(plain, index) == by_weight[float(moved[index])]
    np.testing.assert_array_equal(layout.from_plain(moved), kernel)
    in_tensorflow = layout.to_plain(tf.constant(kernel))
    np.testing.assert_array_equal(in_tensorflow, moved)
    np.testing.assert_array_equal(layout.from_plain(in_tensorflow), kernel)
    if layout.is_in_order:
        np.testing.assert_array_equal(kernel.reshape(plain.shape), moved)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(draw_layouts())
def test_layouts_with_roles_are_what_loops_say(layout):
    check(layout)


@pytest.mark.parametrize(
    "roles",
    ["ooi", "oii", "tooi", "otii", "iioo", "ioi", "gio", "goi", "oig", "itgo", "ttgo", "goig", "gg", "ii", "oo"],
)
def test_layouts_of_every_kind_are_what_loops_say(roles):
    check(Layout.of([2 + place % 2 for place in range(len(roles))], roles))


@pytest.mark.parametrize("layout", PLAIN, ids=str)
def test_plain_layouts_are_what_loops_say(layout):
    assert layout.plain == layout
    check(layout)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(draw_layouts(), st.sampled_from([4, 1 << 17]))
def test_scaled_weights_have_their_gain_at_the_same_weights(layout, piece):
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal(layout.shape).astype(np.float32)
    gain = rng.random([size if rng.random() < 0.5 else 1 for size in layout.shape]).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lap.graph.scaled_weights._PIECE", piece)
        scaled = ScaledWeights.of(layout, kernel, 2.0, gain)
        pieces = np.concatenate([piece for _, piece in scaled.pieces()])
        energies = scaled.energies(layout.plain)
    np.testing.assert_array_equal(layout.from_plain(pieces.reshape(layout.plain.shape)), kernel * 2 * gain)
    for array, expected in zip(energies, layout.energies(tf.constant(kernel * 2 * gain)), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("roles", "in_order"),
    [
        *[(roles, True) for roles in ("io", "oi", "tio", "iioo", "ooi", "tgo", "igo")],
        *[(roles, False) for roles in ("ito", "ioi", "gio", "goi", "iot")],
    ],
)
def test_weights_move_only_where_axes_are_out_of_order(roles, in_order):
    assert Layout.of([2] * len(roles), roles).is_in_order is in_order


def test_taps_inputs_and_outputs_are_a_plain_layout():
    assert Layout.of((3, 3, 2, 4), "ttio") == Layout((3, 3, 2, 4))
    assert Layout.of((2, 4), "oi") == Layout((2, 4), True)
    assert math.prod(Layout.of((3, 2, 4), "iot").plain.shape) == 24
