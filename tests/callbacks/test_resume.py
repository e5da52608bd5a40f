"""Trainings that stop, crash, go on, and go back."""

import shutil

import keras
import numpy as np
import pytest
import tf_keras
from kill_and_resume import kill_and_resume
from perceptrons import (
    SIZES,
    STEPS,
    Interrupt,
    Recorder,
    assert_exact,
    assert_nothing_left,
    compiled,
    data,
    fit,
    network,
    polynomial,
)

import tf_lap

pytestmark = pytest.mark.slow  # each trains several times


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


@pytest.mark.filterwarnings("ignore:model .* has more zeros already")  # new callbacks for a model that is sparse
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
    fit(resumed, [*again, recorder], epochs=3)  # and no warning of a training too short
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
    with pytest.warns(UserWarning, match="weights of an epoch in which fewer were pruned. They are zeroed again"):
        model.fit(x, y, batch_size=16, epochs=3, callbacks=[stopping, callback], verbose=0)
    assert stopping.best_epoch < 2
    assert_exact(model)


def test_weights_restored_behind_the_callback_are_counted_in_the_report():
    model = compiled(optimizer=keras.optimizers.SGD(0.5))
    stopping = keras.callbacks.EarlyStopping("loss", mode="max", patience=10, restore_best_weights=True)
    callback = tf_lap.LAPCallback(polynomial(end_step=15, frequency=2))
    with pytest.warns(UserWarning, match=r"behind LAPCallback put back .* pruner.apply\(\) zeroes them"):
        fit(model, [callback, stopping], epochs=3)
    assert stopping.best_epoch < 2
    back = sum(layer.revived for layer in callback.report.layers)
    nonzero = sum(np.count_nonzero(model.get_layer(name).kernel) for name in SIZES)
    assert back == nonzero - callback.report.kept > 0
    assert "pruned weights are not zero; something wrote them" in str(callback.report)
    callback.pruner.apply()
    assert_exact(model)


def test_a_training_that_crashed_before_its_weights_were_saved_begins_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path), Interrupt(4)])
    model, callback = compiled(), tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)
    with pytest.warns(UserWarning, match="masks of a training 3 steps in, but this model's weights are not those"):
        fit(model, [callback])
    assert callback.step == STEPS
    assert_exact(model)


def test_weights_that_were_restored_without_their_optimizer_keep_their_zeros(tmp_path):
    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fit(
            model, [tf_lap.LAPCallback(polynomial(end_step=8), backup_dir=tmp_path, allocation="uniform"), Interrupt(9)]
        )
    again = compiled()
    again.set_weights(model.get_weights())
    recorder = Recorder()
    fit(again, [tf_lap.LAPCallback(polynomial(end_step=8), backup_dir=tmp_path, allocation="uniform"), recorder])
    assert {np.count_nonzero(kernel) for kernel in recorder.kernels} == {38}


def test_a_backup_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path), Interrupt(3)])
    model = compiled(keras.Sequential([keras.Input((16,)), keras.layers.Dense(10, name="other")]))
    fit(model, [])
    with pytest.raises(ValueError, match=r"backup_dir=.* the masks are of another model.* Delete the directory"):
        fit(model, [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)])


def test_layers_thawed_between_fits_are_pruned_from_then_on():
    model = network()
    model.get_layer("first").trainable = False
    callback = tf_lap.LAPCallback(polynomial(end_step=20))
    with pytest.warns(UserWarning, match="ends at step 12"):
        fit(compiled(model), [callback])
    zeros = model.get_layer("second").kernel.numpy() == 0
    assert np.count_nonzero(model.get_layer("first").kernel) == SIZES["first"]
    model.get_layer("first").trainable = True
    fit(compiled(model), [callback])
    assert_exact(model)
    assert np.all(model.get_layer("second").kernel.numpy()[zeros] == 0)


