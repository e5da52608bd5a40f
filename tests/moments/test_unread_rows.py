"""Why the rows of some kernels are not read."""

import keras
import pytest
from observed import find_reason, observe_rows
from relu_chains import data
from uncalled import half_used

layers = keras.layers


def built(layer, shape):
    """A model of one layer, for samples of a shape."""
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize("equation", ["abc,cd->ad", "abc,bd->ad", "...bc,cd->...d"])
def test_sums_over_axes_that_the_kernel_has_not_are_not_read(equation):
    model = built(layers.EinsumDense(equation, 4, name="a"), (3, 5))
    assert find_reason(model, "a") == "its equation adds up axes that the kernel has not"


class OwnDense(layers.Dense):
    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.tanh(self.kernel)) + self.bias


REASONS = {
    "embedding": (
        lambda: built(layers.Embedding(7, 4, name="a"), (3,)),
        "a",
        "the rows that a Embedding multiplies it with are no input of the layer",
    ),
    "transposed": (
        lambda: built(layers.Conv2DTranspose(4, 3, name="a"), (5, 5, 2)),
        "a",
        "the patches of a transposed convolution are not read",
    ),
    "separable": (lambda: built(layers.SeparableConv2D(4, 3, name="a"), (5, 5, 2)), "a", "cannot be read"),
    "its filters": (
        lambda: built(layers.SeparableConv2D(4, 3, name="a"), (5, 5, 2)),
        "a/depthwise_kernel",
        "cannot be read",
    ),
    "ConvLSTM": (lambda: built(layers.ConvLSTM2D(4, 3, name="a"), (3, 5, 5, 2)), "a/kernel", "cannot be read"),
    "own call": (
        lambda: built(OwnDense(4, name="a"), (5,)),
        "a",
        "what a OwnDense multiplies it with is known to its own call alone",
    ),
    "stacked cells": (
        lambda: built(layers.RNN([layers.GRUCell(4, name="b"), layers.GRUCell(4, name="c")], name="a"), (3, 5)),
        "a/b/kernel",
        "are no input of the layer",
    ),
    "table of both directions": (
        lambda: (lambda inputs, table: keras.Model(inputs, table(table(inputs), reverse=True)))(
            keras.Input((3,), dtype="int32"), layers.ReversibleEmbedding(7, 4, name="a")
        ),
        "a",
        "it is used in both directions",
    ),
}


@pytest.mark.parametrize(("make", "path", "text"), REASONS.values(), ids=REASONS)
def test_why_rows_cannot_be_read(make, path, text):
    assert text in find_reason(make(), path)


def test_a_kernel_that_no_call_reaches():
    model = half_used()
    assert find_reason(model, "unused")
    assert list(observe_rows(model, [[data((4,), 3)]])) == ["used"]


def test_a_kernel_of_two_layers_is_not_read():
    class Tied(layers.Dense):
        def __init__(self, other, **options):
            super().__init__(other.units, use_bias=False, **options)
            self.other = [other]

        def build(self, shape):
            self._kernel, self.bias, self.built = self.other[0]._kernel, None, True

    inputs, first = keras.Input((5,)), layers.Dense(5, name="a")
    x = first(inputs)
    model = keras.Model(inputs, Tied(first, name="b")(layers.ReLU()(x)))
    assert find_reason(model, "a") == "another layer has it too"
