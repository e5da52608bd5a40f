"""From a file to a smaller TFLite file by commands alone: inspect, prune, shrink, export, compare."""

import json
import os

import keras
import numpy as np
import pytest

from tf_lap.cli import main


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Takes back what the command sets for its own process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)


def residual():
    def unit(x, width, stride):
        y = keras.layers.Conv2D(width, 1, strides=stride, use_bias=False)(x)
        y = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(y))
        y = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
        y = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(y))
        y = keras.layers.BatchNormalization()(keras.layers.Conv2D(4 * width, 1, use_bias=False)(y))
        if x.shape[-1] != 4 * width or stride > 1:
            x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4 * width, 1, strides=stride)(x))
        return keras.layers.Activation("relu")(keras.layers.Add()([x, y]))

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(8, 7, strides=2, padding="same", activation="relu")(inputs))
    for width, stride in ((4, 1), (4, 1), (8, 2), (8, 1)):
        x = unit(x, width, stride)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def mobile():
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10)


def recurrent():
    inputs = keras.Input((12, 6), batch_size=1)
    x = keras.layers.LSTM(16, return_sequences=True)(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.LSTM(16)(x)))


def bert():
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=8
    )
    inputs = {
        tensor.name: keras.Input((8,), batch_size=1, dtype="int32", name=tensor.name) for tensor in backbone.inputs
    }
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(backbone(inputs)["pooled_output"]))


def run(capsys, *args):
    code = main.main([*args, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tf_lap.warn.PruningWarning")
@pytest.mark.parametrize(
    ("build", "budget", "options"),
    [
        (residual, "weights=0.7", []),
        (mobile, "weights=0.7", []),
        (recurrent, "weights=0.7", []),
        (bert, "weights=0.97", ["--custom", "keras_hub"]),  # all of its residual stream stays
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_from_a_model_to_a_file(build, budget, options, capsys):
    model = build()
    model.save("model.keras")
    rng = np.random.default_rng(0)
    arrays = {}
    for tensor in model.inputs:
        shape = (4, *tensor.shape[1:])
        is_float = "float" in str(tensor.dtype)
        arrays[tensor.name] = rng.standard_normal(shape).astype(np.float32) if is_float else rng.integers(0, 2, shape)
    if len(arrays) == 1:
        arrays = {"x": next(iter(arrays.values()))}
    np.savez("x.npz", **arrays)
    inspected = run(capsys, "inspect", "model.keras", *options)
    assert inspected["kernels"]["layers"]
    assert any(not group["blocked"] for group in inspected["channel_groups"])
    channels = ["--pattern", "channels", "--budget", budget]
    pruned = run(capsys, "prune", "model.keras", "-o", "narrow.keras", *channels, *options)
    assert pruned["report"]["sparsity"] > 0
    shrunk = run(capsys, "shrink", "narrow.keras", "-o", "small.keras", "--data", "x.npz", *options)
    before, after = shrunk["report"]["weights"]
    assert after < before
    exported = run(capsys, "export", "small.keras", "-o", "small.tflite", "--data", "x.npz", *options)
    assert exported["file_bytes"] == os.path.getsize("small.tflite")
    compared = run(capsys, "compare", "narrow.keras", "small.tflite", "--data", "x.npz", "--no-latency", *options)
    assert compared["models"][1]["value"] == 1.0  # the file answers as the pruned model does
