"""Runs over data as far as they are needed, and moments against plain NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from observed import calls_counted, find_readers, observe_rows
from relu_chains import data, relu_chain

from tf_lap.moments import measured as measured_module
from tf_lap.moments import rows as rows_module
from tf_lap.moments.measured import InputObserver, measure_moments, measure_squares

layers = keras.layers


def branched(flavour=keras):
    """A model in which the last kernel of the recipe is not the last that is called."""
    inputs = flavour.Input((6,))
    x = flavour.layers.Dense(5, activation="relu", name="first")(inputs)
    shared = flavour.layers.Dense(5, activation="relu", name="shared")
    x = shared(flavour.layers.Dense(5, name="between")(shared(x)))
    return flavour.Model(inputs, flavour.layers.Dense(3, name="head")(x))


def observe(model, batches):
    kernels, readers, _ = find_readers(model)
    return InputObserver(model, readers, batches), {kernel.path: number for number, kernel in enumerate(kernels)}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_the_order_is_that_in_which_kernels_are_done_with(flavour):
    model = branched(pytest.importorskip(flavour))
    observer, numbers = observe(model, [[data((6,), 4)]])
    assert observer.order == [numbers[path] for path in ("first", "between", "shared", "head")]


def test_kernels_of_the_very_same_tensors_are_one_stage():
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(2, 3, name="a")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.ReLU()(x)))
    observer, numbers = observe(model, [[data((4, 6), 4)]])
    names = {number: path for path, number in numbers.items()}
    stages = [{names[number] for number in stage} for stage in observer.stages]
    assert stages == [{"a/query", "a/key", "a/value"}, {"a/attention_output"}, {"head"}]
    shared, paths = observe(branched(), [[data((6,), 4)]])
    assert [shared.count_calls(paths[path]) for path in ("first", "shared", "head")] == [1, 2, 1]


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_run_ends_where_all_has_been_read(flavour):
    model = branched(pytest.importorskip(flavour))
    observer, numbers = observe(model, [[data((6,), 4)]])
    watched = [model.get_layer(name) for name in ("first", "shared", "between", "head")]
    for paths, expected in (
        (["first"], {"first": 1, "shared": 0, "between": 0, "head": 0}),
        (["between"], {"first": 1, "shared": 1, "between": 1, "head": 0}),
        (["shared", "first"], {"first": 1, "shared": 2, "between": 1, "head": 0}),
        (["head"], {"first": 1, "shared": 2, "between": 1, "head": 1}),
    ):
        with calls_counted(*watched) as counts:
            calls = observer.observe(observer.data[0], [numbers[path] for path in paths])
        assert counts == expected
        assert {number: len(inputs) for number, inputs in calls.items()} == {
            numbers[path]: 2 if path == "shared" else 1 for path in paths
        }
    assert all("call" not in vars(layer) for layer in watched)
    np.testing.assert_array_equal(model(observer.data[0][0]).shape, (4, 3))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_moments_are_means_over_all_rows_of_all_batches(flavour, monkeypatch):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((6, 5, 4))
    x = flavour.layers.Conv2D(6, 3, strides=2, groups=2, activation="relu", name="conv")(inputs)
    x = flavour.layers.Flatten()(flavour.layers.DepthwiseConv2D(2, padding="same", name="filters")(x))
    model = flavour.Model(inputs, flavour.layers.Dense(3, name="head")(x))
    images = data((6, 5, 4), 25)
    batches = [[images[:10]], [images[10:20]], [images[20:]]]
    monkeypatch.setattr(rows_module, "_MAX_NUMBERS", 300)  # some samples at once
    rows = observe_rows(model, batches)
    observer, numbers = observe(model, batches)
    moments = measure_moments(observer, list(numbers.values()))
    squares = measure_squares(observer, list(numbers.values()))
    for path, number in numbers.items():
        x = rows[path].astype(np.float64)
        found = moments[number]
        assert found.count == x.shape[1]
        second = np.einsum("gni,gnj->gij", x, x) / x.shape[1]
        np.testing.assert_allclose(found.second, second, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.mean, x.mean(axis=1), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(squares[number], np.square(x).mean(axis=1), rtol=1e-9)
        covariance = np.stack([np.cov(group, rowvar=False, bias=True) for group in x])
        outer = found.mean[:, :, np.newaxis] * found.mean[:, np.newaxis, :]
        np.testing.assert_allclose(found.second - outer, covariance, rtol=1e-4, atol=1e-6)
        assert found.second.dtype == found.mean.dtype == squares[number].dtype == np.float64


def test_float64_models_are_measured_in_float64():
    inputs = keras.Input((5,), dtype="float64")
    model = keras.Model(inputs, layers.Dense(4, dtype="float64", name="a")(inputs))
    x = np.random.default_rng(0).standard_normal((30, 5)) + 1e4
    observer, _ = observe(model, [[x]])
    (found,) = measure_moments(observer, [0]).values()
    np.testing.assert_allclose(found.second[0], x.T @ x / 30, rtol=1e-13)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_states_policies_and_statistics_stay(flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((5, 4), batch_size=10) if flavour is keras else flavour.Input(batch_shape=(10, 5, 4))
    recurrent = flavour.layers.LSTM(4, stateful=True, name="memory")
    x = flavour.layers.BatchNormalization()(recurrent(inputs))
    x = flavour.layers.Dropout(0.5)(x)
    hidden = flavour.layers.Dense(8, activation="relu", dtype="mixed_float16", name="half")
    model = flavour.Model(inputs, flavour.layers.Dense(3, dtype="float32", name="head")(hidden(x)))
    model(data((5, 4), 10))  # so that states are not zero
    before = [tf.convert_to_tensor(v).numpy() for v in (*model.variables, *recurrent.states)]
    observer, _ = observe(model, [[data((5, 4), 10)]])
    first = measure_moments(observer, observer.order)
    again = measure_moments(observer, observer.order)
    for old, new in zip(before, (*model.variables, *recurrent.states), strict=True):
        np.testing.assert_array_equal(old, tf.convert_to_tensor(new))
    for number, moments in first.items():
        np.testing.assert_array_equal(moments.second, again[number].second)
    assert hidden.compute_dtype == "float16"


def test_inputs_of_a_layer_are_let_go_of_before_the_next_is_called():
    model = relu_chain(6, 12, 10, 4)
    observer, _ = observe(model, [[data((6,), 5)]])
    visited = []
    with calls_counted(*model.layers) as counts:
        observer.visit_rows(
            observer.data[0], observer.order, lambda number, rows: visited.append((number, rows.shape, dict(counts)))
        )
    assert [(number, tuple(shape)) for number, shape, _ in visited] == [
        (0, (1, 5, 6)),
        (1, (1, 5, 12)),
        (2, (1, 5, 10)),
    ]
    assert [sum(calls.values()) for _, _, calls in visited] == [1, 2, 3]


def test_a_models_own_error_is_not_hidden():
    class Failing(layers.Layer):
        def call(self, x):
            if not isinstance(x, keras.KerasTensor) and tf.executing_eagerly() and self.fails:
                raise RuntimeError("no more")
            return x

    failing = Failing(name="failing")
    failing.fails = False
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), failing, layers.Dense(2, name="b")])
    observer, numbers = observe(model, [[data((4,), 5)]])
    failing.fails = True
    assert list(observer.observe(observer.data[0], [numbers["a"]])) == [numbers["a"]]
    with pytest.raises(RuntimeError, match="no more"):
        observer.observe(observer.data[0], [numbers["b"]])
    assert all("call" not in vars(layer) for layer in model.layers)


def test_batches_are_divided_so_that_a_run_holds_no_more_than_so_much(monkeypatch):
    model = relu_chain(6, 12, 10, 4)  # its layers are given 28 numbers of each sample
    x = data((6,), 25)
    whole, _ = observe(model, [[x[:10]], [x[10:]]])
    assert [len(batch[0]) for batch in whole.data] == [10, 15]
    monkeypatch.setattr(measured_module, "_MAX_NUMBERS", 28 * 4)
    divided, _ = observe(model, [[x[:10]], [x[10:]]])
    assert [len(batch[0]) for batch in divided.data] == [4, 4, 2, 4, 4, 4, 3]
    for number, moments in measure_moments(whole, whole.order).items():
        again = measure_moments(divided, [number])[number]
        np.testing.assert_allclose(again.second, moments.second, rtol=1e-6)
        assert again.count == moments.count == 25
    fixed = keras.Sequential([keras.Input((6,), batch_size=5), layers.Dense(3, name="a")])
    monkeypatch.setattr(measured_module, "_MAX_NUMBERS", 1)
    assert [len(batch[0]) for batch in observe(fixed, [[x[:5]], [x[5:10]]])[0].data] == [5, 5]
