"""What a fit with LAPCallback prints, logs and writes."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from perceptrons import SIZES, compiled, data, fit, polynomial

import tf_lap


def test_logs_hold_the_sparsity_for_history_and_the_callbacks_behind(tmp_path):
    log = tmp_path / "log.csv"
    schedule = polynomial()
    history = fit(compiled(), [tf_lap.LAPCallback(schedule), keras.callbacks.CSVLogger(log)])
    expected = [schedule.sparsity_at(6), schedule.sparsity_at(10)]
    assert history.history["sparsity"] == pytest.approx(expected, abs=1e-3)
    weights = sum(SIZES.values())
    of_all = [np.array(s) * weights / (weights + 24 + 24 + 10) for s in expected]  # the biases are not pruned
    assert history.history["model_sparsity"] == pytest.approx(of_all, abs=0.02)
    assert "sparsity" in log.read_text().splitlines()[0]


def test_summaries_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorFlow writes summaries through the tensorboard package")
    fit(compiled(), [tf_lap.LAPCallback(polynomial(), log_dir=tmp_path)])
    (file,) = tmp_path.glob("events.out.tfevents.*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value}
    kinds = ("sparsity", "threshold", "energy/incoming", "energy/outgoing", "mask")
    layers = ("first", "second", "head")
    assert tags == {"sparsity", *(f"{kind}/{layer}" for kind in kinds for layer in layers)}


def test_tensorboard_reads_the_summaries(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = compiled()
    model.optimizer.learning_rate = 0.0  # so that weights stay as they were at the last update
    fit(model, [tf_lap.LAPCallback(polynomial(frequency=5), log_dir=tmp_path)])
    events = reader.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    last = {tag: tf.make_ndarray(events.Tensors(tag)[-1].tensor_proto) for tag in events.Tags()["tensors"]}
    assert [event.step for event in events.Tensors("mask/second")] == [0, 5, 10]
    kernel = model.get_layer("second").kernel.numpy()
    image = tf.io.decode_png(last["mask/second"][2]).numpy()[..., 0]  # behind width and height
    np.testing.assert_array_equal(image == 255, kernel != 0)
    assert last["threshold/second"] == pytest.approx(np.abs(kernel[kernel != 0]).min())
    assert last["sparsity/second"] == pytest.approx((kernel == 0).mean())
    energies = tf_lap.channel_energies(model)["second"]
    for side in ("incoming", "outgoing"):
        buckets = last[f"energy/{side}/second"]  # from, to, count
        values = getattr(energies, side)
        assert buckets[:, 2].sum() == values.size
        assert (buckets[0, 0], buckets[-1, 1]) == pytest.approx((values.min(), values.max()), rel=1e-4)


def test_a_log_dir_without_tensorboard_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        tf_lap.LAPCallback(polynomial(), log_dir=tmp_path)


def test_verbose_says_what_happens(capsys):
    fit(compiled(), [tf_lap.LAPCallback(polynomial(frequency=5), verbose=1)])
    assert capsys.readouterr().out == "step 0: sparsity 0.0000\nstep 5: sparsity 0.7875\nstep 10: sparsity 0.9000\n"


def test_beside_a_progress_bar_each_line_is_one_of_its_own(capsys):
    x, y = data()
    compiled().fit(x, y, batch_size=16, callbacks=[tf_lap.LAPCallback(polynomial(end_step=5), verbose=1)], verbose=1)
    assert "\nstep 5: sparsity 0.9000\n" in capsys.readouterr().out


def test_the_progress_bar_shows_the_sparsity(capsys):
    x, y = data()
    compiled().fit(x, y, callbacks=[tf_lap.LAPCallback(polynomial(end_step=3))], verbose=2)
    assert "sparsity: 0.90" in capsys.readouterr().out


def test_tensorboard_behind_it_logs_the_sparsity(tmp_path):
    pytest.importorskip("tensorboard", reason="keras.callbacks.TensorBoard needs the tensorboard package")
    fit(compiled(), [tf_lap.LAPCallback(polynomial()), keras.callbacks.TensorBoard(tmp_path)])
    files = [str(file) for file in tmp_path.rglob("events.out.tfevents.*")]
    tags = {v.tag for f in files for event in tf.compat.v1.train.summary_iterator(f) for v in event.summary.value}
    assert "epoch_sparsity" in tags
