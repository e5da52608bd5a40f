"""tfmot's collaborative steps after lookahead pruning: the zeros are still there in the int8 file."""

import numpy as np
import pytest
import tensorflow as tf
from wrapped import at_once, compiled, layers, sparsity, tf_keras, tfmot

import tf_lap

quantization = tfmot.quantization.keras
combine = tfmot.experimental.combine
SPARSITY = 0.8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:(?s).*use the LiteRT interpreter"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected"),
]


def images():
    rng = np.random.default_rng(0)
    return rng.standard_normal((96, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, 96)


def fit(model, *callbacks):
    compiled(model, tf_keras.optimizers.Adam(0.01))
    model.fit(*images(), batch_size=16, epochs=2, callbacks=list(callbacks), verbose=0)
    return model


@pytest.fixture(scope="module")
def pruned():
    stack = [
        layers.Input((8, 8, 1)),
        layers.Conv2D(8, 3, activation="relu", name="conv"),
        layers.Flatten(),
        layers.Dense(24, activation="relu", name="hidden"),
        layers.Dense(10, name="head"),
    ]
    wrapped = tf_lap.prune_lookahead(tf_keras.Sequential(stack), at_once(SPARSITY))
    return sparsity.strip_pruning(fit(wrapped, sparsity.UpdatePruningStep()))


def zeros(model):
    """The number of zeros in each kernel, by the kernel's size."""
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    return {kernel.size: int(np.sum(kernel == 0)) for kernel in kernels}


def zeros_in_file(model, sizes):
    """The same in the int8 tensors of the converted model."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    found = {}
    for tensor in interpreter.get_tensor_details():
        size = int(np.prod(tensor["shape"]))
        if tensor["dtype"] is np.int8 and size in sizes:
            assert not np.any(tensor["quantization_parameters"]["zero_points"])
            found[size] = int(np.sum(interpreter.get_tensor(tensor["index"]) == 0))
    return found


def test_sparsity_preserving_quantization_aware_training(pruned):
    before = zeros(pruned)
    annotated = quantization.quantize_annotate_model(pruned)
    scheme = combine.Default8BitPrunePreserveQuantizeScheme()
    aware = fit(quantization.quantize_apply(annotated, scheme))
    found = zeros_in_file(aware, before)
    assert found.keys() == before.keys()
    assert all(found[size] >= before[size] for size in before)
    assert before == {size: size - max(1, round(size * (1 - SPARSITY))) for size in before}


def test_sparsity_and_cluster_preserving_quantization_aware_training(pruned):
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import cluster_weights

    before = zeros(pruned)
    centroids = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    clustered = cluster_weights(pruned, number_of_clusters=8, cluster_centroids_init=centroids, preserve_sparsity=True)
    clustered = tfmot.clustering.keras.strip_clustering(fit(clustered))
    assert all(len(np.unique(layer.kernel)) <= 9 for layer in clustered.layers if hasattr(layer, "kernel"))
    scheme = combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    aware = fit(quantization.quantize_apply(quantization.quantize_annotate_model(clustered), scheme))
    found = zeros_in_file(combine.strip_clustering_cqat(aware), before)
    assert found.keys() == before.keys()
    assert all(found[size] >= before[size] for size in before)
