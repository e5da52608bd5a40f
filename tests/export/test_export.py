import os
import re
import stat

import keras
import numpy as np
import pytest
from exported import (
    INTERPRETERS,
    answers,
    converted,
    convolutions,
    equal_speed,  # noqa: F401  (a fixture)
    export,
    folder,
    inputs_of,
    perceptron,
    without_litert,
)

import tf_lap
from tf_lap.export.check import TOLERANCES
from tf_lap.tflite import file as tflite

layers = keras.layers
pytestmark = pytest.mark.usefixtures("equal_speed")

F32, F16, DYNAMIC, INT8 = None, "float16", "dynamic_range", "int8"
FEW, LARGER = "no tensor has zeros enough", "a sparse file is larger"
NAN, UNLOADED, ONLY_16 = "computes NaN", "does not load sparse tensors of dynamic", "only in blocks of 1 output by 16"
# For each pattern and sparsity, why no sparse file is written in each quantization; "" where one is.
TABLE = {
    (None, 0.0): {F32: FEW, F16: FEW, DYNAMIC: FEW, INT8: FEW},
    ("unstructured", 0.5): {F32: "", F16: "", DYNAMIC: UNLOADED, INT8: ONLY_16},
    ("unstructured", 0.9): {F32: "", F16: "", DYNAMIC: UNLOADED, INT8: ONLY_16},
    ("2:4", 0.5): {F32: "", F16: "", DYNAMIC: UNLOADED, INT8: ONLY_16},
    ("block:1x4", 0.8): {F32: "", F16: NAN, DYNAMIC: UNLOADED, INT8: ONLY_16},
    ("block:1x16", 0.8): {F32: "", F16: NAN, DYNAMIC: UNLOADED, INT8: ""},
    ("block:4x4", 0.9): {F32: "", F16: NAN, DYNAMIC: UNLOADED, INT8: ONLY_16},
}


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [F32, F16, DYNAMIC, INT8], ids=str)
@pytest.mark.parametrize(("pattern", "sparsity"), TABLE, ids=str)
def test_every_quantization_of_every_pattern_does_what_keras_does_or_is_refused(
    tmp_path, quantization, pattern, sparsity
):
    pytest.importorskip("ai_edge_litert")
    model, path = perceptron(), tmp_path / "model.tflite"
    if pattern:
        tf_lap.prune(model, sparsity, pattern=pattern, allocation="uniform")
    x = inputs_of(model, 4)
    expected = model.predict_on_batch(x)
    report = export(model, path, quantization=quantization)
    written = path.read_bytes()
    refused = TABLE[pattern, sparsity][quantization]
    assert report.sparse == (not refused)
    if refused:
        assert refused in report.reason
        assert report.file_bytes == report.dense_bytes
        with pytest.raises(ValueError, match=re.escape(report.reason)):
            export(model, path, quantization=quantization, sparse=True)
        assert path.read_bytes() == written
    else:
        assert report.reason is None
        assert report.file_bytes < report.dense_bytes
        export(model, path, quantization=quantization, sparse=True)
        assert path.read_bytes() == written
    for interpreter in INTERPRETERS.values():
        outputs = answers(written, x, interpreter)
        assert np.abs(outputs - expected).max() <= TOLERANCES[quantization] * np.abs(expected).max()


@pytest.mark.parametrize(
    ("quantization", "pattern", "works"),
    [
        (F16, "block:1x4", []),
        (DYNAMIC, "unstructured", []),
        (DYNAMIC, "block:1x16", []),
        (INT8, "unstructured", ["tensorflow"]),
    ],
)
def test_what_is_refused_does_fail(quantization, pattern, works):
    """What runtimes do with files that are refused by what they hold; when this fails, one can be refused no longer."""
    pytest.importorskip("ai_edge_litert")
    model = perceptron()
    tf_lap.prune(model, 0.9, pattern=pattern)
    x = inputs_of(model, 4)
    expected = model.predict_on_batch(x)
    file = converted(model, quantization, sparse=True)
    right = []
    for name, interpreter in INTERPRETERS.items():
        try:
            outputs = answers(file, x, interpreter)
        except RuntimeError:
            continue
        if np.abs(outputs - expected).max() <= TOLERANCES[quantization] * np.abs(expected).max():
            right.append(name)
    assert right == works


