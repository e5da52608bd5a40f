"""The commands do what the functions do, write whole files, and print what can be read by people and by programs."""

import json
import os
import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
import tf_keras

import tf_lap
from tf_lap.cli import main, sweeping


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Takes back what the command sets for its own process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)


def build(flavour=keras, units=16):
    keras.utils.set_random_seed(1)
    tf_keras.utils.set_random_seed(1)
    layers = [flavour.Input((8,)), flavour.layers.Dense(units, activation="relu", name="first")]
    layers += [flavour.layers.Dense(units, activation="relu", name="second"), flavour.layers.Dense(4, name="last")]
    return flavour.Sequential(layers, name="net")


@pytest.fixture
def model(tmp_path):
    model = build()
    model.save(tmp_path / "m.keras")
    return model


@pytest.fixture
def data(model):
    x = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(1)
    np.savez("d.npz", x=x, y=y)
    return x, y


def run(capsys, *args):
    """What a command prints that succeeds."""
    assert main.main(list(map(str, args))) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def weights_of(path):
    return keras.saving.load_model(path).get_weights()


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_prune_writes_what_the_function_makes(model, capsys):
    text = run(capsys, "prune", "m.keras", "-o", "s.keras", "--sparsity", "0.75", "--score", "magnitude")
    report = tf_lap.prune(model, 0.75, score="magnitude")
    assert_same(weights_of("s.keras"), model.get_weights())
    assert text.startswith(report.render())
    assert "written: s.keras (" in text


def test_prune_by_layers_in_json(model, capsys):
    args = ["--sparsity", "first=0.5", "--sparsity", "sec.*=0.75", "--json"]
    result = json.loads(run(capsys, "prune", "m.keras", "-o", "s.keras", *args))
    report = tf_lap.prune(model, {"first": 0.5, "sec.*": 0.75})
    assert result["report"] == json.loads(json.dumps(report.to_dict()))
    assert (result["model"], result["output"]) == ("m.keras", "s.keras")
    assert_same(weights_of("s.keras"), model.get_weights())


def test_prune_with_data_and_repair(model, data, capsys):
    args = [
        "--score",
        "obs",
        "--allocation",
        "uniform",
        "--order",
        "forward",
        "--steps",
        "2",
        "--repair",
        "weights,bias",
    ]
    run(
        capsys, "prune", "m.keras", "-o", "s.keras", "--sparsity", "0.5", *args, "--data", "d.npz", "--filters", "first"
    )
    tf_lap.prune(
        model,
        0.5,
        score="obs",
        allocation="uniform",
        order="forward",
        steps=2,
        repair=["weights", "bias"],
        data=data[0],
        filters=["first"],
    )
    assert_same(weights_of("s.keras"), model.get_weights())


@pytest.mark.parametrize("name", ["m.h5", "folder"])
def test_models_of_tf_keras_stay_such(name, capsys):
    build(tf_keras).save(name)
    run(capsys, "prune", name, "-o", f"sparse_{name}", "--sparsity", "0.5")
    sparse = tf_keras.models.load_model(f"sparse_{name}")
    assert tf_lap.Pruner(sparse).report().sparsity == pytest.approx(0.5, abs=0.01)


def test_channels_are_pruned_to_a_budget_and_shrunk(model, capsys):
    run(capsys, "prune", "m.keras", "-o", "c.keras", "--pattern", "channels", "--budget", "macs=0.5")
    result = json.loads(run(capsys, "shrink", "c.keras", "-o", "small.keras", "--json"))
    small = keras.saving.load_model("small.keras")
    assert tf_lap.cost(small).macs <= tf_lap.cost(model).macs / 2
    assert result["report"]["layers"]
    x = np.ones((2, 8), np.float32)
    pruned = keras.saving.load_model("c.keras")
    np.testing.assert_allclose(small.predict(x, verbose=0), pruned.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_a_budget_of_a_model_with_open_axes_is_for_images_of_a_size(capsys):
    convolution, pooling = keras.layers.Conv2D(16, 3), keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((None, None, 3)), convolution, pooling, keras.layers.Dense(3)])
    model.save("open.keras")
    narrow = ["prune", "open.keras", "-o", "n.keras", "--pattern", "channels", "--budget", "macs=0.5", "--json"]
    result = json.loads(run(capsys, *narrow, "--input-shape", "32,32,3"))
    assert result["report"]["channels"]["before"]["macs"] == tf_lap.cost(model, input_shape=(32, 32, 3)).macs


