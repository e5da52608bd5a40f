"""Equations against NumPy's own einsum, on arrays whose axes have different sizes; and those that cannot be read."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tf_lap
from tf_lap.graph.einsum import read_equation

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5}


@st.composite
def draw_equations(draw):
    """An equation, and the shapes of operands that it fits. Axes of an ellipsis have sizes of 6 and more."""
    hidden = [draw(st.integers(0, 2)) for _ in range(2)]
    parts, shapes = [], []
    for count in hidden:
        letters = draw(st.permutations("abcd"))[: draw(st.integers(1, 3))]
        place = draw(st.integers(0, len(letters)))
        parts.append("".join(letters[:place]) + "..." + "".join(letters[place:]))
        sizes = [SIZES[letter] for letter in letters]
        shapes.append([*sizes[:place], *range(5 + count, 5, -1), *sizes[place:]])
    if not any(hidden) and draw(st.booleans()):
        parts = [part.replace("...", "") for part in parts]
    seen = sorted(set("".join(parts)) - {"."})
    output = draw(st.none() | st.permutations(seen).map(lambda letters: letters[: max(1, len(letters) - 1)]))
    if output is None:
        return ",".join(parts), shapes
    place = draw(st.integers(0, len(output)))
    ellipsis = "..." if "." in "".join(parts) else ""
    return f"{parts[0]} , {parts[1]}->{''.join(output[:place])}{ellipsis}{''.join(output[place:])}", shapes


@settings(max_examples=150, deadline=None, derandomize=True)
@given(draw_equations())
def test_axes_have_the_labels_that_numpy_gives_them(drawn):
    equation, shapes = drawn
    read = read_equation(equation, [len(shape) for shape in shapes])
    sizes = {}
    for labels, shape in zip(read.operands, shapes, strict=True):
        assert len(set(labels)) == len(labels) == len(shape)
        for label, size in zip(labels, shape, strict=True):
            assert sizes.setdefault(label, size) == size
    expected = np.einsum(equation, *map(np.ones, shapes))
    assert tuple(sizes[label] for label in read.output) == expected.shape


def test_axes_of_an_ellipsis_are_counted_from_the_last():
    read = read_equation("...ab,b...c->...ac", [4, 3])
    assert read.operands == (("...1", "...0", "a", "b"), ("b", "...0", "c"))
    assert read.output == ("...1", "...0", "a", "c")


def test_an_implicit_output_has_the_ellipsis_and_the_letters_that_appear_once():
    assert read_equation("...ab,bc", [3, 2]).output == ("...0", "a", "c")
    assert read_equation("ba", [2]).output == ("a", "b")


@pytest.mark.parametrize(
    ("equation", "ranks", "message"),
    [
        ("ab,bc->ac", [2], "names 2 operands, and there are 1"),
        ("aab,bc->ac", [3, 2], "names an axis of 'aab' twice, which takes a diagonal"),
        ("ab,bc->ac", [3, 2], "names 2 axes in 'ab', and there are 3"),
        ("...abc,c->...ab", [2, 1], "names 3 axes in '...abc', and there are 2"),
    ],
)
def test_an_equation_that_does_not_fit_says_why(equation, ranks, message):
    with pytest.raises(ValueError, match="the equation") as caught:
        read_equation(equation, ranks)
    assert message in str(caught.value)


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
    assert [
        layer.kept for layer in tf_lap.prune(model, 0.5, allocation="uniform").layers if layer.path == "turned"
    ] == [10]
    tf_lap.register_kernel(Turned, "kernel", "oi")
    assert tf_lap.neighbors(model)["turned"].previous == ("stem",)
    assert tf_lap.neighbors(model)["turned"].following == ("head",)
