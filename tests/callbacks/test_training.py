"""Exact counts and lasting zeros in every way that Keras 3 trains."""

import itertools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from perceptrons import (
    SIZES,
    STEPS,
    Recorder,
    adam_with,
    assert_exact,
    assert_nothing_left,
    compiled,
    data,
    fit,
    network,
    polynomial,
)
from replicas import two_replicas

import tf_lap

SETTINGS = {
    "plain": {},
    "jit": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 4},
    "steps_per_execution beyond the epoch": {"steps_per_execution": 50},
    "momentum": {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)},
    "weight decay": {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)},
    "ema": {"optimizer": adam_with(use_ema=True, ema_momentum=0.5)},
    "ema overwriting": {"optimizer": adam_with(use_ema=True, ema_overwrite_frequency=2)},
    "gradient accumulation": {"optimizer": adam_with(gradient_accumulation_steps=2)},
    "loss scaling": {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))},
    "loss scaling and ema": {
        "optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(use_ema=True))
    },
    "lion": {"optimizer": lambda: keras.optimizers.Lion(0.001)},
    "ftrl": {"optimizer": lambda: keras.optimizers.Ftrl(0.01)},
}


# The others, whose optimizers remember or scale in ways of their own, are slow.
QUICK = ["plain", "jit", "run_eagerly", "steps_per_execution", "momentum", "gradient accumulation", "loss scaling"]
CASES = [
    *(pytest.param(name, "lookahead", marks=() if name in QUICK else pytest.mark.slow) for name in SETTINGS),
    # A score decides which masks are chosen: on the host, or in the graph that XLA compiles.
    *(pytest.param(name, "magnitude", marks=pytest.mark.slow) for name in ("plain", "jit")),
]


@pytest.mark.parametrize(("setting", "score"), CASES)
def test_counts_are_exact_in_every_training_setting(setting, score):
    arguments = dict(SETTINGS[setting])
    model = compiled(optimizer=arguments.pop("optimizer", adam_with())(), **arguments)
    callback = tf_lap.LAPCallback(polynomial(), score=score)
    history = fit(model, [callback])
    assert_exact(model)
    assert_nothing_left(model)
    assert callback.step == STEPS
    assert history.history["sparsity"][-1] == callback.report.sparsity == pytest.approx(0.9, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("score", ["lookahead", "magnitude"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float16", "float64"])
def test_counts_are_exact_in_every_dtype(policy, score):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(network())
    finally:
        keras.config.set_dtype_policy("float32")
    fit(model, [tf_lap.LAPCallback(polynomial(), score=score)])
    assert_exact(model)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_pruned_weights_stay_zero_at_every_step_and_the_others_train(jit_compile):
    model = compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=jit_compile)
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(polynomial()), recorder], epochs=3)
    zeros = [kernel == 0 for kernel in recorder.kernels]
    for earlier, later in itertools.pairwise(zeros):
        assert np.all(later[earlier])
    kept = ~zeros[-1]
    assert np.mean(recorder.kernels[-1][kept] != recorder.kernels[-2][kept]) > 0.5  # a dead unit's do not move


@pytest.mark.slow
@pytest.mark.parametrize("score", ["lookahead", "magnitude"])
def test_a_model_that_was_fitted_before_is_pruned_inside_its_step_too(score):
    model = compiled(optimizer=keras.optimizers.SGD(0.1))
    fit(model, [])
    recorder = Recorder()
    fit(
        model,
        [
            tf_lap.LAPCallback(
                tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot"), score=score, allocation="uniform"
            ),
            recorder,
        ],
    )
    assert [np.count_nonzero(kernel) for kernel in recorder.kernels] == [38] * STEPS


def test_training_after_pruning_without_a_callback_is_free_again():
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial())])
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel) > 100


@pytest.mark.parametrize("score", ["lookahead", "magnitude"])
def test_a_users_constraint_is_kept_and_composed(score):
    model = compiled(network(keras.constraints.MaxNorm(0.05)), optimizer=keras.optimizers.SGD(1.0))
    constraint = model.get_layer("first").kernel.constraint
    fit(model, [tf_lap.LAPCallback(polynomial(), score=score)])
    assert_exact(model)
    assert model.get_layer("first").kernel.constraint is constraint
    assert np.all(np.linalg.norm(model.get_layer("first").kernel, axis=0) <= 0.05 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("swap_first", [False, True])
def test_swapped_in_averages_are_as_sparse(tmp_path, swap_first):
    model = compiled(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    callbacks = [tf_lap.LAPCallback(polynomial()), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    path = tmp_path / "averages.keras"
    x, y = data()
    saver = keras.callbacks.ModelCheckpoint(path)
    fit(model, [*(callbacks[::-1] if swap_first else callbacks), saver], validation_data=(x, y))
    assert_exact(model)
    assert_exact(keras.models.load_model(path))


LOAD = """
import sys, json, numpy as np, keras
model = keras.models.load_model(sys.argv[1])
assert "tf_lap" not in sys.modules
x = np.ones((4, 16), np.float32)
model.fit(x, np.zeros(4, int), epochs=1, verbose=0)
model = keras.models.load_model(sys.argv[1])
zeros = {layer.name: int(np.count_nonzero(layer.kernel)) for layer in model.layers}
print(json.dumps({"kept": zeros, "out": np.asarray(model(x)).tolist()}))
"""


@pytest.mark.slow
def test_the_saved_model_loads_in_a_fresh_process_with_plain_keras(tmp_path):
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial(), allocation="uniform")])
    path = tmp_path / "model.keras"
    model.save(path)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    loaded = json.loads(run.stdout.splitlines()[-1])
    assert loaded["kept"] == {name: round(size * 0.1) for name, size in SIZES.items()}
    np.testing.assert_allclose(loaded["out"], model(np.ones((4, 16), np.float32)), rtol=1e-5)


def test_two_replicas_prune_alike():
    strategy = two_replicas()
    with strategy.scope():
        model = compiled(network())
    fit(model, [tf_lap.LAPCallback(polynomial())])
    assert_exact(model)
    first, second = model.get_layer("first").kernel.value.values
    np.testing.assert_array_equal(first, second)


def test_masks_made_under_a_strategy_are_the_same_on_all_replicas():
    strategy = two_replicas()
    with strategy.scope():
        pruner = tf_lap.Pruner(network(), allocation="uniform")
        pruner.update(0.5)
    for mask in pruner._masks.variables:
        first, second = mask.values
        np.testing.assert_array_equal(first, second)
        assert np.count_nonzero(first) == round(first.numpy().size * 0.5)