def test_repair_fits_to_the_dense_model(model, data, capsys):
    sparse = build()
    tf_lap.prune(sparse, 0.6)
    sparse.save("s.keras")
    text = run(capsys, "repair", "s.keras", "--dense", "m.keras", "--data", "d.npz", "-o", "r.keras")
    report = tf_lap.repair(sparse, data[0], dense=model)
    assert text.startswith(str(report))
    assert_same(weights_of("r.keras"), sparse.get_weights())


def test_report_counts_the_zeros_of_any_model(model, capsys):
    kernel = model.get_layer("second").kernel
    kernel.assign(np.where(np.arange(256).reshape(16, 16) % 4 == 0, 0, kernel.numpy()))
    model.save("other.keras")
    result = json.loads(run(capsys, "report", "other.keras", "--json"))
    second = next(layer for layer in result["report"]["layers"] if layer["path"] == "second")
    assert (second["kept"], second["zeros"], second["zero"]) == (192, 64, 0)
    text = run(capsys, "report", "other.keras")
    assert "other.keras: Keras " in text
    assert "25.00%" in text
    assert "all the same" not in text


def test_inspect_shows_cost_channels_and_kernels_and_changes_nothing(model, capsys):
    before = Path("m.keras").read_bytes()
    result = json.loads(run(capsys, "inspect", "m.keras", "--json", "--sparsity", "0.5"))
    assert result["cost"]["macs"] == tf_lap.cost(model).macs
    assert {g["name"]: g["width"] for g in result["channel_groups"] if not g["blocked"]} == {"first": 16, "second": 16}
    assert result["kernels"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    text = run(capsys, "inspect", "m.keras")
    assert "32 of 36 channels can go, in 2 groups" in text
    assert "stay: network output" in text
    assert "boundary: network input" in text
    assert "nothing: the model has no 1x1 convolution" in text
    assert Path("m.keras").read_bytes() == before


def test_inspect_says_what_runs_sparse_on_devices(capsys):
    layers = [keras.layers.Conv2D(8, 3, strides=2, padding="same"), keras.layers.Conv2D(8, 1, activation="relu")]
    layers += [keras.layers.Conv2D(4, 1), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    model.save("pointwise.keras")
    result = json.loads(run(capsys, "inspect", "pointwise.keras", "--json"))
    assert result["devices"] == json.loads(json.dumps(tf_lap.device_report(model).to_dict()))


def test_inspect_asks_for_the_size_of_open_axes(capsys):
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs)))
    keras.Model(inputs, outputs).save("open.keras")
    assert "not known: " in run(capsys, "inspect", "open.keras")
    result = json.loads(run(capsys, "inspect", "open.keras", "--input-shape", "8,8,3", "--json"))
    assert result["cost"]["macs"] == 6 * 6 * 27 * 4 + 8


def test_export_and_compare_with_the_file(model, data, capsys):
    tf_lap.prune(model, 0.5)
    model.save("s.keras")
    exported = json.loads(run(capsys, "export", "s.keras", "-o", "s.tflite", "--sparse", "no", "--json"))
    assert exported["file_bytes"] == Path("s.tflite").stat().st_size
    result = json.loads(run(capsys, "compare", "m.keras", "s.tflite", "--data", "d.npz", "--json"))
    dense, file = result["models"]
    x, y = data
    assert result["measure"] == "accuracy"
    assert dense["value"] == 1.0
    assert file["value"] == pytest.approx((model.predict(x, verbose=0).argmax(1) == y).mean())
    assert file["milliseconds"] > 0
    assert file["zeros"] / file["weights"] == pytest.approx(0.5, abs=0.01)


def test_compare_without_labels_counts_equal_answers(model, data, capsys):
    x, _ = data
    np.savez("unlabelled.npz", x=x)
    sparse = build()
    tf_lap.prune(sparse, 0.8)
    sparse.save("s.keras")
    text = run(capsys, "compare", "m.keras", "s.keras", "--data", "unlabelled.npz", "--no-latency")
    share = (model.predict(x, verbose=0).argmax(1) == sparse.predict(x, verbose=0).argmax(1)).mean()
    (line,) = [line for line in text.splitlines() if line.startswith("same answer")]
    assert line.split() == ["same", "answer", "100.00%", f"{share:.2%}"]
    assert "ms for one sample" not in text


