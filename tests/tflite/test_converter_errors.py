"""Errors on the way to a file: the sentence that matters is in ours."""

import keras
import pytest
import tensorflow as tf
from exported import folder, inputs_of, perceptron

import tf_lap
from tf_lap.compat import exporting
from tf_lap.tflite.converter_errors import explain

layers = keras.layers


def refused(model, tmp_path, **arguments):
    with pytest.raises(tf_lap.ExportError) as caught:
        tf_lap.export_tflite(model, tmp_path / "m.tflite", **arguments)
    assert folder(tmp_path) == []
    text = str(caught.value)
    assert len(text) < 1000
    for noise in ("StatefulPartitionedCall", "loc(", "called from", "Arguments received", "\x1b", "\n"):
        assert noise not in text
    return text


def with_operation(function, flavour=keras):
    inputs = flavour.Input((4,))
    hidden = flavour.layers.Dense(3, name="hidden")(inputs)
    return flavour.Model(inputs, flavour.layers.Lambda(function, name="odd")(hidden), name="unusual")


def quantized(mode):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, name="hidden"), layers.Dense(3, name="head")])
    tf_lap.prune(model, 0.5)
    model.quantize(mode)
    return model


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("int8", "BatchMatMulV3 in layer 'hidden': 'tfl.fully_connected' op operand #0 must be tensor of 32-bit float"),
        ("float8", "Failed to convert element type 'f8E4M3FN': Unsupported type"),
    ],
)
def test_of_a_quantized_model_the_converters_reason_and_the_remedy_are_told(tmp_path, mode, sentence):
    text = refused(quantized(mode), tmp_path)
    assert sentence in text
    assert "model.quantize() has changed layers 'hidden', 'head': export before quantize()" in text


def test_the_remedy_for_quantized_models_helps(tmp_path):
    model = perceptron()
    for quantization in ("int8", "dynamic_range"):
        report = tf_lap.export_tflite(
            model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=inputs_of(model)
        )
        assert "int8" in {tensor.dtype for tensor in report.tensors}


def test_models_that_were_not_quantized_are_not_said_to_be():
    assert exporting.quantized_layers(perceptron()) == []


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (tf.asinh, "'tf.Asinh' op is neither a custom op nor a flex op; Custom ops: Asinh"),
        (lambda x: tf.ensure_shape(tf.py_function(lambda v: v, [x], tf.float32), (None, 3)), "Custom ops: EagerPyFunc"),
        (tf.tan, "model 'unusual' uses Tan, for which TFLite has no operation of its own"),
        (lambda x: tf.linalg.qr(tf.reshape(x, (-1, 3, 1)))[0], "uses Qr, for which TFLite has no operation of its own"),
    ],
)
def test_operations_that_tflite_lacks_are_named(tmp_path, flavour, function, sentence):
    assert sentence in refused(with_operation(function, pytest.importorskip(flavour)), tmp_path)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_what_a_layers_own_code_says_is_told(tmp_path, flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((4,))

    class Picky(flavour.layers.Layer):
        ready = False

        def call(self, x):
            if self.ready:
                raise RuntimeError("three keys are missing")
            return x

        def compute_output_shape(self, shape):
            return shape

    picky = Picky()
    model = flavour.Model(inputs, picky(inputs), name="unusual")
    picky.ready = True
    text = refused(model, tmp_path)
    assert "cannot convert model 'unusual'" in text
    assert "Exception encountered when calling" in text
    assert "three keys are missing" in text


def test_calibration_of_what_cannot_be_quantized_is_told(tmp_path):
    model = with_operation(tf.asinh)
    text = refused(model, tmp_path, quantization="int8", representative_dataset=tf.ones((8, 4)).numpy())
    assert "Asinh" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "RuntimeError"),
        ("plain words", "plain words"),
        (
            'x.<unknown>:0: error: loc(callsite(fused["A:", "m/a/A@f(1)"] at fused["B:", "b"])): bad\n'
            "<unknown>:0: error: and so on",
            "A in layer 'enc/a': bad",
        ),
        ("/some/file.py:3:1: error: first\n  code\n^\n/some/file.py:3:1: error: second", "first"),
        ("<unknown>:0: error: first\nTF Select ops: Tan, Qr\nmore", "first; TF Select ops: Tan, Qr"),
        (
            'in user code:\n\n    File "/a.py", line 1, in f  *\n        return x\n'
            '    File "/b.py", line 2, in g\n        call()\n\n    ValueError: one\n    two\n',
            "ValueError: one two",
        ),
        ("Exception encountered.\n\n\x1b[1mThe cause\x1b[0m\n\nArguments received by X.call():\n  • x=1", None),
    ],
)
def test_every_form_is_reduced_to_its_reason(text, told):
    assert explain(RuntimeError(text), {"m/a/A": "enc/a"}) == (told or "Exception encountered. The cause")
