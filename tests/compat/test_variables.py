"""Variables' values in the host's memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lap import compat


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.bool_, tf.bfloat16.as_numpy_dtype])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (3, 3, 16, 7)])
def test_memory_is_aligned_and_of_the_shape_and_dtype(shape, dtype):
    array = compat.host_memory(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.ctypes.data % 64 == 0
    assert array.flags.writeable
    assert array.flags.c_contiguous


def write(variable, array):
    variables = compat.HostVariables()
    variables.give((variable, array))
    variables.flush()


def test_what_is_given_becomes_the_variables_values_and_what_was_read_before_stays():
    variable = keras.Variable(np.zeros((4, 3), np.float32))
    before = compat.host_value(variable)
    memory = compat.host_memory((4, 3), np.float32)
    memory[:] = np.arange(12).reshape(4, 3)
    expected = memory.copy()
    write(variable, memory)
    del memory
    np.testing.assert_array_equal(variable, expected)
    np.testing.assert_array_equal(before, np.zeros((4, 3)))
    read = compat.host_value(variable)
    variable.assign_add(tf.ones((4, 3)))
    np.testing.assert_array_equal(variable, expected + 1)
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("jit", [False, True])
def test_an_optimizer_trains_a_variable_that_was_given_its_values(jit):
    rng = np.random.default_rng(0)
    kernels = [rng.standard_normal((8, 4)).astype(np.float32)]
    models = [keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, use_bias=False)]) for _ in range(2)]
    memory = compat.host_memory((8, 4), np.float32)
    memory[:] = kernels[0]
    write(models[0].layers[0].kernel, memory)
    models[1].layers[0].kernel.assign(kernels[0])
    x, y = rng.standard_normal((16, 8)), rng.standard_normal((16, 4))
    for model in models:
        model.compile("adam", "mse", jit_compile=jit)
        model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_array_equal(models[0].layers[0].kernel, models[1].layers[0].kernel)
    assert np.any(np.asarray(models[0].layers[0].kernel) != kernels[0])


def test_what_is_read_once_is_read_again_afterwards():
    variable, variables = keras.Variable(np.zeros(3, np.float32)), compat.HostVariables()
    with variables.reading_once([variable]):
        first = variables.array(variable)
        assert variables.array(variable) is first
        assert variables.take(variable) is first
        variables.give((variable, np.ones(3, np.float32)))
        np.testing.assert_array_equal(variables.array(variable), np.ones(3))
    np.testing.assert_array_equal(variables.array(variable), np.ones(3))
    variable.assign(np.full(3, 2.0))
    np.testing.assert_array_equal(variables.value(variable), np.full(3, 2.0, np.float32))


def test_what_is_given_in_a_block_that_fails_is_dropped():
    variable, variables = keras.Variable(np.zeros(3, np.float32)), compat.HostVariables()

    def fail_behind_a_write():
        with variables.reading_once([variable]):
            variables.give((variable, np.ones(3, np.float32)))
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail_behind_a_write()
    np.testing.assert_array_equal(variables.array(variable), np.zeros(3))


def test_what_is_given_is_written_when_it_is_much(monkeypatch):
    monkeypatch.setattr(compat.variables, "_MOST_KEPT", 20)
    first, second = (keras.Variable(np.zeros(3, np.float32)) for _ in range(2))
    variables = compat.HostVariables()
    variables.give((first, np.ones(3, np.float32)))
    np.testing.assert_array_equal(first, np.zeros(3))
    variables.give((second, np.ones(3, np.float32)))  # 24 bytes
    np.testing.assert_array_equal(first, np.ones(3))
    np.testing.assert_array_equal(second, np.ones(3))


@pytest.mark.parametrize("number", [3.5, np.float32(2.0), tf.constant([1.0, 2.0])], ids=str)
def test_numbers_and_tensors_are_read_as_they_are(number):
    np.testing.assert_array_equal(compat.HostVariables().value(number), np.asarray(number, np.float32))
