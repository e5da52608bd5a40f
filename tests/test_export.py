import contextlib
import os
import re
import stat

import keras
import numpy as np
import pytest
from exported import INTERPRETERS, answers, convolutions, inputs_of, perceptron, without_litert

import tf_lap
from tf_lap.compat import exporting
from tf_lap.export import file as tflite
from tf_lap.export.check import TOLERANCES

layers = keras.layers

PATTERNS = [
    (None, 0.0),
    ("unstructured", 0.5),
    ("unstructured", 0.9),
    ("2:4", 0.5),
    ("block:1x4", 0.8),
    ("block:4x4", 0.9),
]


def export(model, path, **arguments):
    return tf_lap.export_tflite(model, path, representative_dataset=inputs_of(model), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS, ids=str)
@pytest.mark.parametrize("quantization", list(TOLERANCES), ids=str)
def test_every_quantization_of_every_pattern_does_what_keras_does_or_is_refused(
    tmp_path, quantization, pattern, sparsity
):
    model, path = convolutions(), tmp_path / "model.tflite"  # with a Dense layer at its end
    if pattern:
        tf_lap.prune(model, sparsity, pattern=pattern)
    x = inputs_of(model, 4)
    expected = model.predict_on_batch(x)
    report = export(model, path, quantization=quantization)
    files = [path.read_bytes()]
    if report.sparse:
        assert report.file_bytes < report.dense_bytes
        assert report.reason is None
        export(model, path, quantization=quantization, sparse=True)
        assert path.read_bytes() == files[0]
    else:
        assert report.file_bytes == report.dense_bytes
        refused_for_its_size = report.reason == "a sparse file is larger"
        refusal = pytest.raises(ValueError, match=re.escape(report.reason))
        with contextlib.nullcontext() if refused_for_its_size else refusal:
            export(model, path, quantization=quantization, sparse=True)
        files.append(path.read_bytes())
        assert refused_for_its_size or files[1] == files[0]
    for interpreter in INTERPRETERS.values():
        for file in files:
            found = answers(file, x, interpreter)
            assert np.abs(found - expected).max() <= TOLERANCES[quantization] * np.abs(expected).max()
    if sparsity >= 0.8:
        whole = quantization is None or (quantization == "float16" and pattern == "unstructured")
        assert report.sparse == whole


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


@pytest.mark.parametrize("make", [perceptron, convolutions])
@pytest.mark.parametrize("quantization", list(TOLERANCES), ids=str)
def test_of_2_4_each_group_of_four_inputs_in_the_file_has_two_nonzeros_at_most(tmp_path, make, quantization):
    model, path = make(), tmp_path / "model.tflite"
    tf_lap.prune(model, 0.5, pattern="2:4")
    export(model, path, quantization=quantization)
    kernels = [w.values for w in tflite.read(path.read_bytes()).weights if w.name.count("depthwise") == 0]
    assert len(kernels) == 3
    for values in kernels:
        groups = np.reshape(values, (-1, 4))
        assert np.count_nonzero(groups, axis=1).max() == 2
        assert np.count_nonzero(groups) >= 0.45 * values.size


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_zeros_stay_zeros_through_fine_tuning_and_calibration(tmp_path, quantization):
    model, path = convolutions(), tmp_path / "model.tflite"
    x = inputs_of(model, 64)
    y = np.random.default_rng(1).integers(0, 32, 64)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(x, y, epochs=2, verbose=0)
    tf_lap.prune(model, 0.8, pattern="block:1x4")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[tf_lap.PreserveSparsity()])
    tf_lap.export_tflite(model, path, quantization=quantization, representative_dataset=x)
    counted = 0
    for ours, written in zeros_in(path, model):
        assert np.count_nonzero(ours) >= 0.79 * ours.size
        assert written[ours].all()
        counted += 1
    assert counted == 3


def test_several_inputs_and_outputs_are_told_apart_by_name(tmp_path):
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((6,), name="alpha")
    number = keras.Input((5,), dtype="int32", name="mid")
    embedded = layers.Flatten()(layers.Embedding(2, 3)(number))
    x = layers.Concatenate()([layers.Dense(3)(zeta), layers.Dense(4)(alpha), embedded])
    two, five = layers.Dense(5, name="b")(x), layers.Dense(5, name="a")(x)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((20, 4)), rng.standard_normal((20, 6)), rng.integers(0, 2, (20, 5))]
    keys = {"z": zeta, "a": alpha, "m": number}
    given = [arrays, dict(zip(("zeta", "alpha", "mid"), arrays, strict=True)), dict(zip(keys, arrays, strict=True))]
    models = [keras.Model([zeta, alpha, number], [two, five]), keras.Model(keys, {"x": two, "w": five})]
    for model, data in ((models[0], given[0]), (models[0], given[1]), (models[1], given[1]), (models[1], given[2])):
        for quantization in (None, "int8"):
            report = tf_lap.export_tflite(
                model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=data
            )
            assert report.relative_difference < (0.1 if quantization else 1e-5)


