"""Files for devices: sparse where XNNPACK runs them so, whatever x86 shows; and files for TFLite Micro."""

import keras
import numpy as np
import pytest
from exported import convolutions, inputs_of, perceptron
from mobile import make_mobile, set_zeros

import tf_lap
from tf_lap.export import runtime
from tf_lap.tflite import file as tflite
from tf_lap.tflite.operations import read_operations


def make_sparse():
    model = make_mobile(keras)
    set_zeros(model, 0.9, ("pointwise", "head"))
    return model


@pytest.mark.parametrize("quantization", [None, "float16"], ids=str)
def test_a_file_that_runs_sparse_elsewhere_says_where(tmp_path, quantization):
    report = tf_lap.export_tflite(
        make_sparse(), tmp_path / "model.tflite", quantization=quantization, batch_size=1, verbose=0
    )
    assert report.sparse
    assert (report.sparse_convolutions, report.convolutions) == (2, 2)
    assert "faster on ARM and in WebAssembly, where 2 of 2 1x1 convolutions run sparse; not on x86" in report.gain


def test_with_an_open_batch_it_says_what_a_fixed_one_would_gain(tmp_path):
    report = tf_lap.export_tflite(make_sparse(), tmp_path / "model.tflite", verbose=0)
    assert "not faster: with batch_size=1 2 of 2 1x1 convolutions would run sparse" in report.gain


def test_slowness_on_x86_does_not_count_where_convolutions_run_sparse(tmp_path, monkeypatch):
    slow = [runtime.Timing(1.0, 1.0, 1.0), runtime.Timing(9.0, 9.0, 9.0)]
    monkeypatch.setattr(runtime, "time_in_turn", lambda interpreters, sample, rounds: slow)
    assert tf_lap.export_tflite(make_sparse(), tmp_path / "model.tflite", batch_size=1, verbose=0).sparse


def test_a_file_with_which_xnnpack_fails_is_written_dense_with_the_reason(tmp_path):
    body = make_mobile(keras, classes=None)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(body.get_layer("pointwise_1").output)
    model = keras.Model(body.inputs, keras.layers.Flatten()(keras.layers.Conv2D(4, 1, name="late")(x)))
    set_zeros(model, 0.9)
    report = tf_lap.export_tflite(model, tmp_path / "model.tflite", batch_size=1, verbose=0)
    assert not report.sparse
    assert "XNNPACK fails with a sparse file on ARM and in WebAssembly: 'late' is a convolution behind" in report.reason
    with pytest.raises(ValueError, match="XNNPACK fails"):
        tf_lap.export_tflite(model, tmp_path / "model.tflite", sparse=True, batch_size=1, verbose=0)


@pytest.mark.parametrize("quantization", [None, "int8"], ids=str)
def test_a_file_for_tflite_micro_has_fixed_shapes_and_no_sparse_tensors(tmp_path, quantization):
    model = convolutions()
    tf_lap.prune(model, 0.9)
    path = tmp_path / "model.tflite"
    samples = inputs_of(model)
    report = tf_lap.export_tflite(
        model, path, quantization=quantization, representative_dataset=samples, micro=True, verbose=0
    )
    assert report.batch_size == 1
    assert not report.sparse
    assert not report.needs_densify
    raw = tflite.parse(path.read_bytes())
    assert all(tensor.shapeSignature is None or min(tensor.shapeSignature) > 0 for tensor in raw.subgraphs[0].tensors)


def test_inputs_and_outputs_can_be_int8(tmp_path):
    model = perceptron()
    path = tmp_path / "model.tflite"
    report = tf_lap.export_tflite(
        model,
        path,
        quantization="int8",
        representative_dataset=inputs_of(model),
        micro=True,
        integer_io=True,
        verbose=0,
    )
    assert report.relative_difference < report.tolerance
    (entry,) = runtime.read_inputs(runtime.find_runtime().load(path.read_bytes()))
    assert entry.dtype == np.int8
    assert {op.kind for op in read_operations(path.read_bytes()).operations} == {"FULLY_CONNECTED"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"micro": True, "sparse": True}, "leave sparse out"),
        ({"micro": True, "quantization": "float16"}, "pass None or 'int8'"),
        ({"integer_io": True}, "pass quantization='int8' too"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_lap.export_tflite(perceptron(), tmp_path / "model.tflite", **arguments)


def test_open_shapes_are_refused_for_tflite_micro(tmp_path):
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match=r"micro=True: input .* keras\.Input of fixed sizes"):
        tf_lap.export_tflite(model, tmp_path / "model.tflite", micro=True, verbose=0)
