"""Models to export, and TFLite files run by hand: apart from the package, so that both can be compared."""

import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.compat import converting, exporting
from tf_lap.export import runtime
from tf_lap.export.convert import convert
from tf_lap.export.progress import Progress

try:
    from ai_edge_litert.interpreter import Interpreter as LiteRT
except ImportError:
    LiteRT = None

INTERPRETERS = {"tensorflow": tf.lite.Interpreter, **({"litert": LiteRT} if LiteRT else {})}


def perceptron(flavour=keras):
    dense = flavour.layers.Dense
    layers = [
        flavour.Input((64,)),
        dense(64, activation="relu", name="first"),
        dense(64, activation="relu", name="second"),
    ]
    return flavour.Sequential([*layers, dense(8, name="head")])


def convolutions(flavour=keras):
    layers = flavour.layers
    inputs = flavour.Input((8, 8, 8))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(32, 1, activation="relu", name="pointwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return flavour.Model(inputs, layers.Dense(32, name="head")(x))


def inputs_of(model, samples=32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((samples, *model.input_shape[1:])).astype(np.float32)


def answers(file, x, interpreter):
    """What a file answers to inputs of a model with one input and one output."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*use the LiteRT interpreter from the ai_edge_litert", UserWarning)
        loaded = interpreter(model_content=file)
    loaded.allocate_tensors()
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()
    outputs = []
    for row in x:
        loaded.set_tensor(source["index"], row[np.newaxis])
        loaded.invoke()
        outputs.append(loaded.get_tensor(target["index"])[0])
    return np.array(outputs)


def without_litert(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)


def export(model, path, **arguments):
    return tf_lap.export_tflite(model, path, representative_dataset=inputs_of(model), **arguments)


def folder(path):
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture
def equal_speed(monkeypatch):
    """Every file takes one millisecond, so that what is chosen does not depend on the machine."""
    timing = runtime.Timing(1.0, 1.0, 1.0)
    monkeypatch.setattr(runtime, "time_in_turn", lambda interpreters, sample, rounds: [timing] * len(interpreters))


def converted(model, quantization=None, sparse=False, batch_size=None):
    """A file as the converter writes it, whatever is wrong with it."""
    inputs = exporting.signature(model, batch_size)
    samples = [[row[np.newaxis]] for row in inputs_of(model)]
    with converting.save_program(model, inputs) as program:
        file = convert(model, program, inputs, samples, quantization, Progress("a test", verbose=False))
    return converting.without_zeros(file) if sparse else file
