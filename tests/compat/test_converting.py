"""The one way from either Keras to a file, through `compat.converting`."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import converted, convolutions, export, perceptron

import tf_lap
from tf_lap.compat import converting
from tf_lap.tflite import file as tflite

FLAVOURS = pytest.mark.parametrize("flavour", ["keras", "tf_keras"])


def input_shapes(path):
    """The shapes of the inputs in a file, as the interpreter tells them, with -1 where they are open."""
    return [
        list(map(int, entry["shape_signature"]))
        for entry in tf.lite.Interpreter(model_path=str(path)).get_input_details()
    ]


@FLAVOURS
@pytest.mark.parametrize(
    ("model_batch", "batch_size", "expected"), [(None, None, -1), (1, None, 1), (3, None, 3), (None, 2, 2), (2, 2, 2)]
)
def test_the_batch_is_the_models_own_or_the_one_asked_for(tmp_path, flavour, model_batch, batch_size, expected):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((5,), batch_size=model_batch)
    model = flavour.Model(inputs, flavour.layers.Dense(4)(inputs))
    for quantization in (None, "int8"):
        data = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
        report = tf_lap.export_tflite(
            model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=data, batch_size=batch_size
        )
        assert input_shapes(tmp_path / "m.tflite") == [[expected, 5]]
        assert report.batch_size == (None if expected < 0 else expected)
        assert (f"takes batches of {expected} alone" in str(report)) == (expected > 0)
    tf_lap.export_tflite(model, tmp_path / "m.tflite", batch_size=batch_size)
    assert input_shapes(tmp_path / "m.tflite") == [[expected, 5]]


@pytest.mark.slow
@FLAVOURS
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("is_open", [False, True])
def test_recurrent_layers_are_exported_with_a_fixed_batch(tmp_path, flavour, kind, is_open):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((6, 4), batch_size=None if is_open else 1)
    hidden = getattr(flavour.layers, kind)(5, name="memory")(inputs)
    model = flavour.Model(inputs, flavour.layers.Dense(3, name="head")(hidden))
    if is_open:
        with pytest.raises(tf_lap.ExportError, match=r"uses TensorList.*; pass batch_size=1 .*unroll=True$"):
            tf_lap.export_tflite(model, tmp_path / "m.tflite")
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite", batch_size=1 if is_open else None)
    assert input_shapes(tmp_path / "m.tflite") == [[1, 6, 4]]
    assert report.relative_difference < 1e-5
    assert "head" in {tensor.name for tensor in report.tensors}


@FLAVOURS
def test_the_other_remedy_for_recurrent_layers_helps(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((6, 4))
    model = flavour.Model(inputs, flavour.layers.LSTM(5, unroll=True)(inputs))
    assert tf_lap.export_tflite(model, tmp_path / "m.tflite").relative_difference < 1e-5


@FLAVOURS
def test_another_batch_than_the_models_own_is_refused(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((5,), batch_size=3, name="rows")
    model = flavour.Model(inputs, flavour.layers.Dense(4)(inputs), name="fixed")
    with pytest.raises(ValueError, match="batch_size=2: input 'rows' of model 'fixed' has a batch of 3 of its own"):
        tf_lap.export_tflite(model, tmp_path / "m.tflite", batch_size=2)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)]
)
def test_batches_that_are_none_are_refused(tmp_path, size, error):
    with pytest.raises(error, match=r"batch_size=.*expected"):
        tf_lap.export_tflite(perceptron(), tmp_path / "m.tflite", batch_size=size)


@pytest.mark.slow
@FLAVOURS
def test_a_subclassed_model_takes_a_batch_size(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)

    class Network(flavour.Model):
        def __init__(self):
            super().__init__()
            self.only = flavour.layers.Dense(4)

        def call(self, x):
            return self.only(x)

    model = Network()
    x = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    model(x)
    for quantization in (None, "int8"):
        for size, expected in ((None, -1), (np.int64(2), 2)):
            tf_lap.export_tflite(
                model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=x, batch_size=size
            )
            assert input_shapes(tmp_path / "m.tflite") == [[expected, 6]]


def test_a_subclassed_model_with_two_inputs_is_refused_with_the_remedy(tmp_path):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.only = keras.layers.Dense(4)

        def call(self, x):
            return self.only(x[0]) + self.only(x[1])

    model = Network()
    model([np.ones((2, 6), np.float32)] * 2)
    with pytest.raises(ValueError, match=r"subclassed model with 2 inputs.*wrap it into a Functional model"):
        tf_lap.export_tflite(model, tmp_path / "m.tflite")
    inputs = [keras.Input((6,), name="a"), keras.Input((6,), name="b")]
    tf_lap.export_tflite(keras.Model(inputs, model(inputs)), tmp_path / "m.tflite")
    assert input_shapes(tmp_path / "m.tflite") == [[-1, 6], [-1, 6]]


@FLAVOURS
def test_a_batch_that_a_call_left_behind_is_opened_as_the_docstring_says(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    model = flavour.Sequential([flavour.layers.Dense(3), flavour.layers.Dense(2)])
    model(np.ones((40, 6), np.float32))
    assert tf_lap.export_tflite(model, tmp_path / "m.tflite").batch_size == 40
    opened = flavour.Sequential([flavour.Input((6,)), *model.layers])
    assert tf_lap.export_tflite(opened, tmp_path / "m.tflite").batch_size is None


def test_nothing_is_asked_of_keras_own_exporters(tmp_path, monkeypatch):
    """Releases of Keras 3 before "litert" have no exporter of TFLite files, and are served alike."""

    def missing(*_, **__):
        raise ValueError("Unrecognized format='litert'")

    monkeypatch.setattr(keras.Model, "export", missing)
    monkeypatch.setattr(keras.export.ExportArchive, "__init__", missing)
    assert export(perceptron(), tmp_path / "m.tflite").relative_difference < 1e-5
    assert "keras.src" not in inspect.getsource(converting)


def test_outputs_in_a_structure_are_exported(tmp_path):
    inputs = keras.Input((4,))
    first, second = keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)
    model = keras.Model(inputs, {"y": [first, second]})
    assert tf_lap.export_tflite(model, tmp_path / "m.tflite").relative_difference < 1e-5


@FLAVOURS
def test_tracing_leaves_the_model_as_it_was(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((4,))
    hidden = flavour.layers.Dense(3, activity_regularizer="l2")(inputs)
    model = flavour.Model(inputs, flavour.layers.Dropout(0.5)(flavour.layers.BatchNormalization()(hidden)))
    model.compile("sgd", "mse")
    before = [np.array(weight) for weight in model.get_weights()]
    tf_lap.export_tflite(model, tmp_path / "m.tflite")
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)
    model.fit(np.ones((8, 4), np.float32), np.ones((8, 3), np.float32), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "pattern"),
    [(None, "block:1x4"), ("float16", "unstructured"), ("dynamic_range", "block:1x16"), ("int8", "block:1x16")],
)
def test_leaving_zeros_out_of_a_file_is_what_the_converters_own_switch_does(monkeypatch, quantization, pattern):
    model = convolutions()
    tf_lap.prune(model, 0.8, pattern=pattern)
    passed = converted(model, quantization, sparse=True)
    honest = converting.convert

    def convert(program, settings):
        return honest(
            program, {**settings, "optimizations": [*settings["optimizations"], tf.lite.Optimize.EXPERIMENTAL_SPARSITY]}
        )

    monkeypatch.setattr(converting, "convert", convert)
    switched = converted(model, quantization)
    tensors = [
        sorted(
            (weight.name, weight.values.shape, weight.block, weight.densified, weight.values.tobytes())
            for weight in tflite.read(file).weights
        )
        for file in (passed, switched)
    ]
    assert tensors[0] == tensors[1]
    assert any(block for _, _, block, _, _ in tensors[0])
    assert len(passed) <= len(switched)
