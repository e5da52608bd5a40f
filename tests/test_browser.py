"""Every sparse file that the export writes loads, runs and agrees in LiteRT.js, where XNNPACK's sparse path is."""

import keras
import numpy as np
import pytest
from mobile import WIDTH, make_mobile, set_zeros

import tf_lap
from benchmarks.browser import difference, export
from benchmarks.browser.runtime import find_obstacle, run_in_browser

OBSTACLE = find_obstacle()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))]


def gate(x):
    scale = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = keras.layers.Conv2D(WIDTH, 1, activation="relu", name="pointwise_squeeze")(scale)
    scale = keras.layers.ReLU(6.0)(keras.layers.Conv2D(WIDTH, 1, name="pointwise_excite")(scale))
    return keras.layers.Multiply()([x, keras.layers.Rescaling([[[[1 / 6]]]])(scale)])


def resize(x):
    return keras.layers.UpSampling2D(2, interpolation="bilinear")(x)


def halve(x):
    return keras.layers.DepthwiseConv2D(5, strides=2)(keras.layers.ZeroPadding2D(2)(x))


def add(x):
    return keras.layers.Add()([x, keras.layers.Activation("swish")(x)])


BETWEEN = {"plain": None, "gate": gate, "resize": resize, "halve": halve, "add": add}


def image(size=32):
    return np.random.default_rng(0).standard_normal((1, size, size, 3)).astype(np.float32)


def test_sparse_files_answer_as_keras_does():
    files, inputs, expected = {}, {}, {}
    for name, between in BETWEEN.items():
        model = make_mobile(keras, between=between)
        set_zeros(model, 0.9, ("pointwise", "head"))
        assert tf_lap.device_report(model).runs_sparse
        for quantization in (None, "float16"):
            label = f"{name}, {quantization}"
            files[label], key = export(model, sparse=True, quantization=quantization)
            inputs[label], expected[label] = {key: image()}, model(image()).numpy()
    for label, run in run_in_browser(files, inputs).items():
        assert run.error is None, label
        assert difference(run, expected[label]) < (1e-2 if "float16" in label else 1e-4), label


@pytest.mark.parametrize("sparse", [True, False])
def test_the_report_predicts_which_file_is_fast(sparse):
    model = make_mobile(keras, blocks=6, size=96, stem="symmetric" if sparse else "same", between=widen)
    set_zeros(model, 0.95, ("pointwise", "wide", "head"))
    assert tf_lap.device_report(model).runs_sparse == sparse
    files, inputs = {}, {}
    for kind in (True, False):
        files[str(kind)], key = export(model, sparse=kind)
        inputs[str(kind)] = {key: image(96)}
    runs = run_in_browser(files, inputs, rounds=50, repeats=3)
    ratio = min(runs["True"].milliseconds) / min(runs["False"].milliseconds)
    assert ratio < 0.7 if sparse else ratio > 0.8


def widen(x):
    for number in range(3):
        x = keras.layers.Conv2D(256, 1, activation="relu", name=f"wide_{number}")(x)
    return x