@pytest.mark.parametrize("quantization", [F32, F16, INT8], ids=str)
def test_convolutions_are_stored_sparse(tmp_path, quantization):
    inputs = keras.Input((8, 8, 8))
    x = layers.Conv2D(32, 1, activation="relu")(layers.Conv2D(32, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Conv2D(16, 3)(x))
    tf_lap.prune(model, 0.9)
    report = export(model, tmp_path / "model.tflite", quantization=quantization)
    assert [tensor.encoding for tensor in report.tensors] == ["sparse"] * 3
    rows = inputs_of(model, 2)
    for interpreter in INTERPRETERS.values():
        outputs = answers((tmp_path / "model.tflite").read_bytes(), rows, interpreter)
        assert np.abs(outputs - model(rows)).max() <= TOLERANCES[quantization] * np.abs(model(rows)).max()


@pytest.mark.parametrize("inputs", [62, 63, 66, 130])
@pytest.mark.parametrize("pattern", ["block:1x4", "block:1x16", "unstructured"])
def test_weights_that_the_converter_loses_behind_whole_blocks_are_kept(tmp_path, inputs, pattern):
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(64)])
    tf_lap.prune(model, 0.97, pattern=pattern)
    kernel = model.layers[0].kernel
    last = np.zeros(kernel.shape, np.float32)
    last[-1, 0] = 1e-4  # too small for the check to see
    kernel.assign(np.where(last, last, kernel))
    export(model, tmp_path / "model.tflite")
    (weight,) = tflite.read((tmp_path / "model.tflite").read_bytes()).weights
    np.testing.assert_array_equal(weight.values, kernel.numpy().T)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("litert", [True, False])
def test_either_keras_and_either_interpreter(tmp_path, monkeypatch, flavour, litert):
    model = perceptron(pytest.importorskip(flavour))
    if litert:
        pytest.importorskip("ai_edge_litert")
    else:
        without_litert(monkeypatch)
    tf_lap.prune(model, 0.9, pattern="block:1x4")
    for quantization in TOLERANCES:
        report = export(model, tmp_path / "model.tflite", quantization=quantization)
        assert report.relative_difference <= report.tolerance == TOLERANCES[quantization]
        assert ("ai-edge-litert" in report.runtime) == litert
        assert report.sparse == (quantization is None)


def zeros_in(path, model):
    """For each kernel of Dense or Conv its zeros, in the model and in the file, both outputs first."""
    written = [weight.values for weight in tflite.read(path.read_bytes()).weights]
    for layer in model.layers:
        if isinstance(layer, (layers.Dense, layers.Conv2D)) and not isinstance(layer, layers.DepthwiseConv2D):
            kernel = np.moveaxis(layer.kernel.numpy(), -1, 0)
            # The order of layers in the file is the converter's: where the shape is taken twice, the most alike is it.
            fitting = [values for values in written if values.shape == kernel.shape]
            yield (
                kernel == 0,
                min((values == 0 for values in fitting), key=lambda z: np.count_nonzero(z != (kernel == 0))),
            )


def ragged():
    widths = (63, 66, 8)
    return keras.Sequential([keras.Input((30,)), *(layers.Dense(width, activation="relu") for width in widths)])


