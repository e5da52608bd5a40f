"""Equations of `einsum`, and kernels that do not fit what they read: boundaries that say so."""

import keras
import pytest

import tf_lap
from tf_lap.graph.einsum import read_equation


@pytest.mark.parametrize(
    ("equation", "ranks", "operands", "output"),
    [
        ("abc,cd->abd", (3, 2), (("a", "b", "c"), ("c", "d")), ("a", "b", "d")),
        (" a b, b c -> a c ", (2, 2), (("a", "b"), ("b", "c")), ("a", "c")),
        ("...a,ab->...b", (3, 2), (("...1", "...0", "a"), ("a", "b")), ("...1", "...0", "b")),
        ("ab,bc", (2, 2), (("a", "b"), ("b", "c")), ("a", "c")),
    ],
)
def test_equations_are_read(equation, ranks, operands, output):
    assert read_equation(equation, ranks) == (operands, output)


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("ab->a", "names 1 operands, and there are 2"),
        ("aab,bc->ac", "names an axis of 'aab' twice, which takes a diagonal"),
        ("abc,bc->ac", "names 3 axes in 'abc', and there are 2"),
        ("a,bc->ac", "names 1 axes in 'a', and there are 2"),
        ("a-b,bc->ac", "has 'a-b', expected a letter for each axis and at most one '...'"),
        ("......ab,bc->ac", "has '......ab', expected a letter"),
        ("ab,bc->az", "puts out 'az', expected axes of the operands, each once"),
        ("ab,bc->aca", "puts out 'aca', expected axes of the operands, each once"),
        ("ab,bc->a->c", "puts out 'a->c', expected axes"),
    ],
)
def test_equations_that_cannot_be_read_are_errors(equation, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_equation(equation, (2, 2))
    assert repr(equation) in str(caught.value)


def test_an_equation_that_takes_a_diagonal_is_a_boundary():
    inputs = keras.Input((4, 4))
    x = keras.layers.EinsumDense("abb,bc->ac", (5,), name="diagonal")(keras.layers.Dense(4, name="stem")(inputs))
    around = tf_lap.neighbors(keras.Model(inputs, keras.layers.Dense(2, name="head")(x)))
    reason = "EinsumDense 'diagonal': the equation 'abb,bc->ac' names an axis of 'abb' twice, which takes a diagonal"
    assert around["diagonal"].boundaries == (reason,)
    assert reason in around["stem"].boundaries
    assert reason in around["head"].boundaries


def test_a_kernel_whose_inherited_rule_does_not_fit_is_a_boundary_and_the_remedy_helps():
    class Turned(keras.layers.Dense):
        def build(self, shape):
            self._kernel = self.add_weight(shape=(self.units, shape[-1]), name="kernel")
            self.bias, self.built = None, True

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.kernel))

    inputs = keras.Input((3,))
    x = Turned(5, name="turned")(keras.layers.Dense(4, name="stem")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    (reason,) = tf_lap.neighbors(model)["turned"].boundaries
    assert reason == (
        "Turned 'turned': its kernel of shape (5, 4) reads 5 channels, and the tensor of shape (None, 4) has 4 on "
        "axis 1; tf_lap.register_kernel says which axes of a kernel are what"
    )
    assert [layer.kept for layer in tf_lap.prune(model, 0.5).layers if layer.path == "turned"] == [10]
    tf_lap.register_kernel(Turned, "kernel", "oi")
    assert tf_lap.neighbors(model)["turned"].previous == ("stem",)
    assert tf_lap.neighbors(model)["turned"].following == ("head",)
