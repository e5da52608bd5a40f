"""What is known of a call's argument before the model runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.arguments import read_constant_shape, read_static

TENSOR = compat.Tensor((None, 3), "float32", "x")


@pytest.mark.parametrize(
    ("argument", "value"),
    [(3, 3), ([1, 2], [1, 2]), (np.arange(3), [0, 1, 2]), (tf.constant([4, 5]), [4, 5]), ((1, tf.constant(2)), [1, 2])],
)
def test_values_that_are_known(argument, value):
    np.testing.assert_array_equal(read_static(argument), value)


@pytest.mark.parametrize("argument", [None, "same", TENSOR, [1, TENSOR]])
def test_values_that_are_not_known(argument):
    assert read_static(argument) is None


@pytest.mark.parametrize(
    ("argument", "shape"),
    [
        (2.0, ()),
        (np.ones((2, 3)), (2, 3)),
        (keras.Variable(np.ones((4, 1), np.float32)), (4, 1)),
        (True, None),
        ("x", None),
        (TENSOR, None),
        (None, None),
    ],
)
def test_the_shape_of_a_constant(argument, shape):
    assert read_constant_shape(argument) == shape
