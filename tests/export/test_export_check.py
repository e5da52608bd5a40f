import keras
import numpy as np
import pytest
from exported import export, folder, inputs_of, perceptron

import tf_lap
from tf_lap.compat import exporting
from tf_lap.export import runtime
from tf_lap.export.check import TOLERANCES

layers = keras.layers
F32, F16, DYNAMIC, INT8 = None, "float16", "dynamic_range", "int8"


def test_a_file_that_differs_is_not_left_and_what_was_there_stays(tmp_path, monkeypatch):
    model, path = perceptron(), tmp_path / "model.tflite"
    tf_lap.prune(model, 0.9)
    path.write_text("before")
    honest = exporting.outputs
    monkeypatch.setattr(
        exporting, "outputs", lambda *args: {name: 1.1 * value for name, value in honest(*args).items()}
    )
    with pytest.raises(
        tf_lap.ExportError, match=r"output 'output_0' of the file in .* differs from Keras's by .*0.0909 of"
    ):
        tf_lap.export_tflite(model, path)
    assert path.read_text() == "before"
    assert folder(tmp_path) == ["model.tflite"]


def stub_answers(monkeypatch, change):
    """Files answer otherwise than they do."""
    honest = runtime.run
    monkeypatch.setattr(runtime, "run", lambda *args: [{k: change(v) for k, v in a.items()} for a in honest(*args)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value * np.nan, "is NaN or infinite, Keras's is not"),
        (lambda value: value * np.inf, "is NaN or infinite, Keras's is not"),
        (lambda value: value[:, :-1], r"has the shape \(1, 7\), Keras's has \(1, 8\)"),
        (lambda value: value * 1.002, "0.002 of its largest value; 0.001 is tolerated"),
    ],
)
def test_answers_that_are_wrong_are_refused(tmp_path, monkeypatch, change, message):
    stub_answers(monkeypatch, change)
    with pytest.raises(tf_lap.ExportError, match=message):
        tf_lap.export_tflite(perceptron(), tmp_path / "model.tflite")
    assert folder(tmp_path) == []


@pytest.mark.parametrize(("quantization", "tolerance"), [(F32, 1e-3), (F16, 1e-2), (DYNAMIC, 0.1), (INT8, 0.2)])
def test_tolerances_are_those_of_the_docstring(quantization, tolerance):
    assert TOLERANCES[quantization] == tolerance
    assert f"{tolerance:g}" in tf_lap.export_tflite.__doc__


def test_eight_inputs_are_compared_and_the_largest_difference_is_told(tmp_path, monkeypatch):
    counts, honest = [], runtime.run

    def off(interpreter, samples):
        counts.append(len(samples))
        answers = honest(interpreter, samples)
        answers[-1] = {name: value + 5e-5 for name, value in answers[-1].items()}
        return answers

    monkeypatch.setattr(runtime, "run", off)
    model = perceptron()
    report = tf_lap.export_tflite(model, tmp_path / "model.tflite", representative_dataset=inputs_of(model))
    largest = np.abs(model(inputs_of(model)[:8])).max()
    assert counts == [8]
    assert report.difference == pytest.approx(5e-5, rel=0.05)
    assert report.relative_difference == pytest.approx(5e-5 / largest, rel=0.05)


def test_classes_may_differ_in_a_quantized_file_only(tmp_path, monkeypatch):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4)(inputs))
    monkeypatch.setattr(exporting, "outputs", lambda model, arrays: {"output_0": np.zeros((1, 4), np.int32)})
    tf_lap.export_tflite(model, tmp_path / "m.tflite", quantization="float16")
    with pytest.raises(tf_lap.ExportError, match="differs from Keras's"):
        tf_lap.export_tflite(model, tmp_path / "m.tflite")


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_states_stay_what_they_were(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    recurrent = flavour.layers.LSTM(4, stateful=True, unroll=True)
    model = flavour.Sequential([flavour.Input((5, 4), batch_size=1), recurrent])
    x = np.ones((1, 5, 4), np.float32)
    model(x)
    states = [np.array(state) for state in recurrent.states]
    tf_lap.export_tflite(model, tmp_path / "m.tflite")
    for before, after in zip(states, recurrent.states, strict=True):
        np.testing.assert_array_equal(before, np.array(after))


def test_no_state_stays_in_the_file_from_one_input_to_the_next(tmp_path):
    legacy = pytest.importorskip("tf_keras")
    model = legacy.Sequential([legacy.Input((10, 4), batch_size=1), legacy.layers.LSTM(8), legacy.layers.Dense(3)])
    assert tf_lap.export_tflite(model, tmp_path / "m.tflite").relative_difference < 1e-5


def test_a_model_that_answers_nan_is_refused(tmp_path):
    model = perceptron()
    model.get_layer("first").kernel.assign(np.full((64, 64), np.nan))
    with pytest.raises(ValueError, match=r"output 'output_0' of the Keras model itself is NaN .* pass representative"):
        tf_lap.export_tflite(model, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"NaN or infinite: restore sound weights$"):
        export(model, tmp_path / "model.tflite")
    assert folder(tmp_path) == []
