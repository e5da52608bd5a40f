import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_prune_and_ship_runs(tmp_path):
    pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits")
    output = tmp_path / "digits.tflite"
    command = [sys.executable, str(EXAMPLES / "prune_and_ship.py"), "--epochs=4", f"--output={output}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "total" in run.stdout
    assert "90.0" in run.stdout
    assert output.stat().st_size > 1000
