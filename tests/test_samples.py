import numpy as np
import pytest
import tensorflow as tf

from tf_lap import samples
from tf_lap.compat.exporting import Input

X = np.arange(60, dtype=np.float64).reshape(20, 3)
ONE = [Input("x", "x", (None, 3), np.dtype("float32"))]
TWO = [*ONE, Input("n", "number", (None,), np.dtype("int32"))]
N = np.arange(20)


def rows(samples, position=0):
    return np.concatenate([sample[position] for sample in samples])


@pytest.mark.parametrize(
    "data",
    [
        X,
        [X],
        {"x": X},
        tf.constant(X),
        lambda: ([row[np.newaxis]] for row in X),
        lambda: ({"x": row[np.newaxis]} for row in X),
        lambda: X[:, np.newaxis],
        tf.data.Dataset.from_tensor_slices(X),
        tf.data.Dataset.from_tensor_slices(X).batch(7),
        tf.data.Dataset.from_tensor_slices((X, N)).batch(7),
        tf.data.Dataset.from_tensor_slices(({"x": X}, N)),
    ],
)
def test_all_forms_give_the_same_single_samples(data):
    single = samples.read_samples(data, ONE)
    assert {sample[0].shape for sample in single} == {(1, 3)}
    assert {sample[0].dtype for sample in single} == {np.dtype("float32")}
    np.testing.assert_array_equal(rows(single), X)


@pytest.mark.parametrize(
    "data",
    [
        [X, N],
        {"n": N, "x": X},
        {"number": N, "x": X},
        lambda: ([x[np.newaxis], n[np.newaxis]] for x, n in zip(X, N, strict=True)),
        tf.data.Dataset.from_tensor_slices(({"n": N, "x": X}, N)).batch(6),
        tf.data.Dataset.from_tensor_slices(((X, N), N)),
    ],
)
def test_several_inputs_come_in_the_models_order(data):
    single = samples.read_samples(data, TWO)
    np.testing.assert_array_equal(rows(single), X)
    np.testing.assert_array_equal(rows(single, 1), N)
    assert single[0][1].dtype == np.int32


def test_of_many_samples_some_are_taken_that_lie_evenly():
    many = np.arange(60_000, dtype=np.float32).reshape(-1, 1)
    wide = [Input("x", "x", (None, 1), np.dtype("float32"))]
    picked = rows(samples.read_samples(many, wide)).ravel()
    assert len(picked) == samples.MAX_SAMPLES
    assert (picked[0], picked[-1]) == (0, 59_999)
    assert np.ptp(np.diff(picked)) <= 1
    first = samples.read_samples(tf.data.Dataset.from_tensor_slices(many).batch(64), wide)
    np.testing.assert_array_equal(rows(first).ravel(), np.arange(samples.MAX_SAMPLES))


def test_a_function_may_never_end():
    def forever():
        while True:
            yield X[:1]

    assert len(samples.read_samples(forever, ONE)) == samples.MAX_SAMPLES


def test_keys_that_are_other_inputs_names_are_keys():
    crossed = [Input("b", "a", (None, 1), np.dtype("float32")), Input("a", "b", (None, 1), np.dtype("float32"))]
    (first, second), *_ = samples.read_samples({"a": np.zeros((1, 1)), "b": np.ones((1, 1))}, crossed)
    assert (first.item(), second.item()) == (0, 1)


def test_random_samples_are_always_the_same_and_fit():
    inputs = [
        Input("image", "image", (None, None, 6, 3), np.dtype("float32")),
        Input("ids", "ids", (4, 5), np.dtype("int64")),
        Input("flag", "flag", (None, 1), np.dtype("bool")),
    ]
    drawn, again = samples.draw_samples(inputs), samples.draw_samples(inputs)
    assert len(drawn) == samples.CHECKED_SAMPLES
    assert [array.shape for array in drawn[0]] == [(1, 64, 6, 3), (4, 5), (1, 1)]
    assert [array.dtype for array in drawn[0]] == [entry.dtype for entry in inputs]
    assert set(np.unique([sample[1] for sample in drawn])) == {0, 1}
    for sample, other in zip(drawn, again, strict=True):
        for array, same in zip(sample, other, strict=True):
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize(
    ("data", "inputs", "error", "message"),
    [
        (X[:0], ONE, ValueError, "holds no samples"),
        (lambda: iter(()), ONE, ValueError, "holds no samples"),
        (X[:, :2], ONE, ValueError, r"input 'x' has shape \(None, 3\), samples have \(1, 2\)"),
        (X[0], ONE, ValueError, r"samples have \(1,\)"),
        (np.float32(3), ONE, ValueError, "holds no samples"),
        (X * np.nan, ONE, ValueError, "samples of input 'x' hold NaN"),
        ([X, X], ONE, ValueError, r"gives 2 arrays for 1 inputs \('x'\)"),
        (X, TWO, ValueError, r"gives 1 arrays for 2 inputs \('x', 'n'\)"),
        ([X, N[:3]], TWO, ValueError, r"different numbers of samples for the inputs: \[3, 20\]"),
        ({"y": X}, ONE, ValueError, r"has \['y'\]; the model's inputs are \['x'\]"),
        ({"x": X}, None, ValueError, "wrap it into a Functional model"),
        (np.array([["a"] * 3]), ONE, ValueError, "holds <U1: expected real numbers"),
        (X * 1j, ONE, ValueError, "holds complex128: expected real numbers"),
        ("data.npy", ONE, TypeError, "holds str: expected an array"),
        (iter([X]), ONE, TypeError, "a function that returns an iterable"),
        (lambda: 3, ONE, TypeError, r"representative_dataset: the function returned int"),
    ],
)
def test_what_does_not_fit_is_refused(data, inputs, error, message):
    with pytest.raises(error, match=message):
        samples.read_samples(data, inputs)


def test_inputs_that_cannot_be_drawn_are_named():
    with pytest.raises(ValueError, match=r"input 'text' takes .*: pass representative_dataset"):
        samples.draw_samples([Input("text", "text", (None,), np.dtype("O"))])
