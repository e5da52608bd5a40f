import itertools
import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.enforce import MaskConstraint

SIZES = {"first": 16 * 24, "second": 24 * 24, "head": 24 * 10}
STEPS = 12  # 6 batches in each of 2 epochs


def data(samples=96):
    rng = np.random.default_rng(0)
    return rng.standard_normal((samples, 16)).astype(np.float32), rng.integers(0, 10, samples)


def network(constraint=None):
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(24, activation="relu", name="first", kernel_constraint=constraint),
            keras.layers.Dense(24, activation="relu", name="second"),
            keras.layers.Dense(10, name="head", dtype="float32"),
        ]
    )


def compiled(model=None, optimizer="adam", **arguments):
    model = model or network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"jit_compile": False, **arguments})
    return model


def fit(model, callbacks, epochs=2, **arguments):
    x, y = data()
    return model.fit(x, y, batch_size=16, epochs=epochs, callbacks=callbacks, verbose=0, **arguments)


def polynomial(sparsity=0.9, end_step=10, frequency=3):
    return tf_lap.LookaheadPruningSchedule(sparsity, end_step=end_step, frequency=frequency)


def assert_exact(model, sparsity=0.9):
    kept = {name: np.count_nonzero(model.get_layer(name).kernel) for name in SIZES}
    assert kept == {name: max(1, round(size * (1 - sparsity))) for name, size in SIZES.items()}


def assert_nothing_left(model):
    for layer in model.layers:
        assert not isinstance(layer.kernel.constraint, MaskConstraint)


def adam_with(**arguments):
    return lambda: keras.optimizers.Adam(0.01, **arguments)


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


