"""The benchmarks run, and print and write what they measured; what they measure is not tested."""

import importlib
import json
from pathlib import Path

import pytest

pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a benchmark as the command line does; its result and what it printed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    import tf_lap.tfmot  # noqa: F401  (it puts back the environment variable that tfmot sets)
    from benchmarks import __main__ as command

    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")

    def run(name, **constants):
        module = importlib.import_module(f"benchmarks.{name}")
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        monkeypatch.setattr("sys.argv", ["benchmarks", name])
        command.main()
        result = json.loads((tmp_path / "results" / f"{name}.json").read_text(encoding="utf-8"))
        printed = capsys.readouterr().out
        assert result["command"] == f"python -m benchmarks {name}"
        assert set(result["versions"]) >= {"tensorflow", "tf_keras", "tensorflow_model_optimization", "cores"}
        for name, ratio in result["ratios"].items():
            assert 0 < ratio["least"] <= ratio["median"] <= ratio["most"]
            assert name in printed
        return result["ratios"]

    return run


def test_wrapped_steps_are_measured_and_written(command):
    assert len(command("wrapped_steps", WIDTHS=(8, 6, 4), STEPS=8, ROUNDS=2, WARM_UP=2)) == 4


def test_tflite_files_are_measured_and_written(command):
    ratios = command("tflite", WIDTH=32, ROUNDS=2, REPEATS=2, PRUNED=(("block:1x4", 0.9), ("unstructured", 0.9)))
    assert len(ratios) == 6
    assert ratios["block:1x4 at 90%, bytes"]["most"] < 1
