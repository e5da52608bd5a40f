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
RESULTS = (
    "ChannelEnergies",
    "Neighbors",
    "PruningReport",
    "RepairReport",
    "ShrinkReport",
    "ShrinkError",
    "ExportReport",
    "ExportError",
    "SearchReport",
    "SensitivityReport",
    "CostReport",
    "ChannelGroup",
    "DeviceReport",
    "LayerCost",
)


@pytest.mark.parametrize("name", [name for name in tf_lap.__all__ if name not in RESULTS])
def test_public_functions_and_classes_show_an_example(name):
    public = getattr(tf_lap, name)
    if callable(public):
        assert ">>>" in public.__doc__, name


def example(document, name):
    """The code below `<!-- example: NAME -->` in a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    (code,) = re.findall(rf"<!-- example: {name} -->\n\n```python\n(.*?)```", text, flags=re.DOTALL)
    return code


def run(code):
    """Runs an example; its names, and what it prints."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "example", "exec"), names)
    return names, output.getvalue()


def test_every_named_example_of_the_documents_is_run():
    """A document that names one names all; tests/test_pages.py runs the code of the others from top to bottom."""
    source = Path(__file__).read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"<!-- example: (\w+) -->", text)
        assert not names or len(names) == text.count("```python\n"), path
        for name in names:
            assert f'example("{path.relative_to(ROOT).as_posix()}", "{name}")' in source


def test_the_readmes_example_prunes_and_keeps_the_best_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, printed = run(example("README.md", "prune"))
    assert "whole model: " in printed
    for name in ("sparse.keras", "best.keras"):
        model = keras.models.load_model(name)
        assert sum(np.count_nonzero(layer.kernel) for layer in model.layers) == 154


def test_the_readmes_example_of_repair_loses_less_than_pruning_alone():
    names, printed = run(example("README.md", "repair"))
    assert "repaired with 256 samples: 2 of 2 kernels" in printed
    assert [np.count_nonzero(layer.kernel) for layer in names["model"].layers] == [
        layer.kept for layer in names["report"].layers
    ]
    assert all(layer.after < layer.before for layer in names["report"].repair.layers)


def test_the_guides_example_of_channels_halves_the_multiplications(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed = run(example("docs/guides/channels.md", "channels"))
    assert "stem 16 ('stem', 'narrow') ()" in printed
    assert tf_lap.cost(names["small"]).macs <= tf_lap.cost(names["model"]).macs / 2
    assert keras.models.load_model("small.keras").count_params() < names["model"].count_params()


def test_the_export_example_writes_a_smaller_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, printed = run(example("docs/export.md", "export"))
    assert " times smaller on disk, " in printed.splitlines()[-1]
    assert (tmp_path / "model.tflite").exists()


def test_the_example_for_devices_makes_a_copy_that_runs_sparse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(tf_lap.warn.PruningWarning, match="'stem' pads 1 on every side"):
        _, printed = run(example("docs/devices.md", "devices"))
    assert "'stem' pads 'same' at stride 2" in " ".join(printed.split())
    assert "1 of 1 1x1 convolutions run sparse" in printed.splitlines()[-1]


def test_the_pages_on_arguments_and_export_name_every_argument():
    for document, functions in (
        ("docs/guides/arguments.md", (tf_lap.prune, tf_lap.LAPCallback)),
        ("docs/export.md", (tf_lap.export_tflite,)),
    ):
        text = (ROOT / document).read_text(encoding="utf-8")
        for function in functions:
            for argument in inspect.signature(function).parameters:
                assert f"`{argument}`" in text or argument in ("model", "path"), argument


def test_every_link_between_the_documents_leads_somewhere():
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", text):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_changelog_speaks_of_this_version():
    assert f"## {tf_lap.__version__}" in (ROOT / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_tfmot_example_prunes():
    pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
    importlib.import_module("tf_lap.tfmot")  # it puts back the environment variable that tfmot sets
    names, _ = run(example("docs/tfmot.md", "tfmot"))
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