@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_layers_thawed_when_the_schedule_is_over_are_brought_to_its_sparsity_at_once(package, capsys):
    layers = package.layers
    model = package.Sequential([package.Input((16,)), layers.Dense(24, name="first"), layers.Dense(10, name="head")])
    loss = package.losses.SparseCategoricalCrossentropy(from_logits=True)
    callback = tf_lap.LAPCallback(polynomial(end_step=6, frequency=1), verbose=1, allocation="uniform")
    model.layers[0].trainable = False
    model.compile("adam", loss, jit_compile=False)
    with pytest.warns(UserWarning, match="can be pruned"):
        model.fit(*data(), batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    model.layers[0].trainable = True
    model.compile("adam", loss, jit_compile=False)
    capsys.readouterr()
    history = model.fit(*data(), batch_size=16, epochs=1, verbose=0, callbacks=[callback])
    assert capsys.readouterr().out.startswith(
        "step 12: first thawed since the last update, pruned to its sparsity now\n"
    )
    assert [np.count_nonzero(layer.kernel.numpy()) for layer in model.layers] == [38, 24]
    assert history.history["sparsity"] == [pytest.approx(0.9, abs=1e-3)]
    assert [layer.skipped for layer in callback.report.layers] == [None, None]


def test_a_layer_that_was_pruned_before_it_was_frozen_keeps_its_zeros_when_thawed():
    model, callback = network(), tf_lap.LAPCallback(polynomial(end_step=6, frequency=1))
    fit(compiled(model), [callback])
    zeros = model.get_layer("first").kernel.numpy() == 0
    model.get_layer("first").trainable = False
    fit(compiled(model), [callback])
    model.get_layer("first").trainable = True
    fit(compiled(model), [callback])
    np.testing.assert_array_equal(model.get_layer("first").kernel.numpy() == 0, zeros)
    assert_exact(model)


@pytest.mark.parametrize("crashing", ["update", "epoch"])
def test_a_backup_that_cannot_be_written_leaves_no_constraint_on_the_model(tmp_path, monkeypatch, crashing):
    def crash(*_):
        raise OSError("no space left")

    model, schedule = compiled(), polynomial(frequency=1) if crashing == "update" else lambda step: (False, 0.5)
    monkeypatch.setattr("tf_lap.files.os.fsync", crash)
    with pytest.raises(OSError, match="no space left"):
        fit(model, [tf_lap.LAPCallback(schedule, backup_dir=tmp_path)])
    assert_nothing_left(model)


def test_a_damaged_backup_is_an_error_whose_remedy_helps(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path), Interrupt(4)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:30])
    model = compiled()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"backup_dir=.* is damaged or is no backup .* Delete the directory to"):
            fit(model, [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)])
    assert_nothing_left(model)
    shutil.rmtree(tmp_path)
    fit(model, [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path)])
    assert_exact(model)


def test_a_backup_directory_is_also_given_as_bytes(tmp_path):
    assert tf_lap.LAPCallback(polynomial(), backup_dir=bytes(tmp_path)).backup_dir == str(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--library=keras"], ["--library=tf_keras", "--save-freq=10"]])
def test_a_killed_training_ends_bit_for_bit_as_one_that_was_not(tmp_path, arguments):
    outcome = kill_and_resume(tmp_path, 2, ["--epochs=8", "--width=128", *arguments])
    assert len(outcome["moments"]) == 2
    assert not outcome["differing"]
    assert outcome["same"]
    assert outcome["left"] == []


def test_layers_thawed_before_the_schedule_begins_stay_dense():
    model = network()
    model.get_layer("first").trainable = False
    callback = tf_lap.LAPCallback(tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot", begin_step=100))
    with pytest.warns(UserWarning, match="final sparsity is not reached"):
        fit(compiled(model), [callback])
    model.get_layer("first").trainable = True
    fit(compiled(model), [callback])
    assert [np.count_nonzero(model.get_layer(name).kernel) for name in SIZES] == list(SIZES.values())


def test_a_snapshot_of_another_fit_of_the_same_script_is_refused(tmp_path):
    model = compiled()
    tf_lap.prune(model, 0.9)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [tf_lap.PreserveSparsity(), tf_lap.BackupAndRestore(tmp_path, save_freq=1), Interrupt(4)])
    with pytest.raises(
        ValueError, match="killed in a fit with PreserveSparsity, and this fit has LAPCallback: give each"
    ):
        fit(compiled(), [tf_lap.LAPCallback(polynomial()), tf_lap.BackupAndRestore(tmp_path)])


def test_a_callback_for_another_model_warns_anew():
    callback = tf_lap.LAPCallback(polynomial(end_step=100))
    for _ in range(2):
        with pytest.warns(UserWarning, match="final sparsity is not reached"):
            fit(compiled(), [callback])


def test_a_fit_of_no_epochs_ends_quietly():
    model = keras.Sequential([keras.layers.Dense(10)])
    fit(compiled(model), [tf_lap.LAPCallback(0.9)], epochs=0)
    fit(compiled(), [tf_lap.LAPCallback(polynomial())], epochs=0)


def test_a_model_that_is_not_called_itself_is_said_to_be_pruned_by_its_parts():
    class Adversary(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def train_step(self, batch):
            return {"loss": keras.ops.mean(self.inner(batch[0]))}

    model = Adversary()
    model.compile("adam", jit_compile=False)
    with pytest.raises(
        ValueError, match=r"its train_step calls other models. Prune these: make a tf_lap.Pruner of each"
    ):
        fit(model, [tf_lap.LAPCallback(0.9)])
    pruner = tf_lap.Pruner(model.inner)
    pruner.freeze()
    update = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: pruner.update(0.9))
    fit(model, [update])
    assert_exact(model.inner)
