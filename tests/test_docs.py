"""What the documents show runs as it stands, and says what they say."""

import contextlib
import doctest
import importlib
import inspect
import io
import json
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lap

ROOT = Path(__file__).parent.parent
MODULES = [module.name for module in pkgutil.walk_packages(tf_lap.__path__, "tf_lap.")]


def names(module):
    """What the examples in docstrings speak of; in tf_lap.tfmot a model of tf_keras."""
    legacy = {}
    if module.startswith("tf_lap.tfmot"):
        legacy = {"tf_keras": importlib.import_module("tf_keras")}
    flavour = legacy.get("tf_keras", keras)
    rng = np.random.default_rng(0)
    layers = [flavour.Input((64,)), flavour.layers.Dense(32, activation="relu", name="dense")]
    layers += [flavour.layers.Dense(16, activation="relu", name="dense_1"), flavour.layers.Dense(10, name="dense_2")]
    model = flavour.Sequential(layers)
    model.compile("adam", flavour.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = rng.standard_normal((64, 64)).astype(np.float32), rng.integers(0, 10, 64)
    return {"tf_lap": tf_lap, "keras": keras, "model": model, "x": x, "y": y, **legacy}


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        if test.examples:
            test.globs.update(names(module))
            output = io.StringIO()
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=output.write)
            assert result.failed == 0, output.getvalue()


# What functions return or raise; their own docstrings show it.
RESULTS = ("ChannelEnergies", "Neighbors", "PruningReport", "ExportReport", "ExportError")


@pytest.mark.parametrize("name", [name for name in tf_lap.__all__ if name not in RESULTS])
def test_public_functions_and_classes_show_an_example(name):
    public = getattr(tf_lap, name)
    if callable(public):
        assert ">>>" in public.__doc__, name


def code_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example, *_ = code_blocks(ROOT / "README.md")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(example, "README.md", "exec"), {})
    assert "whole model: " in output.getvalue()
    for name in ("sparse.keras", "best.keras"):
        model = keras.models.load_model(name)
        assert [np.count_nonzero(layer.kernel) for layer in model.layers] == [128, 26]


def test_the_readmes_export_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, example, _ = code_blocks(ROOT / "README.md")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(example, "README.md", "exec"), {})
    assert " times smaller on disk, " in output.getvalue().splitlines()[-1]
    assert (tmp_path / "model.tflite").exists()


def test_the_readme_names_every_argument():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for function in (tf_lap.prune, tf_lap.LAPCallback, tf_lap.export_tflite):
        for argument in inspect.signature(function).parameters:
            assert f"`{argument}`" in readme or argument in ("model", "path"), argument


def test_the_changelog_speaks_of_this_version():
    assert f"## {tf_lap.__version__}" in (ROOT / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_readmes_tfmot_example_runs():
    pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
    importlib.import_module("tf_lap.tfmot")  # it puts back the environment variable that tfmot sets
    _, _, example = code_blocks(ROOT / "README.md")
    names = {}
    exec(example, names)
    kernels = [layer.kernel.numpy() for layer in names["model"].layers if hasattr(layer, "kernel")]
    assert [np.count_nonzero(kernel) for kernel in kernels] == [128, 26]


def test_the_committed_run_reaches_what_blocks_are_for():
    ratios = json.loads((ROOT / "benchmarks" / "results" / "tflite.json").read_text(encoding="utf-8"))["ratios"]
    assert ratios["block:1x4 at 90%, latency"]["median"] <= 0.5
    assert ratios["block:1x4 at 90%, bytes"]["median"] <= 0.15
    assert ratios["unstructured at 90%, bytes"]["median"] <= 0.17


def test_what_is_left_of_all_weights_is_that_of_the_committed_run():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    path = ROOT / "benchmarks" / "results" / "reproduce_cifar10_resnet18.json"
    cells = json.loads(path.read_text(encoding="utf-8"))["retrained"]
    left = sorted({cell["kept_of_all"] / cell["weights_of_all"] for cell in cells}, reverse=True)
    assert " and ".join(f"{share:.2%}" for share in left) + " are left" in text


def test_the_tables_of_results_are_those_of_the_committed_runs():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "benchmarks" / "results").glob("reproduce_*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        assert path.name in text
        for command in results["commands"]:
            assert command in text
        dense = [cell["error"] for cell in results["dense"]]
        assert f"| none | 100% | {spread(dense)} |" in text
        retrained = results["retrained"]
        methods = [m for m in ("magnitude", "lookahead", "forward") if any(cell["method"] == m for cell in retrained)]
        for rounds, sparsity in sorted({(cell["rounds"], cell["sparsity"]) for cell in retrained}):
            errors = [[c["error"] for c in retrained if (c["rounds"], c["method"]) == (rounds, m)] for m in methods]
            row = " | ".join(spread(each) if each else "-" for each in errors)
            assert f"| {rounds} | {1 - sparsity:.2%} | {row} |" in text


def spread(errors):
    mean = f"{np.mean(errors):.2%}"
    return mean if len(errors) == 1 else f"{mean} ({min(errors):.2%} to {max(errors):.2%})"
