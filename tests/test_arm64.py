"""Files answer on emulated 64-bit ARM as they do in Keras, and fail where the device report says so."""

import numpy as np
import pytest

from benchmarks import arm64, device_networks, device_rules
from benchmarks.arm64 import emulation

OBSTACLE = emulation.find_obstacle()
needs_arm = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


@pytest.mark.slow
@needs_arm
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("what qualifies", "right"),
        ("stem pads 'same' at stride 2", "right"),
        ("gate without a convolution", "fails"),
        ("mean over rows alone", "wrong"),
    ],
)
def test_a_sparse_file_does_there_what_the_report_says(name, seen):
    by_kind, inputs, expected = device_rules.make_files(device_networks.CASES[name])
    answers = emulation.run_on_arm(by_kind, dict.fromkeys(by_kind, inputs))
    assert answers["dense"]["machine"] == "aarch64"
    assert arm64.judge(answers["dense"], expected, 1e-4)["seen"] == "right"
    assert arm64.judge(answers["sparse"], expected, 1e-4)["seen"] == seen
    assert (device_rules.predict(by_kind["sparse"]) == "fails") == (seen != "right")


@pytest.mark.slow
@needs_arm
def test_a_file_that_is_none_is_an_error_and_others_run_all_the_same():
    by_kind, inputs, expected = device_rules.make_files(device_networks.CASES["what qualifies"])
    files = {"none": b"no file" * 100, "dense": by_kind["dense"]}
    answers = emulation.run_on_arm(files, dict.fromkeys(files, inputs))
    assert "error" in answers["none"]
    assert arm64.judge(answers["dense"], expected, 1e-4)["seen"] == "right"


def test_an_answer_is_right_wrong_or_an_error():
    expected = np.array([[1.0, -2.0]])
    outputs = {"state": np.zeros(5), "output": np.array([1.0, -2.2])}
    assert arm64.judge({"outputs": outputs}, expected, 0.2)["seen"] == "right"
    assert arm64.judge({"outputs": outputs}, expected, 0.01) == {"seen": "wrong", "difference": pytest.approx(0.1)}
    assert arm64.judge({"error": "failed; here"}, expected, 0.1) == {"seen": "fails", "error": "failed"}


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv(emulation.VARIABLE, raising=False)
    assert "benchmarks/arm64/setup.sh FOLDER" in emulation.find_obstacle()
    monkeypatch.setenv(emulation.VARIABLE, str(tmp_path / "python"))
    assert "which is not there" in emulation.find_obstacle()
