"""tf_keras models are served by the same code, with the same masks bit for bit."""

import itertools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from replicas import two_replicas

import tf_lap
from tf_lap.graph.resolver import resolve
from tf_lap.pruning.constraints import MaskConstraint

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
layers = tf_keras.layers
SIZES = {"first": 16 * 24, "second": 24 * 24, "head": 24 * 10}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "DenseNet121"])
def test_masks_are_those_of_keras_3_bit_for_bit(name):
    keras_model = getattr(keras.applications, name)(weights=None, classes=10)
    tf_keras_model = getattr(tf_keras.applications, name)(weights=None, classes=10)
    tf_keras_model.set_weights(keras_model.get_weights())
    first, second = tf_lap.Pruner(keras_model), tf_lap.Pruner(tf_keras_model)
    for pruner in (first, second):
        pruner.update(0.9)
    # Layers are in the same order; some of DenseNet's have other names.
    for (path, mask), other in zip(first.masks.items(), second.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, other, err_msg=path)
    for weights, expected in zip(tf_keras_model.get_weights(), keras_model.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected)


def attend(namespace, x):
    return namespace.layers.MultiHeadAttention(2, 3, value_dim=4, name="layer")(x, x)


def attend_without_kernels(namespace, x):
    query, value, key = (namespace.layers.Dense(4, name=name)(x) for name in ("query", "value", "key"))
    return namespace.layers.Attention(use_scale=True, name="layer")([query, value, key])


def run_both_ways(namespace, x):
    inner = namespace.layers.LSTM(3, return_sequences=True, name="lstm")
    return namespace.layers.Bidirectional(inner, name="layer")(x)


def run_stacked_cells(namespace, x):
    cells = [namespace.layers.LSTMCell(4, name="lstm"), namespace.layers.GRUCell(3, name="gru")]
    return namespace.layers.RNN(cells, name="layer")(x)


def look_up(namespace, x):
    tokens = namespace.layers.Lambda(lambda x: x[..., 0])(x)
    return namespace.layers.Embedding(9, 5, name="layer")(tokens)


LAYERS_OF_BOTH = {
    "MultiHeadAttention": attend,
    "Attention": attend_without_kernels,
    "SimpleRNN": lambda namespace, x: namespace.layers.SimpleRNN(5, name="layer")(x),
    "LSTM": lambda namespace, x: namespace.layers.LSTM(5, return_sequences=True, name="layer")(x),
    "GRU": lambda namespace, x: namespace.layers.GRU(5, name="layer")(x),
    "Bidirectional": run_both_ways,
    "RNN": run_stacked_cells,
    "EinsumDense": lambda namespace, x: namespace.layers.EinsumDense("abc,cde->aebd", (3, 6, 2), name="layer")(x),
    "DepthwiseConv1D": lambda namespace, x: namespace.layers.DepthwiseConv1D(3, depth_multiplier=2, name="layer")(x),
    "SeparableConv1D": lambda namespace, x: namespace.layers.SeparableConv1D(5, 3, name="layer")(x),
    "Embedding": look_up,
}


@pytest.mark.parametrize("name", LAYERS_OF_BOTH)
def test_layers_of_several_kernels_have_the_masks_of_keras_3(name):
    models = []
    for namespace in (keras, tf_keras):
        inputs = namespace.Input((6, 4))
        x = inputs if name == "Embedding" else namespace.layers.Dense(4, name="first")(inputs)
        x = namespace.layers.Dense(3, name="last")(LAYERS_OF_BOTH[name](namespace, x))
        models.append(namespace.Model(inputs, x))
    kernels = [{kernel.path: kernel.variable for kernel in resolve(model).kernels} for model in models]
    assert list(kernels[0]) == list(kernels[1])
    assert len(kernels[0]) > 1
    for allocation, distance in [("uniform", 1), ("global", 1), ("uniform", 2), ("uniform", None)]:
        rng, masks = np.random.default_rng(0), []
        for path, variable in kernels[0].items():
            weights = rng.standard_normal(variable.shape)
            for by_path in kernels:
                by_path[path].assign(weights)
        for model in models:
            score = tf_lap.scores.Lookahead(distance=distance)
            pruner = tf_lap.Pruner(model, score=score, allocation=allocation, filters=".*")
            pruner.update(0.7)
            masks.append({path: np.asarray(mask) for path, mask in pruner.masks.items()})
        assert list(masks[0]) == list(kernels[0])
        assert sum(mask.sum() for mask in masks[0].values()) < 0.4 * sum(mask.size for mask in masks[0].values())
        for path, mask in masks[0].items():
            np.testing.assert_array_equal(mask, masks[1][path], err_msg=f"{path} {allocation} {distance}")


FAMILIES = ["ConvNeXtTiny", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "MobileNetV3Small", "RegNetX002"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_applications_have_no_boundary_but_their_ends(name):
    neighbors = tf_lap.neighbors(getattr(tf_keras.applications, name)(weights=None))
    reasons = {reason for around in neighbors.values() for reason in around.boundaries}
    assert {reason.partition(" '")[0] for reason in reasons} == {"network input", "network output"}


def network(constraint=None):
    return tf_keras.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(24, activation="relu", name="first", kernel_constraint=constraint),
            layers.Dense(24, activation="relu", name="second"),
            layers.Dense(10, name="head", dtype="float32"),
        ]
    )


def compiled(model=None, optimizer="adam", **arguments):
    model = model or network()
    model.compile(optimizer, tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments)
    return model


