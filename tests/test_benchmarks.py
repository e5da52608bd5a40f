"""The benchmarks run, and print and write what they measured; what they measure is not tested."""

import json
from pathlib import Path

import pytest

pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")


def test_wrapped_steps_are_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    import tf_lap.tfmot  # noqa: F401  (it puts back the environment variable that tfmot sets)
    from benchmarks import __main__ as command
    from benchmarks import wrapped_steps

    for name, value in {"WIDTHS": (8, 6, 4), "STEPS": 8, "ROUNDS": 2, "WARM_UP": 2}.items():
        monkeypatch.setattr(wrapped_steps, name, value)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["benchmarks", "wrapped_steps"])
    command.main()
    result = json.loads((tmp_path / "results" / "wrapped_steps.json").read_text(encoding="utf-8"))
    assert len(result["ratios"]) == 4
    assert result["command"] == "python -m benchmarks wrapped_steps"
    assert set(result["versions"]) >= {"tensorflow", "tf_keras", "tensorflow_model_optimization", "cores"}
    printed = capsys.readouterr().out
    for name, ratio in result["ratios"].items():
        assert ratio["least"] <= ratio["median"] <= ratio["most"]
        assert name in printed
