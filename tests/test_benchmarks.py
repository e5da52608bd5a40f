"""The benchmarks run, and print and write what they measured; what they measure is not tested."""

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
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


@pytest.mark.slow
def test_wrapped_steps_are_measured_and_written(command):
    assert len(command("wrapped_steps", WIDTHS=(8, 6, 4), STEPS=8, ROUNDS=2, WARM_UP=2)) == 4


@pytest.fixture
def few_digits(tmp_path, monkeypatch):
    """Digits of noise in the place of MNIST, and few of them."""
    from benchmarks import digits_cnn

    rng = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 192), ("test", 100)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (size, 28, 28), np.uint8)
        arrays[f"y_{part}"] = rng.integers(0, 10, size, np.uint8)
    np.savez(tmp_path / "digits.npz", **arrays)
    monkeypatch.setenv(digits_cnn.DATA, str(tmp_path / "digits.npz"))
    monkeypatch.setattr(digits_cnn, "END_STEP", 6)
    monkeypatch.setattr(digits_cnn, "FREQUENCY", 3)
    return tmp_path / "results"


@pytest.mark.slow
def test_accuracy_is_measured_drawn_and_goes_on_where_it_was(command, few_digits, tmp_path, monkeypatch):
    from benchmarks import accuracy, chart

    runs = few_digits / "accuracy.json"
    settings = {"RUNS": runs, "SEEDS": 1, "SPARSITIES": (0.9,), "PQUANTML_PYTHON": None}
    ratios = command("accuracy", **settings)
    assert len(ratios) == 8
    assert {"unpruned", "tfmot, 90%", "tf_lap lookahead lamp, 90%"} <= set(ratios)
    fits = json.loads(runs.read_text(encoding="utf-8"))["runs"]
    assert {fit["zeros"] for fit in fits if "tf_lap" in fit["tool"]} == {50_933}
    assert {fit["weights"] for fit in fits} == {56_592}
    monkeypatch.setattr(accuracy, "tools", dict)
    command("accuracy", **settings)
    assert json.loads(runs.read_text(encoding="utf-8"))["runs"] == fits
    chart.draw_accuracy(runs, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000


@pytest.mark.slow
def test_one_shot_pruning_is_examined(few_digits, monkeypatch):
    from benchmarks import one_shot, tables

    monkeypatch.setattr(one_shot, "SEEDS", 1)
    result = one_shot.run()
    assert result["ratios"]["hidden, lookahead: weights kept"]["mean"] < 0.2
    table = tables._format_means("one_shot", {**result, "command": "python -m benchmarks one_shot"})
    assert "| right, magnitude lamp, hidden by lookahead |" in table


@pytest.mark.slow
def test_the_tracing_of_wrapped_steps_is_measured(command):
    import tf_keras

    def network():
        layers = tf_keras.layers
        return tf_keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10)])

    ratios = command("wrapped_tracing", network=network, SHAPE=(6, 6, 3), ROUNDS=1)
    assert set(ratios) == {"tf_lap, of tfmot", "tf_lap, of unpruned", "tfmot, of unpruned"}


@pytest.fixture
def small():
    """A network in place of ResNet50."""
    import keras

    return lambda *size: keras.Sequential([keras.Input((12,)), keras.layers.Dense(8), keras.layers.Dense(4)])


@pytest.mark.slow
def test_a_mask_update_is_measured_beside_its_peers(command, small):
    ratios = command("mask_update", network=small, ROUNDS=2, TURNS=2, WARM_UP=2)
    assert {"update, reads", "energies, reads", "tfmot magnitude, updates"} <= set(ratios)


def test_peers_make_masks_of_the_same_size():
    from benchmarks import peers

    arrays = [np.random.default_rng(i).standard_normal((3, 3, 8, 8)).astype(np.float32) for i in range(3)]
    kept = [58] * 3
    assert [int(mask.sum()) for mask in peers.numpy_partition(arrays, 0.9).update()] == kept
    other = peers.torch_lookahead(arrays, 0.9)
    assert other is None or [int(mask.sum()) for mask in other.update()] == kept