@pytest.mark.parametrize("score", ["lookahead", "magnitude"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_counts_are_exact_in_every_training_setting(setting, score):
    arguments = dict(SETTINGS[setting])
    model = compiled(optimizer=arguments.pop("optimizer", adam_with())(), **arguments)
    callback = tf_lap.LAPCallback(polynomial(), score=score)
    history = fit(model, [callback])
    assert_exact(model)
    assert_nothing_left(model)
    assert callback.step == STEPS
    assert history.history["sparsity"][-1] == callback.report.sparsity == pytest.approx(0.9, abs=1e-3)


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


class Recorder(keras.callbacks.Callback):
    """The zeros of the first layer after each batch, and how far the others have moved."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(self.model.get_layer("first").kernel.numpy())


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


def test_a_model_that_was_fitted_before_is_pruned_inside_its_step_too():
    model = compiled(optimizer=keras.optimizers.SGD(0.1))
    fit(model, [])
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot")), recorder])
    assert [np.count_nonzero(kernel) for kernel in recorder.kernels] == [38] * STEPS


def test_training_after_pruning_without_a_callback_is_free_again():
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial())])
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel) > 100


def test_a_users_constraint_is_kept_and_composed():
    model = compiled(network(keras.constraints.MaxNorm(0.05)), optimizer=keras.optimizers.SGD(1.0))
    constraint = model.get_layer("first").kernel.constraint
    fit(model, [tf_lap.LAPCallback(polynomial())])
    assert_exact(model)
    assert model.get_layer("first").kernel.constraint is constraint
    assert np.all(np.linalg.norm(model.get_layer("first").kernel, axis=0) <= 0.05 + 1e-6)


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


def test_logs_hold_the_sparsity_for_history_and_the_callbacks_behind(tmp_path):
    log = tmp_path / "log.csv"
    schedule = polynomial()
    history = fit(compiled(), [tf_lap.LAPCallback(schedule), keras.callbacks.CSVLogger(log)])
    expected = [schedule.sparsity_at(6), schedule.sparsity_at(10)]
    assert history.history["sparsity"] == pytest.approx(expected, abs=1e-3)
    assert "sparsity" in log.read_text().splitlines()[0]


def test_summaries_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorFlow writes summaries through the tensorboard package")
    fit(compiled(), [tf_lap.LAPCallback(polynomial(), log_dir=tmp_path)])
    (file,) = tmp_path.glob("events.out.tfevents.*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value}
    assert tags == {"sparsity", "sparsity/first", "sparsity/second", "sparsity/head"}


def test_a_log_dir_without_tensorboard_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        tf_lap.LAPCallback(polynomial(), log_dir=tmp_path)


def test_verbose_says_what_happens(capsys):
    fit(compiled(), [tf_lap.LAPCallback(polynomial(frequency=5), verbose=1)])
    assert capsys.readouterr().out == "step 0: sparsity 0.0000\nstep 5: sparsity 0.7875\nstep 10: sparsity 0.9000\n"


@pytest.mark.parametrize("decay", ["polynomial", "geometric"])
def test_a_training_that_is_too_short_warns_at_its_start_with_both_counts(decay):
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=13, frequency=5, decay=decay)
    with pytest.warns(UserWarning, match=r"ends at step 12, before the pruning schedule does at step 13"):
        fit(compiled(), [tf_lap.LAPCallback(schedule)])
    with pytest.warns(UserWarning, match=r"ends at step 6, before"):
        fit(compiled(), [tf_lap.LAPCallback(schedule)], initial_epoch=1)


def test_a_training_that_ends_with_the_schedule_reaches_it_and_does_not_warn():
    model = compiled()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, [tf_lap.LAPCallback(polynomial(end_step=STEPS, frequency=7))])
    assert_exact(model)


def test_the_same_callback_goes_on_in_the_next_fit():
    model = compiled(optimizer=keras.optimizers.SGD(0.1))
    callback = tf_lap.LAPCallback(polynomial(end_step=20))
    with pytest.warns(UserWarning, match="ends at step 12"):
        fit(model, [callback])
    zeros = model.get_layer("first").kernel.numpy() == 0
    assert 0 < np.mean(zeros) < 0.9
    recorder = Recorder()
    fit(model, [callback, recorder])
    assert callback.step == 2 * STEPS
    assert_exact(model)
    for kernel in recorder.kernels:
        assert np.all(kernel[zeros] == 0)


def test_a_foreign_schedule_is_asked_at_each_step():
    model = compiled()
    asked = []

    def schedule(step):
        asked.append(int(step))
        return step == 4, 0.9

    fit(model, [tf_lap.LAPCallback(schedule)])
    assert_exact(model)
    assert set(asked) == set(range(STEPS + 1))


class Interrupt(keras.callbacks.Callback):
    def __init__(self, at):
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def test_an_interrupted_fit_leaves_a_model_that_saves_and_trains_plainly(tmp_path):
    model = compiled(optimizer=keras.optimizers.SGD(0.1))
    callback = tf_lap.LAPCallback(polynomial(end_step=6, frequency=1))
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Interrupt(8)])
    assert_exact(model)
    model.save(tmp_path / "model.keras")
    assert_exact(keras.models.load_model(tmp_path / "model.keras"))
    callback.release()
    assert_nothing_left(model)
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel) > 100


def test_the_next_fit_takes_off_what_an_interrupted_one_left():
    model = compiled(optimizer=keras.optimizers.SGD(0.1))
    callback = tf_lap.LAPCallback(polynomial(end_step=6, frequency=1))
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Interrupt(8)])
    fit(model, [callback])
    assert_exact(model)
    assert_nothing_left(model)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [tf_lap.LAPCallback(polynomial()), Interrupt(3)])
    fit(model, [tf_lap.LAPCallback(polynomial(0.95))])
    assert_exact(model, 0.95)
    assert_nothing_left(model)


def test_a_crashed_training_goes_on_with_the_same_zeros(tmp_path):
    def callbacks():
        pruning = tf_lap.LAPCallback(polynomial(end_step=16, frequency=1), backup_dir=tmp_path / "masks")
        return [keras.callbacks.BackupAndRestore(tmp_path / "weights"), pruning]

    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [*callbacks(), Interrupt(8)], epochs=3)
    keras.utils.set_random_seed(5)
    resumed = compiled(network())
    recorder, again = Recorder(), callbacks()
    fit(resumed, [*again, recorder], epochs=3)
    assert len(recorder.kernels) == 12  # the first epoch was whole
    assert again[1].step == 18
    assert_exact(resumed)
    zeros = model.get_layer("first").kernel.numpy() == 0
    assert np.all(recorder.kernels[0][zeros] == 0)
    assert not list((tmp_path / "masks").iterdir())


def test_restored_best_weights_get_the_zeros_too():
    model = compiled(optimizer=keras.optimizers.SGD(0.5))
    x, y = data()
    stopping = keras.callbacks.EarlyStopping("loss", mode="max", patience=10, restore_best_weights=True)
    callback = tf_lap.LAPCallback(polynomial(end_step=15, frequency=2))
    model.fit(x, y, batch_size=16, epochs=3, callbacks=[stopping, callback], verbose=0)
    assert stopping.best_epoch < 2
    assert_exact(model)


def test_a_backup_of_another_model_is_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path), Interrupt(3)])
    model = compiled(keras.Sequential([keras.Input((16,)), keras.layers.Dense(10, name="other")]))
    with pytest.raises(ValueError, match="the masks are of another model"):
        fit(model, [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)])


def test_two_callbacks_in_one_fit_are_an_error_before_anything_changes():
    model = compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match="two LAPCallbacks in one fit"):
        fit(model, [tf_lap.LAPCallback(polynomial()), tf_lap.LAPCallback(polynomial())])
    for kernel, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kernel, expected)
    assert_nothing_left(model)


def test_a_kernel_that_is_not_finite_is_named_before_training():
    model = compiled()
    model.get_layer("second").kernel.assign(np.full((24, 24), np.nan))
    with pytest.raises(ValueError, match="kernel of layer 'second' holds NaN"):
        fit(model, [tf_lap.LAPCallback(polynomial())])


def test_what_is_no_schedule_is_a_type_error():
    with pytest.raises(TypeError, match=r"pruning_schedule=0.9: expected a tf_lap.LookaheadPruningSchedule"):
        tf_lap.LAPCallback(0.9)
    with pytest.raises(ValueError, match="score='best' is not known"):
        tf_lap.LAPCallback(polynomial(), score="best")
    with pytest.raises(ValueError, match="has not pruned yet"):
        _ = tf_lap.LAPCallback(polynomial()).report


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


def test_the_saved_model_loads_in_a_fresh_process_with_plain_keras(tmp_path):
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial())])
    path = tmp_path / "model.keras"
    model.save(path)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    loaded = json.loads(run.stdout.splitlines()[-1])
    assert loaded["kept"] == {name: round(size * 0.1) for name, size in SIZES.items()}
    np.testing.assert_allclose(loaded["out"], model(np.ones((4, 16), np.float32)), rtol=1e-5)


def test_preserve_sparsity_keeps_zeros_while_fine_tuning():
    model = compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    tf_lap.prune(model, 0.9)
    zeros = model.get_layer("first").kernel.numpy() == 0
    before = model.get_layer("first").kernel.numpy()
    fit(model, [tf_lap.PreserveSparsity()])
    after = model.get_layer("first").kernel.numpy()
    np.testing.assert_array_equal(after == 0, zeros)
    assert np.mean(after[~zeros] != before[~zeros]) > 0.5  # a dead unit's weights do not move
    assert_nothing_left(model)


def test_preserve_sparsity_and_pruning_do_not_go_together():
    model = compiled()
    with pytest.raises(ValueError, match="held by the masks of another Pruner or callback"):
        fit(model, [tf_lap.LAPCallback(polynomial()), tf_lap.PreserveSparsity()])


def test_two_replicas_prune_alike():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = compiled(network())
    fit(model, [tf_lap.LAPCallback(polynomial())])
    assert_exact(model)
    first, second = model.get_layer("first").kernel.value.values
    np.testing.assert_array_equal(first, second)
