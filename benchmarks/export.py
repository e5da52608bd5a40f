"""How long `export_tflite` takes, with all that it checks, against TensorFlow's converter alone."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from benchmarks import measure
from tf_lap.compat.exporting import expected_warnings

SPARSITY, SAMPLES, ROUNDS = 0.9, 32, 3
CHOICES = ((None, False), (None, "auto"), ("int8", False), ("int8", "auto"))


def network() -> keras.Model:
    """MobileNet with random weights, up to its logits. The probabilities of random weights are alike, and 0 in int8."""
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNet(weights=None, classifier_activation=None)


def convert_alone(model: keras.Model, quantization: str | None, samples: np.ndarray) -> bytes:
    """The file that TensorFlow's converter makes of a model."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantization == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # Keras prints every variable of what it saves.
    with contextlib.redirect_stdout(io.StringIO()), expected_warnings():
        return converter.convert()


def cpu_seconds(function: Callable[[], Any]) -> float:
    """The processor time of a call, in seconds, all threads together."""
    start = time.process_time()
    function()
    return time.process_time() - start


def run() -> dict[str, Any]:
    """Times each choice and the converter alone by turns."""
    model = network()
    tf_lap.prune(model, SPARSITY, allocation="uniform")
    samples = np.random.default_rng(0).random((SAMPLES, *model.input_shape[1:]), np.float32)
    times: measure.Times = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        convert_alone(model, None, samples)  # the first conversion of a process loads libraries
        for _ in range(ROUNDS):
            for quantization in dict.fromkeys(quantization for quantization, _ in CHOICES):
                seconds = cpu_seconds(lambda chosen=quantization: convert_alone(model, chosen, samples))
                times.setdefault(f"{quantization} alone", []).append(seconds)
            for quantization, sparse in CHOICES:
                seconds = cpu_seconds(
                    lambda chosen=quantization, sparse=sparse: tf_lap.export_tflite(
                        model, path, quantization=chosen, sparse=sparse, representative_dataset=samples, verbose=0
                    )
                )
                times.setdefault(f"{quantization}, sparse={sparse!r}", []).append(seconds)
    return {
        "what": f"export_tflite of MobileNet at sparsity {SPARSITY}, processor time; ratio to TFLiteConverter's "
        f"from_keras_model and convert; int8 is calibrated with {SAMPLES} samples; {ROUNDS} rounds by turns",
        "milliseconds": measure.milliseconds(times),
        "ratios": {
            f"{quantization or 'float32'}, sparse={sparse!r}": measure.ratio(
                times, f"{quantization}, sparse={sparse!r}", f"{quantization} alone"
            )
            for quantization, sparse in CHOICES
        },
    }
