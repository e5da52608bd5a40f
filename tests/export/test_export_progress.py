"""What an export tells while it takes long."""

import re
import time

import pytest
from exported import export, perceptron

from tf_lap.compat import converting
from tf_lap.export import progress
from tf_lap.export.progress import Progress


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.05)


@pytest.fixture
def slow_converter(monkeypatch):
    honest = converting.convert

    def convert(program, settings):
        time.sleep(0.4)
        return honest(program, settings)

    monkeypatch.setattr(converting, "convert", convert)


@pytest.mark.usefixtures("impatient", "slow_converter")
def test_a_long_stage_is_told_on_standard_error(tmp_path, capfd):
    export(perceptron(), tmp_path / "model.tflite")
    out, err = capfd.readouterr()
    told = [line for line in err.splitlines() if line.startswith("tf_lap.export_tflite, ")]
    assert any(re.fullmatch(r"tf_lap.export_tflite, \d+ s: converting \(model.tflite\)", line) for line in told)
    assert "tf_lap.export_tflite" not in out


@pytest.mark.usefixtures("impatient", "slow_converter")
def test_verbose_0_tells_nothing(tmp_path, capfd):
    export(perceptron(), tmp_path / "model.tflite", verbose=0)
    assert "tf_lap.export_tflite" not in capfd.readouterr().err


def test_an_export_that_is_done_sooner_tells_nothing(tmp_path, capfd):
    assert progress.INTERVAL == 5
    export(perceptron(), tmp_path / "model.tflite")
    assert "tf_lap.export_tflite" not in capfd.readouterr().err


@pytest.mark.usefixtures("impatient")
def test_the_calibration_counts_its_samples(tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(Progress, "begin_stage", lambda self, name, blocks_threads=False: stages.append(name))
    export(perceptron(), tmp_path / "model.tflite", quantization="int8")
    calibrating = [f"calibrating, sample {number} of 32" for number in range(1, 33)]
    assert stages[:2] == ["tracing the model", "converting"]
    assert stages[2:-2] == [*calibrating, "quantizing"]  # and so but once: the sparse file is made of the dense one
    assert stages[-2:] == ["comparing with Keras", "leaving the zeros out"]


@pytest.mark.usefixtures("impatient")
def test_nothing_is_told_after_an_error(capfd):
    def fail():
        with Progress("model.tflite", verbose=True) as telling:
            telling.begin_stage("converting")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    capfd.readouterr()
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_stage_that_lets_no_thread_run_is_told_as_it_begins_where_the_export_is_a_long_one(monkeypatch, capfd):
    with Progress("model.tflite", verbose=True) as telling:
        telling.begin_stage("converting", blocks_threads=True)
        assert capfd.readouterr().err == ""
        monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
        telling.begin_stage("tracing the model")
        assert capfd.readouterr().err == ""
        telling.begin_stage("converting", blocks_threads=True)
        assert capfd.readouterr().err == "tf_lap.export_tflite, 0 s: converting (model.tflite)\n"
    with Progress("model.tflite", verbose=False) as telling:
        telling.begin_stage("converting", blocks_threads=True)
    assert capfd.readouterr().err == ""