def test_growth_is_measured_and_drawn(command, small, tmp_path, monkeypatch):
    from benchmarks import chart, growth

    monkeypatch.setattr(growth, "memory", lambda size: {"weights": 400, "masks": 100, "beyond": int(1000 + size)})
    ratios = command("growth", network=small, SIZES=(10, 20, 30), ROUNDS=2, TURNS=1, WARM_UP=2)
    assert ratios["memory of masks"]["median"] == 0.25
    chart.draw(tmp_path / "results" / "growth.json", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says what a process's memory was")
def test_memory_is_that_of_masks_and_of_the_process(command):
    from benchmarks import memory

    memory.UPDATES = 2
    sizes = memory.main(1000.0)
    assert sizes["weights"] == 4 * sizes["masks"] == 4000


@pytest.mark.slow
def test_training_steps_are_measured(command):
    sizes = {"WIDTHS": (8, 6, 4), "STEPS": 8, "ROUNDS": 2, "WARM_UP": 2, "UPDATES_BEFORE": 1}
    assert len(command("training_steps", **sizes)) == 4


def test_graphs_and_imports_are_measured(command):
    assert list(command("graphs", NETWORKS=("MobileNet",), ROUNDS=1)) == ["MobileNet"]
    assert list(command("imports", PROGRAMS={"keras": "1", "all": "2"}, ROUNDS=1)) == ["all"]


def test_tflite_files_are_measured_and_written(command):
    ratios = command("tflite", WIDTH=32, ROUNDS=2, REPEATS=2, PRUNED=(("block:1x4", 0.9), ("unstructured", 0.9)))
    assert len(ratios) == 6
    assert ratios["block:1x4 at 90%, bytes"]["most"] < 1


@pytest.mark.slow
def test_an_export_is_measured_against_the_converter_alone(command, small):
    ratios = command("export", network=small, ROUNDS=1, SAMPLES=4)
    assert len(ratios) == 4


@pytest.mark.slow
def test_the_look_ahead_of_models_is_counted_and_written(command, monkeypatch, tmp_path):
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    from benchmarks import backbones, bert_base, models, tables

    toy = {name: backbones.BACKBONES[name] for name in ("BERT", "Llama")}
    figures = {"peak memory in GB": 1.5}
    monkeypatch.setattr(
        models.subprocess, "run", lambda *args, **kwargs: argparse.Namespace(stdout=json.dumps(figures))
    )
    ratios = command("models", FAMILIES=("MobileNet",), BACKBONES=toy)
    assert list(ratios) == [
        *(f"{name}: seconds to resolve" for name in ("MobileNet", *toy)),
        "BERT base: peak memory in GB",
    ]
    result = json.loads((tmp_path / "results" / "models.json").read_text(encoding="utf-8"))
    llama = result["backbones"]["Llama"]
    assert [llama[count] for count in ("kernels", "both sides", "one side", "neither side", "by name")] == [
        15,
        13,
        1,
        1,
        1,
    ]
    assert llama["boundaries"] == {"no output depends on it": 1}
    table = tables._format_models("backbones", "models", result)
    assert "| PositionEmbedding: looks up by the numbers of positions (1) |" in table
    monkeypatch.setattr(bert_base, "SIZES", dict.fromkeys(bert_base.SIZES, 8))
    assert bert_base.main()["millions of weights"] < 0.01


@pytest.mark.slow
def test_what_is_left_of_models_without_some_channels_is_measured_and_written(monkeypatch, tmp_path):
    import keras

    from benchmarks import shrink, shrink_tables, tables

    def build(name, top, size=None):
        layers = keras.layers
        sizes = [keras.Input((8, 8, 3)), layers.Conv2D(10, 3, name="conv"), layers.BatchNormalization()]
        return keras.Sequential([*sizes, layers.GlobalAveragePooling2D(), layers.Dense(4, name="head")])

    monkeypatch.setattr(shrink, "build", build)
    monkeypatch.setattr(shrink, "ROUNDS", 2)
    runs = [shrink.measure_model("toy", True), shrink.measure_full_size("toy")]
    assert runs[0]["weights"] == [364, 256]
    assert runs[0]["macs"] == [36 * 270 + 40, 36 * 189 + 28]
    assert max(runs[0]["difference"], runs[0]["difference when loaded"]) < 1e-5
    assert runs[0]["groups"] == 2
    assert runs[0]["blocks"] == {"network output 'head'": 1}
    monkeypatch.setattr(shrink, "RUNS", tmp_path / "shrink.json")
    monkeypatch.setattr(shrink, "list_todo", lambda runs: [])
    shrink.RUNS.write_text(json.dumps({"runs": runs}), encoding="utf-8")
    result = json.loads(json.dumps(shrink.run() | {"command": "python -m benchmarks shrink"}))
    assert result["ratios"]["toy: macs"]["median"] == 0.7
    assert {"toy: latency", "toy, int8: latency at half the channels"} <= set(result["ratios"])
    table = shrink_tables.format_models("shrink", result, tables._format_rows)
    assert "| toy | 8 | 2; network output 'head' (1) | 0.000364 to 0.000256 (0.70) |" in table
    table = shrink_tables.format_latency("shrink", result, tables._format_rows, {})
    assert "| toy, int8 | " in table


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    from benchmarks import tables

    return tables


def test_the_tables_of_the_documents_are_those_of_the_committed_runs(tables, capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().err


def test_every_committed_run_of_a_benchmark_is_in_a_document(tables):
    from benchmarks.__main__ import NAMES

    documents = "".join((tables.ROOT / name).read_text(encoding="utf-8") for name in tables.DOCUMENTS)
    for name in NAMES:
        shapes = [shape for shape, (benchmark, _) in tables._SHAPES.items() if benchmark == name]
        assert any(f"<!-- table: {shape} -->" in documents for shape in (name, *shapes)), name


def test_every_aim_is_of_a_row_that_was_measured(tables):
    for name, aims in tables.AIMS.items():
        assert set(aims) <= set(tables._read(name)["ratios"]), name


def test_a_stale_table_is_told_and_written_anew(tables, tmp_path, monkeypatch, capsys):
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- table: imports -->\n| old | 1 |\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "DOCUMENTS", ("page.md",))
    assert tables.main(["--check"]) == 1
    assert "page.md. Run python -m benchmarks.tables" in capsys.readouterr().err
    assert tables.main([]) == 0
    written = document.read_text(encoding="utf-8")
    assert written.startswith("before\n<!-- table: imports -->\n\n`python -m benchmarks imports`: ")
    assert written.endswith("|\n\n<!-- end -->\nafter\n")
    assert "old" not in written
    assert tables.main(["--check"]) == 0


def test_a_spread_of_one_value_is_shown_as_that(tables):
    assert tables.format_spread({"median": 1.5, "least": 1.25, "most": 2.0}) == "1.5 (1.25 to 2)"
    assert tables.format_spread({"median": 1.5, "least": 1.5, "most": 1.5}) == "1.5"


def test_errors_of_methods_over_seeds_become_a_row_a_sparsity(tables, tmp_path, monkeypatch):
    runs = [
        {"dense": dense, "pruned": [{"sparsity": 0.9, "method": m, "error": e} for m, e in (("a", dense), ("b", 0.3))]}
        for dense in (0.1, 0.2)
    ]
    (tmp_path / "transformer.json").write_text(json.dumps({"runs": runs}), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    lines = tables.update_tables("<!-- table: transformer -->\n<!-- end -->\n").splitlines()
    assert lines[2:-2] == [
        "| sparsity | a | b |",
        "| --- | --- | --- |",
        "| none | 15.00% (10.00% to 20.00%) |  |",
        "| 90.0% | 15.00% (10.00% to 20.00%) | 30.00% (30.00% to 30.00%) |",
    ]


def test_what_a_record_holds_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    from benchmarks import measure

    record = tmp_path / "runs.json"
    measured = []

    def measure_place(seed, name):
        measured.append((seed, name))
        return {"error": seed + 0.5}

    places = [{"seed": seed, "name": "a"} for seed in range(3)]
    assert measure.measure_missing(record, places[:2], measure_place) == [
        {"seed": 0, "name": "a", "error": 0.5},
        {"seed": 1, "name": "a", "error": 1.5},
    ]
    monkeypatch.setenv("TF_LAP_MINUTES", "0")
    assert len(measure.measure_missing(record, places, measure_place)) == 2
    monkeypatch.delenv("TF_LAP_MINUTES")
    assert len(measure.measure_missing(record, places, measure_place)) == 3
    assert measured == [(0, "a"), (1, "a"), (2, "a")]
    assert len(json.loads(record.read_text(encoding="utf-8"))["runs"]) == 3
