"""Maps of energies: forward against their meaning, backward against forward, arrays against tensors."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.energy_maps import Chain, ChannelScale, Function, Gather, Identity, Sum, shrink

FACTORS = np.array([2.0, 0.5, 3.0, 1.0], np.float32)
SCALE = ChannelScale(lambda read: read(FACTORS))
CONSTANT = ChannelScale(lambda read: read(0.25))
PADDED = Gather(np.array([-1, 3, 0, 0, -1, 2]))
MEAN = Gather(np.array([[0, 2], [1, 3]]))
JOINED = Sum((Gather(np.array([0, 1, 2, 3, -1, -1])), Gather(np.array([-1, -1, -1, -1, 0, 1]))))

CASES = {
    "identity": (Identity(), [4], [4]),
    "gather with zeros": (PADDED, [4], [6]),
    "mean": (MEAN, [4], [2]),
    "scale": (SCALE, [4], [4]),
    "scale of channels that are all alike": (SCALE, [1], [4]),
    "one factor": (CONSTANT, [4], [4]),
    "sum": (Sum((Identity(), Identity())), [4, 4], [4]),
    "sum with channels that are all alike": (Sum((Identity(), Identity())), [4, 1], [4]),
    "joined": (JOINED, [4, 2], [6]),
    "chain": (MEAN.then(Gather(np.array([1, 0, 1]))), [4], [3]),
    "sum of a chain that stays narrow": (Sum((Identity(), Chain(CONSTANT, CONSTANT))), [4, 1], [4]),
    "function": (Function(lambda x, y: 2 * x + tf.reverse(y, [0])), [4, 4], [4]),
    "function with a narrow input": (Function(lambda x, y: x + 3 * y), [4, 1], [4]),
}


def draw_vectors(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random(length).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_back_is_the_transpose(name):
    """<A x, y> equals <x, A^T y>."""
    energy_map, lengths, (length,) = CASES[name]
    energies, (outgoing,) = draw_vectors(lengths), draw_vectors([length], seed=1)
    forward = energy_map.apply(*energies)
    assert forward.shape == (length,)
    readings = energy_map.transpose(outgoing, *energies)
    assert [reading.shape for reading in readings] == [energy.shape for energy in energies]
    both = sum(float(energy @ reading) for energy, reading in zip(energies, readings, strict=True))
    assert both == pytest.approx(float(forward @ outgoing), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_arrays_and_tensors_give_the_same(name):
    energy_map, lengths, (length,) = CASES[name]
    energies, (outgoing,) = draw_vectors(lengths), draw_vectors([length], seed=1)
    tensors = [tf.constant(energy) for energy in energies]
    forward, forward_tensor = energy_map.apply(*energies), energy_map.apply(*tensors)
    assert isinstance(forward, np.ndarray)
    assert tf.is_tensor(forward_tensor)
    np.testing.assert_allclose(forward, forward_tensor, rtol=1e-6)
    back = energy_map.transpose(outgoing, *energies)
    for array, tensor in zip(back, energy_map.transpose(tf.constant(outgoing), *tensors), strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        assert tf.is_tensor(tensor)
        np.testing.assert_allclose(array, tensor, rtol=1e-6)


def test_a_gather_is_what_the_moved_numbers_say():
    energy = np.arange(6, dtype=np.float32)
    swapped = Gather.of([2, 3], lambda numbers: numbers.T)
    np.testing.assert_array_equal(swapped.apply(energy), [0, 3, 1, 4, 2, 5])
    assert Gather.of([2, 3], lambda numbers: numbers.reshape(3, 2)) == Identity()
    np.testing.assert_array_equal(PADDED.apply(energy[:4]), [0, 3, 0, 0, 0, 2])
    np.testing.assert_array_equal(MEAN.apply(energy[:4]), [1, 2])


def test_a_frozen_map_keeps_its_numbers():
    variable = tf.Variable([1.0, 2.0])
    scaled = ChannelScale(lambda read: read(variable)).then(Gather(np.array([1, 0])))
    frozen = Sum((scaled, Identity())).freeze(compat.host_value)
    before = frozen.apply(np.ones(2, np.float32), np.ones(2, np.float32))
    variable.assign([5.0, 5.0])
    np.testing.assert_array_equal(frozen.apply(np.ones(2, np.float32), np.ones(2, np.float32)), before)


def test_what_is_read_of_channels_that_are_all_alike_adds_up():
    np.testing.assert_array_equal(shrink(np.array([1, 2, 3], np.float32), np.ones(1, np.float32)), [6])
    np.testing.assert_array_equal(shrink(tf.constant([1.0, 2.0]), tf.ones(1)), [3])


def test_a_function_of_one_tensor_twice_has_a_derivative_for_each():
    energy_map = Function(lambda x, y: x + 0.25 * y)
    for energy in (tf.constant([1.0, 2.0]), np.array([1.0, 2.0], np.float32)):
        outgoing = energy + 1
        first, second = energy_map.transpose(outgoing, energy, energy)
        np.testing.assert_allclose(first, outgoing)
        np.testing.assert_allclose(second, 0.25 * outgoing)


def test_a_factor_of_no_axes_stays_an_array():
    assert isinstance(ChannelScale(lambda read: read(0.5) * read(0.5)).apply(np.ones(3, np.float32)), np.ndarray)
