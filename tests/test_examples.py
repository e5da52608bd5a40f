import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_prune_and_ship_runs(tmp_path):
    pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits")
    output = tmp_path / "digits.tflite"
    command = [sys.executable, str(EXAMPLES / "prune_and_ship.py"), "--epochs=4", f"--output={output}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "whole model: " in run.stdout
    assert "90.0" in run.stdout
    assert output.stat().st_size > 1000


@pytest.mark.slow
def test_shrink_and_ship_prints_what_half_the_multiplications_give(tmp_path):
    pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits")
    pytest.importorskip("ai_edge_litert", reason="the example measures files with LiteRT")
    command = [sys.executable, str(EXAMPLES / "shrink_and_ship.py"), "--epochs=2", "--output=files"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if ".tflite " in line]
    rows = {line.split()[0]: [float(cell.strip("%").replace(",", "")) for cell in line.split()[1:]] for line in lines}
    assert list(rows) == [f"{name}_{kind}.tflite" for name in ("dense", "shrunk") for kind in ("float32", "int8")]
    for kind in ("float32", "int8"):
        dense, shrunk = rows[f"dense_{kind}.tflite"], rows[f"shrunk_{kind}.tflite"]
        assert shrunk[1] <= dense[1] / 2
        assert shrunk[2] < 0.75 * dense[2]
        assert shrunk[4] > 50


@pytest.mark.slow
def test_tfmot_migration_runs_both_ways(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in (("train", 1000), ("test", 200))}
    labels = {f"y_{part}": rng.integers(0, 10, n, np.uint8) for part, n in (("train", 1000), ("test", 200))}
    np.savez(tmp_path / "mnist.npz", **images, **labels)
    command = [sys.executable, str(EXAMPLES / "tfmot_migration.py"), "--data=mnist.npz", "--epochs=2"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines()[-3:]}
    assert list(rows) == ["dense", "prune_low_magnitude", "prune_lookahead"]
    assert rows["dense"][0] == "0.00%"
    for name in ("prune_low_magnitude", "prune_lookahead"):
        zeros, file, gzipped, _ = rows[name]
        assert zeros == "80.00%"
        assert int(gzipped.replace(",", "")) < int(rows["dense"][2].replace(",", ""))
        assert file == rows["dense"][1]


@pytest.mark.slow
def test_export_tflite_prints_every_quantization(tmp_path):
    pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits")
    pytest.importorskip("ai_edge_litert", reason="the example measures accuracy with LiteRT")
    dense = keras.layers.Dense
    keras.Sequential([keras.Input((64,)), dense(64, activation="relu"), dense(10)]).save(tmp_path / "model.keras")
    command = [
        sys.executable,
        str(EXAMPLES / "export_tflite.py"),
        "--epochs=6",
        "--output=files",
        "--model=model.keras",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines()[1:9]}
    assert set(rows) == {path.name for path in (tmp_path / "files").iterdir()}
    assert len(rows) == 8
    for name, (size, _, milliseconds, accuracy) in rows.items():
        assert int(size.replace(",", "")) == (tmp_path / "files" / name).stat().st_size
        assert float(milliseconds) > 0
        assert float(accuracy.rstrip("%")) > 50 or name.startswith("dense")  # which was not trained here
    last = run.stdout.splitlines()[9:]
    assert [line.partition(":")[0] for line in last] == list(rows)
    # On a machine that is busy the sparse file may be measured as too slow, and is then not written.
    assert "times smaller" in last[list(rows).index("sparse_float32.tflite")]


@pytest.mark.slow
def test_the_browser_example_trains_and_its_page_runs_both_networks(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in (("train", 300), ("test", 20))}
    labels = {f"y_{part}": rng.integers(0, 10, n, np.uint8) for part, n in (("train", 300), ("test", 20))}
    np.savez(tmp_path / "cifar10.npz", **images, **labels)
    page = tmp_path / "page"
    shutil.copytree(EXAMPLES / "browser", page, ignore=shutil.ignore_patterns("files", "node_modules"))
    command = [sys.executable, str(page / "train.py"), "--data=cifar10.npz", "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "6 of 6 1x1 convolutions run sparse" in run.stdout
    files = {path.name: path.stat().st_size for path in (page / "files").iterdir()}
    assert files["sparse.tflite"] < files["dense.tflite"] / 4
    packages = EXAMPLES / "browser" / "node_modules"
    if shutil.which("node") is None or shutil.which("chromium") is None or not packages.exists():
        pytest.skip("the page needs node, chromium, and npm ci --prefix examples/browser")
    (page / "node_modules").symlink_to(packages)
    command = ["node", str(page / "screenshot.mjs"), str(tmp_path / "page.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(" ms") == 2
    assert "The sparse file takes 0." in run.stdout
    assert (tmp_path / "page.png").stat().st_size > 10_000


def write_random_digits(path):
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in (("train", 200), ("test", 100))}
    labels = {f"y_{part}": rng.integers(0, 10, n, np.uint8) for part, n in (("train", 200), ("test", 100))}
    np.savez(path, **images, **labels)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(keras, "distillation"), reason="Keras has a Distiller from 3.12 on")
@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_distillation_prunes_the_student_alone(tmp_path, source):
    environment = {name: value for name, value in os.environ.items() if name != "TF_LAP_MNIST"}
    if source == "mnist":
        write_random_digits(tmp_path / "mnist.npz")
        environment["TF_LAP_MNIST"] = "mnist.npz"
    else:
        pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits")
    command = [sys.executable, str(EXAMPLES / "distillation.py"), "--epochs=10", "--output=digits.keras"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith("seed")][1:] == ["mean of 1"]
    rights = [re.fullmatch(r"seed 0: student, (.*), \d\d.\d\d% zeros: (.*)% right", line) for line in lines[1:3]]
    assert [right[1] for right in rights] == ["labels alone", "distilled"]
    if source == "digits":
        assert all(float(right[2]) > 50 for right in rights)
    student = keras.models.load_model(tmp_path / "digits.keras")
    kernels = [np.asarray(layer.kernel) for layer in student.layers]
    assert sum(map(np.count_nonzero, kernels)) <= sum(round(kernel.size * 0.1) for kernel in kernels)


@pytest.mark.slow
def test_distillation_says_which_keras_it_needs(tmp_path):
    script = (
        "import runpy, sys, keras; vars(keras).pop('distillation', None); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", script, str(EXAMPLES / "distillation.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 1
    assert f"keras.distillation is in Keras 3.12 and later, and this is Keras {keras.__version__}" in run.stderr


@pytest.mark.slow
def test_transformer_compares_both_methods_under_one_budget(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (n, 28, 28), np.uint8) for part, n in (("train", 500), ("test", 100))}
    labels = {f"y_{part}": rng.integers(0, 10, n, np.uint8) for part, n in (("train", 500), ("test", 100))}
    np.savez(tmp_path / "mnist.npz", **images, **labels)
    command = [sys.executable, str(EXAMPLES / "transformer.py"), "--data=mnist.npz", "--output=errors.json"]
    command += ["--seeds=1", "--epochs=2", "--sparsities=0.9"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()[-3:]] == ["sparsity", "none", "90.0%"]
    result = json.loads((tmp_path / "errors.json").read_text(encoding="utf-8"))
    (seed,) = result["runs"]
    assert [row["method"] for row in seed["pruned"]] == ["magnitude", "lookahead"]
    assert len({(row["weights"], row["zeros"]) for row in seed["pruned"]}) == 1
    assert all(row["zeros"] / row["weights"] == pytest.approx(0.9, abs=1e-3) for row in seed["pruned"])
    for row in seed["pruned"]:
        assert f"seed 0: 90.0% {row['method']} {row['error']:.2%}" in run.stdout
