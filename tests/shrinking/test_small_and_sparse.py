"""Channels go first; what is left is pruned by any other pattern, and exported."""

import keras
import numpy as np
import pytest

import tf_lap
from tests.helpers.residual import residual


def make_small():
    """A residual network without half of its channels."""
    model = residual(keras.layers, keras)
    tf_lap.prune(model, 0.5, pattern="channels")
    return tf_lap.shrink(model)


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("unstructured", 0.8), ("2:4", 0.5), ("block:1x4", 0.5), ("channels", 0.5)]
)
def test_what_shrink_leaves_is_pruned_by_any_pattern(pattern, sparsity):
    small = make_small()
    assert small.get_layer("stem").kernel.shape[-1] == 4
    report = tf_lap.prune(small, sparsity, pattern=pattern)
    assert report.sparsity > 0.35
    if pattern == "channels":
        assert tf_lap.shrink(small).get_layer("stem").kernel.shape[-1] == 2


def test_training_with_another_pattern_goes_on_from_the_smaller_model():
    model = residual(keras.layers, keras)
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    y = np.zeros((64, 4), np.float32)
    model.fit(x, y, 16, verbose=0, callbacks=[tf_lap.LAPCallback(0.5, pattern="channels")])
    small = tf_lap.shrink(model)
    assert int(small.optimizer.iterations) == 4
    pruning = tf_lap.LAPCallback(0.75, pattern="block:1x4", allocation="uniform")
    small.fit(x, y, 16, epochs=5, verbose=0, callbacks=[pruning])
    assert pruning.report.sparsity > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [None, "dynamic_range", "float16", "int8"])
@pytest.mark.parametrize(("pattern", "sparsity"), [(None, 0), ("unstructured", 0.8), ("2:4", 0.5), ("block:1x4", 0.5)])
def test_all_of_it_is_exported(tmp_path, quantization, pattern, sparsity):
    small = make_small()
    if pattern is not None:
        tf_lap.prune(small, sparsity, pattern=pattern)
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    file = tmp_path / "small.tflite"
    # The export compares the file with the model, and raises where they differ.
    tf_lap.export_tflite(small, file, quantization=quantization, representative_dataset=x, verbose=0)
    whole = tmp_path / "whole.tflite"
    tf_lap.export_tflite(
        residual(keras.layers, keras), whole, quantization=quantization, representative_dataset=x, verbose=0
    )
    assert file.stat().st_size < whole.stat().st_size