def test_sweep_finds_a_sparsity_and_goes_on_from_its_record(model, data, capsys, monkeypatch):
    args = ["sweep", "m.keras", "--data", "d.npz", "--sparsities", "0.5", "0.9", "--max-drop", "0.2"]
    args += ["--record", "r.json", "--json", "--allocation", "uniform"]
    first = run(capsys, *args)
    result = json.loads(first)
    assert result["measure"] == "accuracy"
    assert [layer["path"] for layer in result["sensitivity"]["layers"]] == ["first", "second", "last"]
    assert result["search"]["best"]["value"] >= 0.8
    calls = []
    predict = sweeping.predict
    monkeypatch.setattr(sweeping, "predict", lambda model, columns: calls.append(1) or predict(model, columns))
    assert run(capsys, *args) == first
    assert len(calls) == 1  # the dense model's answers alone, which say what is measured


def test_a_record_of_other_data_is_refused(model, data, capsys):
    args = ["sweep", "m.keras", "--sparsities", "0.5", "--filters", "first", "--record", "r.json"]
    run(capsys, *args, "--data", "d.npz")
    np.savez("e.npz", x=data[0] + 1, y=data[1])
    assert main.main([*args, "--data", "e.npz"]) == 2
    assert "--record r.json: it is of other data" in capsys.readouterr().err
    Path("r.json").write_text("{")
    assert main.main([*args, "--data", "d.npz"]) == 2
    assert "--record r.json: damaged" in capsys.readouterr().err


def test_sweep_says_how_to_make_what_it_found(model, data, capsys):
    args = ["--sparsities", "0.5", "--max-drop", "0.5", "--filters", "first|second", "--plot", "p.png"]
    text = run(capsys, "sweep", "m.keras", "--data", "d.npz", *args)
    (line,) = [line for line in text.splitlines() if line.startswith("to make it: ")]
    command = line.removeprefix("to make it: tf-lap ").replace("'", "").split()
    run(capsys, *command)
    assert {"p.png", "p_search.png", "sparse.keras"} <= set(os.listdir())


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "m.keras"],
        ["report", "m.keras"],
        ["prune", "m.keras", "-o", "s.keras", "--sparsity", "0.5"],
    ],
    ids=lambda command: command[0],
)
def test_pictures_are_written(command, model, capsys):
    assert "picture: p.png" in run(capsys, *command, "--plot", "p.png")
    assert Path("p.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_but_results_is_printed_where_there_is_no_terminal(model, data, capsys):
    assert main.main(["prune", "m.keras", "-o", "s.keras", "--sparsity", "0.5", "--repair", "--data", "d.npz"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert not any(line.startswith("repair ") for line in printed.out.splitlines())


def test_progress_goes_to_a_terminal(model, data, capsys, monkeypatch):
    monkeypatch.setattr(main.sys.stderr, "isatty", lambda: True)
    args = ["--sparsities", "0.5", "--filters", "first"]
    assert main.main(["sweep", "m.keras", "--data", "d.npz", *args, "--json"]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "1 of 2" in printed.err


def test_a_file_that_was_there_is_said_to_be_replaced(model, capsys):
    prune = ["prune", "m.keras", "-o", "s.keras", "--sparsity", "0.5"]
    assert "written: s.keras" in run(capsys, *prune)
    assert "replaced: s.keras" in run(capsys, *prune)


def test_times_of_different_programs_are_no_measure(model, data, capsys):
    run(capsys, "export", "m.keras", "-o", "m.tflite", "--sparse", "no")
    compare = ["compare", "m.keras", "m.tflite", "--data", "d.npz"]
    assert "tell of these programs, not of the models" in run(capsys, *compare)
    assert "of these programs" not in run(capsys, *compare, "--no-latency")
    assert "of these programs" not in run(capsys, "compare", "m.keras", "m.keras", "--data", "d.npz")


def test_a_sweep_with_repair_names_the_command_that_does_the_same(model, data, capsys):
    sweep = ["sweep", "m.keras", "--data", "d.npz", "--sparsities", "0.5", "--max-drop", "0.3", "--repair", "weights"]
    text = run(capsys, *sweep, "--score", "obs", "--allocation", "lamp")
    command = re.search("to make it: tf-lap (.*)", text)[1]
    assert command.endswith("--repair weights --data d.npz")
    assert "replaced" not in run(capsys, *shlex.split(command))


def test_hints_name_options(monkeypatch, capsys):
    layers = [keras.layers.Dense(4, name=f"dense{number}") for number in range(60)]
    keras.Sequential([keras.Input((4,)), *layers]).save("deep.keras")
    for command in (["report", "deep.keras"], ["prune", "deep.keras", "-o", "s.keras", "--sparsity", "0.5"]):
        text = run(capsys, *command)
        assert "kernels: --all)" in text
        assert "dense30" not in text
        assert "dense30" in run(capsys, *command, "--all")
