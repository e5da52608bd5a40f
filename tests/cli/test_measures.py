"""What is measured follows from the labels and the answers."""

import keras
import numpy as np
import pytest

from tf_lap.cli import data_files
from tf_lap.cli.errors import CommandError
from tf_lap.cli.measures import find_measure, predict
from tf_lap.compat import exporting

ANSWERS = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
OTHER = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32)


@pytest.mark.parametrize(
    "labels",
    [[1, 0, 0], [[1], [0], [0]], [1.0, 0.0, 0.0], [[0, 1], [1, 0], [1, 0]], [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]],
    ids=str,
)
def test_classes_give_an_accuracy(labels):
    measure = find_measure(ANSWERS, np.array(labels))
    assert (measure.name, measure.higher_is_better) == ("accuracy", True)
    assert measure.compute(ANSWERS) == pytest.approx(2 / 3)
    assert measure.compute(OTHER) == pytest.approx(1 / 3)
    assert measure.format(2 / 3) == "66.67%"


def test_classes_at_each_position():
    answers = np.eye(3, dtype=np.float32)[np.array([[0, 1], [2, 2]])]
    assert find_measure(answers, np.array([[0, 1], [2, 0]])).compute(answers) == 0.75


@pytest.mark.parametrize(
    ("answers", "right"), [([[0.2], [0.7], [0.6]], 2 / 3), ([[-3.0], [0.2], [4.0]], 2 / 3)], ids=str
)
def test_two_classes_of_one_output(answers, right):
    measure = find_measure(np.array(answers), np.array([0, 1, 0]))
    assert (measure.name, measure.compute(np.array(answers))) == ("accuracy", pytest.approx(right))


def test_other_labels_give_an_error():
    labels = np.array([[0.5, 0.5], [0.1, 0.2], [0.0, 0.3]])
    measure = find_measure(ANSWERS, labels)
    assert (measure.name, measure.higher_is_better) == ("mean squared error", False)
    assert measure.compute(labels) == 0
    assert measure.compute(labels + 2) == pytest.approx(4)
    assert measure.format(4) == "4"


def test_without_labels_answers_are_compared():
    measure = find_measure(ANSWERS, None)
    assert (measure.name, measure.compute(OTHER)) == ("same answer", pytest.approx(2 / 3))
    numbers = find_measure(ANSWERS[:, :1], None)
    assert (numbers.name, numbers.compute(ANSWERS[:, :1] + 1)) == ("mean squared difference", pytest.approx(1))


def test_labels_that_do_not_fit():
    with pytest.raises(CommandError, match=r"y has shape \(2, 5\), and the model's answers \(3, 2\)"):
        find_measure(ANSWERS, np.zeros((2, 5)))


def test_a_fixed_batch_is_filled_up():
    model = keras.Sequential([keras.Input((3,), batch_size=4), keras.layers.Dense(2)])
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    np.testing.assert_allclose(predict(model, [x]), x @ model.layers[0].kernel.numpy(), rtol=1e-5)


def test_several_outputs_are_not_measured():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(1)(inputs)])
    with pytest.raises(CommandError, match="has 2 outputs"):
        predict(model, [np.ones((2, 3), np.float32)])


def read(tmp_path, inputs, endings, **arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    return data_files.read_data(tmp_path / "d.npz", inputs, endings)


def test_which_of_several_sets_is_read(tmp_path):
    sets = {name: np.full(2, number) for number, name in enumerate(("x_train", "y_train", "x_test", "y_test"))}
    measured = read(tmp_path, None, data_files.TO_MEASURE, **sets)
    fitted = read(tmp_path, None, data_files.TO_FIT, **sets)
    assert (measured.names, measured.labels[0], fitted.names, fitted.labels[0]) == ("x_test", 3, "x_train", 1)
    plain = read(tmp_path, None, data_files.TO_FIT, x=np.ones(2), **sets)
    assert (plain.names, plain.labels) == ("x", None)


def test_inputs_by_name_and_a_model_that_takes_a_mapping(tmp_path):
    inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((1,), name="a")}
    outputs = keras.layers.Dense(2)(keras.layers.Concatenate()([inputs["a"], inputs["b"]]))
    for structure in (inputs, [inputs["b"], inputs["a"]]):
        model = keras.Model(structure, outputs)
        entries = exporting.inputs(model)
        a, b = np.ones((3, 1), np.float32), np.full((3, 2), 2, np.float32)
        data = read(tmp_path, entries, data_files.TO_MEASURE, a=a, b=b, y=np.zeros(3, int))
        expected = model.predict({"a": a, "b": b} if structure is inputs else [b, a], verbose=0)
        np.testing.assert_allclose(predict(model, data.columns), expected, rtol=1e-6)
        assert data.labels.tolist() == [0, 0, 0]
