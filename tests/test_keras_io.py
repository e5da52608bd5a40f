"""The guide in the form of keras.io's: script, notebook and page say the same, and the script runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lap

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "keras_io" / "lookahead_pruning.py"
sys.path.insert(0, str(GUIDE.parent))

import render  # noqa: E402


def read_guide():
    return render.read_cells(GUIDE.read_text(encoding="utf-8"))


def read_notebook():
    return json.loads(GUIDE.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]


def test_the_notebook_has_the_pieces_of_the_script():
    cells = [(cell["cell_type"] == "code", "".join(cell["source"])) for cell in read_notebook()]
    assert cells == [tuple(cell) for cell in read_guide()]


def test_the_notebook_was_run_from_top_to_bottom_without_an_error():
    counts = [cell["execution_count"] for cell in read_notebook() if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in read_notebook() for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}


def test_the_page_has_the_pieces_of_the_script_and_what_the_notebook_printed():
    text = GUIDE.with_suffix(".md").read_text(encoding="utf-8")
    place = 0
    for piece, cell in zip(read_guide(), read_notebook(), strict=True):
        expected = [f"```python\n{piece.source}\n```" if piece.is_code else piece.source]
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                expected.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
        for part in expected:
            assert part in text[place:], part
            place = text.index(part, place) + len(part)
    for picture in re.findall(r"!\[.*?\]\((img/\S+)\)", text):
        assert (GUIDE.parent / picture).stat().st_size < 150_000


def test_what_stands_between_quotes_is_markdown():
    script = '"""\nTitle: A\nDescription: B.\n"""\n\nx = 1\n\n"""\n## Next\n"""\n'
    assert render.read_cells(script) == [(False, "# A\n\nB."), (True, "x = 1"), (False, "## Next")]


def test_quotes_that_do_not_pair_are_an_error():
    with pytest.raises(ValueError, match="do not pair: put one before and one behind"):
        render.read_cells('"""\nTitle: A\nDescription: B.\n"""\nx = 1\n"""\n')


@pytest.mark.slow
def test_the_script_runs_and_keeps_its_budgets(tmp_path):
    pytest.importorskip("matplotlib", reason="the guide draws a picture")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    real = Path(environment.get("TF_LAP_MNIST") or "missing").exists()
    if not real:  # nothing is downloaded in tests
        rng = np.random.default_rng(0)
        sizes = {"train": 2000, "test": 200}
        images = {f"x_{part}": rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in sizes.items()}
        labels = {f"y_{part}": rng.integers(0, 10, n, np.uint8) for part, n in sizes.items()}
        np.savez(tmp_path / "mnist.npz", **images, **labels)
        environment["TF_LAP_MNIST"] = "mnist.npz"
    run = subprocess.run([sys.executable, GUIDE], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    rows = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines()[-3:]}
    assert list(rows) == ["dense", "small", "sparse"]
    macs = {name: int(row[3].replace(",", "")) for name, row in rows.items()}
    assert macs["small"] == macs["sparse"] <= macs["dense"] / 2
    weights, nonzero = (int(cell.replace(",", "")) for cell in rows["sparse"][1:3])
    assert nonzero < 0.21 * weights + 1000  # biases are not pruned
    if real:
        assert all(float(row[0].rstrip("%")) > 90 for row in rows.values())
    assert (tmp_path / "digits.tflite").stat().st_size < 4 * weights / 2
    assert tf_lap.cost(keras.models.load_model(tmp_path / "digits.keras")).nonzero == nonzero
