import keras
import numpy as np
import pytest
from exported import convolutions, equal_speed, perceptron  # noqa: F401  (one is a fixture)

import tf_lap
from tf_lap.tflite import file as tflite

pytestmark = pytest.mark.usefixtures("equal_speed")


def written(model, tmp_path, **arguments):
    tf_lap.export_tflite(model, tmp_path / "model.tflite", **arguments)
    return tflite.read((tmp_path / "model.tflite").read_bytes()).weights


@pytest.mark.parametrize("make", [perceptron, convolutions])
@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", 0.0), ("unstructured", 0.9), ("block:1x4", 0.9)])
def test_values_are_the_kernels_whatever_the_encoding(tmp_path, make, pattern, sparsity):
    model = make()
    tf_lap.prune(model, sparsity, pattern=pattern)
    weights = written(model, tmp_path)
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)) and "conv" not in layer.name:
            kernel = np.moveaxis(layer.kernel.numpy(), -1, 0)
            assert any(w.values.shape == kernel.shape and np.array_equal(w.values, kernel) for w in weights), layer.name
    sparse = [weight for weight in weights if weight.block]
    assert len(sparse) == (3 if sparsity else 0)
    for weight in sparse:
        # Of blocks only fully connected layers make use.
        blocks = pattern == "block:1x4" and weight.values.ndim == 2
        assert (weight.encoding, weight.densified) == (("sparse blocks 1x4", False) if blocks else ("sparse", True))


def test_a_row_without_weights_and_wide_rows_are_read(tmp_path):
    model = keras.Sequential([keras.Input((600,)), keras.layers.Dense(20)])
    kernel = np.zeros((600, 20), np.float32)
    kernel[::37, ::3] = np.random.default_rng(0).standard_normal((17, 7))
    model.layers[0].kernel.assign(kernel)
    (weight,) = written(model, tmp_path)
    assert weight.encoding != "dense"
    np.testing.assert_array_equal(weight.values, kernel.T)


def test_very_sparse_kernels_are_stored_in_blocks_whatever_the_pattern(tmp_path):
    model = perceptron()
    tf_lap.prune(model, 0.996)
    assert {weight.encoding for weight in written(model, tmp_path)} == {"sparse blocks 1x4"}


def test_an_encoding_of_another_form_is_refused():
    class Form:
        def __init__(self, **parts):
            self.__dict__ = parts

    dense, sparse = Form(format=0, denseSize=4), Form(format=1, denseSize=0)
    forms = [
        Form(dimMetadata=[sparse, dense], blockMap=None, traversalOrder=[0, 1]),
        Form(dimMetadata=[dense, sparse], blockMap=None, traversalOrder=[1, 0]),
        Form(dimMetadata=[dense, sparse, dense], blockMap=[0], traversalOrder=[0, 1, 2]),
    ]
    for form in forms:
        with pytest.raises(ValueError, match="tensor 'kernel' has a sparse encoding that is not known"):
            tflite._decode("kernel", np.ones(4, np.float32), (4, 4), form)
