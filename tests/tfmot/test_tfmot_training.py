"""Wrapped models in every training setting; what holds for two workers is in test_multi_worker."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas
from wrapped import at_once, compiled, decay, exactly, fit, kept, masks, perceptron, sparsity, tf_keras, wrappers

import tf_lap

pytestmark = pytest.mark.slow  # each trains under tfmot's wrappers

SETTINGS = {
    "plain": {},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "steps per execution": {"steps_per_execution": 4},
    "jit and steps per execution": {"jit_compile": True, "steps_per_execution": 3},
    "momentum": {"optimizer": lambda: tf_keras.optimizers.SGD(0.1, momentum=0.9)},
    "weight decay": {"optimizer": lambda: tf_keras.optimizers.AdamW(0.01, weight_decay=0.1)},
    "legacy optimizer": {"optimizer": lambda: tf_keras.optimizers.legacy.Adam(0.01)},
    "averages": {"optimizer": lambda: tf_keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)},
    "loss scaling": {"optimizer": lambda: tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam(0.01))},
}


class Watch(tf_keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append([layer.layer.kernel.numpy() for layer in self.model.layers])


@pytest.mark.parametrize("setting", SETTINGS)
def test_counts_are_exact_and_zeros_stay_zero(setting):
    arguments = dict(SETTINGS[setting])
    model = tf_lap.prune_lookahead(perceptron(), decay())
    compiled(model, arguments.pop("optimizer", lambda: "adam")(), **arguments)
    watch = Watch()
    fit(model, [watch])
    assert [np.count_nonzero(layer.layer.kernel.numpy()) for layer in model.layers] == exactly(0.9)
    assert [int(mask.sum()) for mask in masks(model).values()] == exactly(0.9)
    assert {int(layer.pruning_step) for layer in wrappers(model)} == {12}
    for before, after in zip(watch.kernels, watch.kernels[1:], strict=False):
        assert not any(np.any(b[a == 0]) for a, b in zip(before, after, strict=True))


TFMOT_TOO = ["plain", "jit", "eager", "steps per execution", "momentum", "legacy optimizer"]


@pytest.mark.slow
@pytest.mark.parametrize("setting", TFMOT_TOO)
def test_tfmots_wrapper_keeps_as_many_and_counts_the_same_steps(setting):
    arguments = dict(SETTINGS[setting])
    model = compiled(
        sparsity.prune_low_magnitude(perceptron(), decay()), arguments.pop("optimizer", lambda: "adam")(), **arguments
    )
    fit(model)
    assert [int(mask.sum()) for mask in masks(model).values()] == exactly(0.9)
    assert {int(layer.pruning_step) for layer in wrappers(model)} == {12}


def test_jit_chooses_the_masks_of_an_eager_step():
    found = []
    for arguments in ({"jit_compile": True}, {"run_eagerly": True}):
        tf_keras.utils.set_random_seed(1)
        model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()), tf_keras.optimizers.SGD(0.0), **arguments)
        fit(model, epochs=1)
        found.append(masks(model))
    for name, mask in found[0].items():
        np.testing.assert_array_equal(mask, found[1][name])


@pytest.mark.parametrize("optimizer", ["adam", tf_keras.optimizers.legacy.Adam(0.01)])
@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of 'table'")
def test_embeddings_with_new_and_legacy_optimizers(optimizer):
    stack = [tf_keras.layers.Embedding(50, 8, input_length=4, name="table"), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential([*stack, tf_keras.layers.Dense(10)])
    model = compiled(tf_lap.prune_lookahead(model, at_once()), optimizer)
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 50, (96, 4)), rng.integers(0, 10, 96)
    model.fit(tokens, labels, batch_size=16, epochs=2, callbacks=[sparsity.UpdatePruningStep()], verbose=0)
    table, *_, dense = sparsity.strip_pruning(model).layers
    assert [np.count_nonzero(table.embeddings), np.count_nonzero(dense.kernel)] == [40, 32]


def test_jit_changes_no_mask_where_a_kernel_is_not_finite():
    model = compiled(tf_lap.prune_lookahead(perceptron(), at_once()), jit_compile=True)
    model.layers[1].layer.kernel.assign(tf.fill((24, 24), np.nan))
    fit(model)
    assert all(mask.all() for mask in masks(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("jit", [False, True])
def test_mixed_precision_ranks_the_full_precision(policy, jit):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = perceptron(dtype="float32")
        wrapped = compiled(tf_lap.prune_lookahead(model, at_once()), tf_keras.optimizers.SGD(0.0), jit_compile=jit)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    reference = perceptron()
    reference.set_weights(model.get_weights())
    pruner = tf_lap.Pruner(reference, allocation="uniform")
    pruner.update(0.9)
    fit(wrapped, epochs=1)
    for name, mask in pruner.masks.items():
        np.testing.assert_array_equal(masks(wrapped)[name], mask)


HELPERS = Path(__file__).parents[1] / "helpers"
REPLICAS = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from wrapped import WRAPPINGS, compiled, decay, fit, masks, perceptron, wrappers
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = compiled(WRAPPINGS[sys.argv[1]](perceptron(), decay()))
fit(model)
print([int(mask.sum()) for mask in masks(model).values()], {int(layer.pruning_step.numpy()) for layer in model.layers})
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrapping", ["tfmot", "tf_lap"])
def test_both_wrappers_train_on_two_replicas(wrapping):
    # In processes of their own: the collectives of tfmot's wrapper upset those of any strategy after it in the process.
    command = [sys.executable, "-c", REPLICAS, wrapping]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HELPERS)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"{exactly(0.9)} {{12}}"


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("steps", [1, 3])
def test_two_replicas_prune_alike(policy, steps):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        with two_replicas().scope():
            model = compiled(tf_lap.prune_lookahead(perceptron(dtype="float32"), decay()), steps_per_execution=steps)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    fit(model)
    assert kept(sparsity.strip_pruning(model)) == exactly(0.9)
    for layer in model.layers:
        kernel = getattr(layer.layer.kernel, "_variable", layer.layer.kernel)
        mask = getattr(layer.pruning_vars[0][1], "_variable", layer.pruning_vars[0][1])
        for variable in (kernel, mask, layer.pruning_step):
            first, second = (each.numpy() for each in variable.values)
            np.testing.assert_array_equal(first, second)
        assert layer.pruning_step.numpy() == 12


def test_two_replicas_of_a_shared_tower_count_one_step_a_pass():
    with two_replicas().scope():
        tower = perceptron()
        inputs = tf_keras.Input((16,))
        pair = tf_keras.Model(inputs, tower(inputs) + tower(inputs * 2.0))
        model = compiled(tf_lap.prune_lookahead(pair, decay()))
    fit(model)
    inner = next(layer for layer in model.layers if isinstance(layer, tf_keras.Model))
    assert {layer.pruning_step.numpy() for layer in wrappers(inner)} == {12}
    assert [int(mask.sum()) for mask in masks(inner).values()] == exactly(0.9)
