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


def test_what_is_given_becomes_the_variables_values_and_what_was_read_before_stays():
    variable = keras.Variable(np.zeros((4, 3), np.float32))
    before = compat.host_value(variable)
    given = compat.host_memory((4, 3), np.float32)
    given[:] = np.arange(12).reshape(4, 3)
    expected = given.copy()
    compat.host_give(variable, given)
    del given
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
    given = compat.host_memory((8, 4), np.float32)
    given[:] = kernels[0]
    compat.host_give(models[0].layers[0].kernel, given)
    models[1].layers[0].kernel.assign(kernels[0])
    x, y = rng.standard_normal((16, 8)), rng.standard_normal((16, 4))
    for model in models:
        model.compile("adam", "mse", jit_compile=jit)
        model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_array_equal(models[0].layers[0].kernel, models[1].layers[0].kernel)
    assert np.any(np.asarray(models[0].layers[0].kernel) != kernels[0])
