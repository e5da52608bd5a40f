"""TFLite Micro loads and runs the files that are written for it, and answers as Keras does."""

import keras
import numpy as np
import pytest
from exported import convolutions, inputs_of, perceptron
from mobile import make_mobile

import tf_lap

runtime = pytest.importorskip(
    "tflite_micro.python.tflite_micro.runtime", reason="TFLite Micro is not installed: pip install tflite-micro"
)
pytestmark = pytest.mark.slow

ARENA_BYTES = 1 << 22


def mobile():
    return make_mobile(keras)


def run_in_micro(file, x):
    """What TFLite Micro answers to inputs one by one; numbers of int8 as they stand for."""
    interpreter = runtime.Interpreter.from_bytes(file, arena_size=ARENA_BYTES)
    source, target = interpreter.get_input_details(0), interpreter.get_output_details(0)
    answers = []
    for row in x:
        interpreter.set_input(quantize(row[np.newaxis], source), 0)
        interpreter.invoke()
        answers.append(dequantize(interpreter.get_output(0), target)[0])
    return np.array(answers)


def quantize(values, details):
    if details["dtype"] != np.int8:
        return values
    scale, zero = (details["quantization_parameters"][key][0] for key in ("scales", "zero_points"))
    return np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)


def dequantize(values, details):
    if details["dtype"] != np.int8:
        return values.copy()
    scale, zero = (details["quantization_parameters"][key][0] for key in ("scales", "zero_points"))
    return (values.astype(np.float32) - zero) * scale


@pytest.mark.parametrize("make", [perceptron, convolutions, mobile])
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-3), ({"quantization": "int8"}, 0.2), ({"quantization": "int8", "integer_io": True}, 0.2)],
    ids=["float32", "int8", "int8 in and out"],
)
def test_tflite_micro_runs_the_file_and_answers_as_keras_does(tmp_path, make, settings, tolerance):
    model = make()
    tf_lap.prune(model, 0.8)
    x = inputs_of(model)
    path = tmp_path / "model.tflite"
    tf_lap.export_tflite(model, path, representative_dataset=x, micro=True, verbose=0, **settings)
    expected = model(x).numpy()
    answers = run_in_micro(path.read_bytes(), x)
    assert np.abs(answers - expected).max() < tolerance * np.abs(expected).max()
    dtypes = [np.int8 if settings.get("integer_io") else np.float32]
    interpreter = runtime.Interpreter.from_bytes(path.read_bytes(), arena_size=ARENA_BYTES)
    assert [interpreter.get_input_details(0)["dtype"]] == dtypes


def test_tflite_micro_has_no_sparse_tensors(tmp_path):
    model = convolutions()
    tf_lap.prune(model, 0.9)
    path = tmp_path / "model.tflite"
    assert tf_lap.export_tflite(model, path, sparse=True, batch_size=1, verbose=0).needs_densify
    with pytest.raises(RuntimeError):
        run_in_micro(path.read_bytes(), inputs_of(model, 1))
