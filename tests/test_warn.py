"""Warnings point at the code that called the package."""

import warnings

import keras
import pytest

import tf_lap
from tf_lap.warn import warn


def test_a_warning_is_of_the_line_outside_the_package():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    tf_lap.prune(model, 0.9)
    with pytest.warns(UserWarning, match="more zeros already") as caught:
        tf_lap.prune(model, 0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings(record=True) as direct:
        warnings.simplefilter("always")
        warn("said here")
    assert [w.filename for w in direct] == [__file__]