def fit(model, callbacks, epochs=2, **arguments):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 16)).astype(np.float32), rng.integers(0, 10, 96)
    return model.fit(x, y, batch_size=16, epochs=epochs, callbacks=callbacks, verbose=0, **arguments)


def polynomial(sparsity=0.9, end_step=10, frequency=3):
    return tf_lap.LookaheadPruningSchedule(sparsity, end_step=end_step, frequency=frequency)


def assert_exact(model, sparsity=0.9):
    kept = [np.count_nonzero(model.get_layer(name).kernel.numpy()) for name in SIZES]
    assert sum(kept) == round(sum(SIZES.values()) * (1 - sparsity))
    assert min(kept) > 0


def assert_nothing_left(model):
    for layer in model.layers:
        assert not isinstance(layer.kernel.constraint, MaskConstraint)


SETTINGS = {
    "plain": {},
    "jit": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 4},
    "momentum": {"optimizer": lambda: tf_keras.optimizers.SGD(0.1, momentum=0.9)},
    "legacy optimizer": {"optimizer": lambda: tf_keras.optimizers.legacy.Adam(0.01)},
    "ema": {"optimizer": lambda: tf_keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)},
    "loss scaling": {"optimizer": lambda: tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam(0.01))},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "score"),
    # A score decides which masks are chosen: on the host, or in the graph that XLA compiles.
    [*((name, "lookahead") for name in SETTINGS), ("plain", "magnitude"), ("jit", "magnitude")],
)
def test_counts_are_exact_in_every_training_setting(setting, score):
    arguments = dict(SETTINGS[setting])
    model = compiled(optimizer=arguments.pop("optimizer", lambda: "adam")(), **arguments)
    callback = tf_lap.LAPCallback(polynomial(), score=score)
    history = fit(model, [callback])
    assert_exact(model)
    assert_nothing_left(model)
    assert callback.step == 12
    assert history.history["sparsity"][-1] == callback.report.sparsity


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_counts_are_exact_in_mixed_precision(policy):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = compiled(network())
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(polynomial()), recorder])
    assert_exact(model)
    for earlier, later in itertools.pairwise(recorder.kernels):
        assert not np.any(later[earlier == 0])


class Recorder(tf_keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(self.model.get_layer("first").kernel.numpy())


def test_a_model_that_was_fitted_before_is_pruned_inside_its_step_too():
    model = compiled(optimizer=tf_keras.optimizers.SGD(0.1))
    fit(model, [])
    recorder = Recorder()
    fit(
        model,
        [tf_lap.LAPCallback(tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot"), allocation="uniform"), recorder],
    )
    assert [np.count_nonzero(kernel) for kernel in recorder.kernels] == [38] * 12
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel.numpy()) > 100


def test_a_users_constraint_is_kept_and_composed():
    model = compiled(network(tf_keras.constraints.MaxNorm(0.05)), optimizer=tf_keras.optimizers.SGD(1.0))
    fit(model, [tf_lap.LAPCallback(polynomial())])
    assert_exact(model)
    assert isinstance(model.get_layer("first").kernel.constraint, tf_keras.constraints.MaxNorm)
    assert np.all(np.linalg.norm(model.get_layer("first").kernel.numpy(), axis=0) <= 0.05 + 1e-6)


def test_fine_tuning_preserves_zeros():
    model = compiled(optimizer=tf_keras.optimizers.SGD(0.1, momentum=0.9))
    tf_lap.prune(model, 0.9)
    fit(model, [tf_lap.PreserveSparsity()])
    assert_exact(model)
    assert_nothing_left(model)


def test_two_replicas_prune_alike():
    strategy = two_replicas()
    with strategy.scope():
        model = compiled(network())
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(polynomial()), recorder])
    assert_exact(model)
    first, second = (v.numpy() for v in model.get_layer("first").kernel.values)
    np.testing.assert_array_equal(first, second)
    for earlier, later in itertools.pairwise(recorder.kernels):
        assert not np.any(later[earlier == 0])


def test_two_callbacks_in_one_fit_are_an_error():
    with pytest.raises(ValueError, match="two LAPCallbacks in one fit"):
        fit(compiled(), [tf_lap.LAPCallback(polynomial()), tf_lap.LAPCallback(polynomial())])


def test_an_unbuilt_model_is_an_error():
    with pytest.raises(ValueError, match="is not built"):
        tf_lap.prune(tf_keras.Sequential([layers.Dense(3)]), 0.5)


LOAD = """
import sys, json, numpy as np, tf_keras
for path in sys.argv[1:]:
    model = tf_keras.models.load_model(path)
    assert "tf_lap" not in sys.modules
    print(json.dumps([int(np.count_nonzero(layer.kernel.numpy())) for layer in model.layers]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_saved_model_loads_in_a_fresh_process_with_plain_tf_keras(tmp_path):
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial(), allocation="uniform")])
    paths = [str(tmp_path / file) for file in ("model.keras", "model.h5", "model")]
    for path in paths:
        model.save(path)
    command = [sys.executable, "-c", LOAD, *paths]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert [json.loads(line) for line in run.stdout.splitlines()[-3:]] == [[38, 58, 24]] * 3


HYGIENE = """
import os, sys
import tensorflow as tf
import keras
import tf_lap
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
tf_lap.prune(model, 0.5)
assert "TF_USE_LEGACY_KERAS" not in os.environ
print(sorted(name for name in ("tf_keras", "tensorflow_model_optimization") if name in sys.modules))
"""


@pytest.mark.slow
def test_importing_and_pruning_import_neither_tfmot_nor_tf_keras():
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", HYGIENE]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[-1] == "[]"
