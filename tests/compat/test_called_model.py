"""Which model a model's call consists of."""

import keras
import numpy as np
import pytest
import tf_keras

from tf_lap import compat

BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def make_part(library, name):
    return library.Sequential([library.layers.Input((4,)), library.layers.Dense(3)], name=name)


def make_pair(library, function, second=True):
    """A model that holds one model or two, and whose call is a function of it and its input."""

    class Pair(library.Model):
        def __init__(self):
            super().__init__()
            self.first = make_part(library, "first")
            if second:
                self.second = make_part(library, "second")

        def call(self, x):
            return function(self, x)

    pair = Pair()
    pair(np.zeros((1, 4), np.float32))
    return pair


@BOTH
def test_a_model_whose_call_is_that_of_a_model_inside_gives_that_one(library):
    pair = make_pair(library, lambda self, x: self.second(x))
    assert compat.find_called_model(pair) is pair.second


@BOTH
@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.first(x) + self.second(x),
        lambda self, x: 2 * self.first(x),
        lambda self, x: self.first(2 * x),
        lambda self, x: self.first.layers[-1](x),
        lambda self, x: [self.first(x), x],
        lambda self, x: self.first(x) if float(np.sum(x)) == 0 else x,  # cannot be followed
    ],
    ids=["both", "scaled", "of something else", "a layer", "more outputs", "untraceable"],
)
def test_a_model_whose_call_does_anything_else_is_its_own(library, function):
    pair = make_pair(library, function)
    assert compat.find_called_model(pair) is pair


@BOTH
def test_a_model_with_nothing_else_in_it_is_its_own(library):
    pair = make_pair(library, lambda self, x: self.first(x), second=False)
    assert compat.find_called_model(pair) is pair
    part = make_part(library, "part")
    assert compat.find_called_model(part) is part
    inputs = library.layers.Input((4,))
    around = library.Model(inputs, part(inputs))
    assert compat.find_called_model(around) is around