@pytest.mark.slow
@pytest.mark.parametrize("make", [perceptron, convolutions, ragged])
@pytest.mark.parametrize("quantization", [F32, INT8], ids=str)
def test_of_2_4_each_group_of_four_inputs_in_the_file_has_two_nonzeros_at_most(tmp_path, make, quantization):
    model, path = make(), tmp_path / "model.tflite"
    tf_lap.prune(model, 0.5, pattern="2:4")
    export(model, path, quantization=quantization)
    kernels = [w.values for w in tflite.read(path.read_bytes()).weights if w.values.shape[0] > 1]
    assert len(kernels) == 3
    for values in kernels:
        rows = values.reshape(-1, values.shape[-1])
        for first in range(0, rows.shape[1], 4):
            assert np.count_nonzero(rows[:, first : first + 4], axis=1).max() == 2
        assert np.count_nonzero(rows) >= 0.45 * values.size


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_zeros_stay_zeros_through_fine_tuning_and_calibration(tmp_path, quantization):
    model, path = convolutions(), tmp_path / "model.tflite"
    x = inputs_of(model, 64)
    y = np.random.default_rng(1).integers(0, 32, 64)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(x, y, epochs=2, verbose=0)
    tf_lap.prune(model, 0.8, pattern="block:1x4", allocation="uniform")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    tf_lap.export_tflite(model, path, quantization=quantization, representative_dataset=x)
    counted = 0
    for zeros, written in zeros_in(path, model):
        assert np.count_nonzero(zeros) >= 0.79 * zeros.size
        assert written[zeros].all()
        counted += 1
    assert counted == 3


def test_a_link_stays_one_and_long_names_are_written(tmp_path):
    model = perceptron()
    (tmp_path / "target").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    report = tf_lap.export_tflite(model, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").stat().st_size == report.file_bytes
    tf_lap.export_tflite(model, tmp_path / ("n" * 255))


def test_a_crash_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    model, path = perceptron(), tmp_path / "model.tflite"
    path.write_text("before")

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no space left"):
        tf_lap.export_tflite(model, path)
    assert path.read_text() == "before"
    assert folder(tmp_path) == ["model.tflite"]


def test_the_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    tf_lap.export_tflite(perceptron(), tmp_path / "model.tflite")
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"quantization": "int4"}, ValueError, "quantization='int4' is not known: use one of"),
        ({"quantization": "int8"}, ValueError, "pass representative_dataset, typical inputs such as"),
        ({"quantization": ["int8"]}, ValueError, "is not known: use one of"),
        ({"sparse": 1}, ValueError, "sparse=1: expected True, False or 'auto'"),
        ({"sparse": "yes"}, ValueError, "sparse='yes': expected True, False or 'auto'"),
        ({"sparse": True}, ValueError, "no tensor has zeros enough"),
        ({"sparse": True, "quantization": "dynamic_range"}, ValueError, "no tensor has zeros enough"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        tf_lap.export_tflite(perceptron(), tmp_path / "m.tflite", **arguments)
    assert folder(tmp_path) == []


def test_a_path_that_cannot_be_written_is_named_first(tmp_path):
    model = perceptron()
    with pytest.raises(IsADirectoryError, match="is a directory: name the file"):
        tf_lap.export_tflite(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        tf_lap.export_tflite(model, tmp_path / "no" / "m.tflite")
    with pytest.raises(TypeError, match=r"expected a keras.Model"):
        tf_lap.export_tflite(tmp_path, tmp_path / "m.tflite")


@pytest.mark.parametrize("form", [os.fspath, os.fsencode])
def test_a_path_of_text_or_bytes_names_the_same_file(tmp_path, form):
    report = tf_lap.export_tflite(perceptron(), form(tmp_path / "m.tflite"))
    assert report.path == tmp_path / "m.tflite"
    assert folder(tmp_path) == ["m.tflite"]
    with pytest.raises(IsADirectoryError, match="is a directory: name the file"):
        tf_lap.export_tflite(perceptron(), form(tmp_path))


def test_what_is_no_path_is_refused():
    with pytest.raises(TypeError, match="path=None: expected a path"):
        tf_lap.export_tflite(perceptron(), None)


def test_sparse_false_writes_zeros_out(tmp_path):
    model = perceptron()
    tf_lap.prune(model, 0.9)
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite", sparse=False)
    assert not report.sparse
    assert report.reason is None
    assert report.file_bytes == report.dense_bytes