def test_a_subclassed_model_is_exported(tmp_path):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(32, activation="relu"), layers.Dense(4)

        def call(self, x):
            return self.second(self.first(x))

    model = Network()
    x = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    model(x)
    for quantization in (None, "int8"):
        report = tf_lap.export_tflite(model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=x)
        assert report.relative_difference < (0.1 if quantization else 1e-5)
    tf_lap.export_tflite(model, tmp_path / "m.tflite")


def test_open_dimensions_and_a_fixed_batch_are_filled(tmp_path):
    inputs = keras.Input((None, None, 3))
    tf_lap.export_tflite(keras.Model(inputs, layers.Conv2D(4, 3)(inputs)), tmp_path / "open.tflite")
    legacy = pytest.importorskip("tf_keras")
    inputs = legacy.Input((5,), batch_size=3)
    model = legacy.Model(inputs, legacy.layers.Dense(2)(inputs))
    data = np.ones((10, 5), np.float32)
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite", quantization="int8", representative_dataset=data)
    assert report.relative_difference < 0.1


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_exported_in_float32_and_left_as_it_was(tmp_path, flavour, policy):
    flavour = pytest.importorskip(flavour)
    flavour.mixed_precision.set_global_policy(policy)
    try:
        model = convolutions(flavour)
    finally:
        flavour.mixed_precision.set_global_policy("float32")
    x = inputs_of(model, 4)
    policies = [layer.compute_dtype for layer in model.layers]
    assert policy.removeprefix("mixed_") in policies
    before = np.asarray(model(x)).astype(np.float32)
    tf_lap.prune(model, 0.9)
    half = np.asarray(model(x)).astype(np.float32)
    assert np.abs(before - half).max() > 0
    for quantization in (None, "int8"):
        export(model, tmp_path / "m.tflite", quantization=quantization)
    np.testing.assert_array_equal(np.asarray(model(x)).astype(np.float32), half)
    assert [layer.compute_dtype for layer in model.layers] == policies


def test_weights_in_half_precision_are_refused_with_the_remedy(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="float16", name="half")])
    with pytest.raises(ValueError, match=r"layer 'half' has weights in float16.*set_weights"):
        tf_lap.export_tflite(model, tmp_path / "m.tflite")


def test_tfmots_wrappers_are_stripped(tmp_path):
    legacy = pytest.importorskip("tf_keras")
    schedule = tf_lap.LookaheadPruningSchedule(0.9, decay="constant")
    model = tf_lap.prune_lookahead(perceptron(legacy), pruning_schedule=schedule)
    import tensorflow_model_optimization as tfmot

    model.compile("sgd", "mse")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.fit(inputs_of(model, 320), np.zeros((320, 8)), verbose=0, epochs=11, callbacks=callbacks)
    wrapped = model.predict_on_batch(inputs_of(model, 4))
    report = tf_lap.export_tflite(model, tmp_path / "model.tflite")
    assert report.sparse
    assert {round(tensor.sparsity, 2) for tensor in report.tensors} == {0.9}
    assert all(isinstance(layer, tf_lap.PrunableLayer) for layer in model.layers)
    np.testing.assert_array_equal(model.predict_on_batch(inputs_of(model, 4)), wrapped)


def folder(path):
    return sorted(entry.name for entry in path.iterdir())


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


def test_a_model_that_answers_nan_is_refused(tmp_path):
    model = perceptron()
    model.get_layer("first").kernel.assign(np.full((64, 64), np.nan))
    with pytest.raises(ValueError, match="output 'output_0' of the Keras model itself is NaN"):
        tf_lap.export_tflite(model, tmp_path / "model.tflite")
    assert folder(tmp_path) == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (keras.ops.tan, "model 'unusual' uses Tan, for which TFLite has no operation"),
        (keras.ops.arcsinh, "cannot convert model 'unusual' to TFLite: .*; Custom ops: Asinh$"),
    ],
)
def test_operations_that_tflite_lacks_are_named(tmp_path, function, message):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, function(layers.Dense(3)(inputs)), name="unusual")
    with pytest.raises(tf_lap.ExportError, match=message):
        tf_lap.export_tflite(model, tmp_path / "m.tflite")
    assert folder(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"quantization": "int4"}, ValueError, "quantization='int4' is not known: use one of"),
        ({"quantization": "int8"}, ValueError, "pass representative_dataset, typical inputs such as"),
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


def test_sparse_false_writes_zeros_out(tmp_path):
    model = perceptron()
    tf_lap.prune(model, 0.9)
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite", sparse=False)
    assert not report.sparse
    assert report.reason is None
    assert report.file_bytes == report.dense_bytes
