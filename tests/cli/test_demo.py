"""The demo compares like with like, and writes what it says."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_lap.cli import demo
from tf_lap.reproduce import charts, datasets

MNIST = Path(os.environ.get("TF_LAP_MNIST") or "mnist.npz")
SIZES = (64 * 300, 300 * 300, 300 * 300, 300 * 300, 300 * 10)


class Run:
    """One short run of the demo on digits, and what was seen of it."""

    def __init__(self, folder, patch):
        self.output = folder / "new" / "out"
        self.trainings, self.logged, printed = [], [], io.StringIO()
        train, handler = demo.train, logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.logged.append(record.getMessage())

        def watched(model, weights, data, learning_rate, callbacks):
            order = np.concatenate([labels for _, labels in data.as_numpy_iterator()])
            trained = train(model, weights, data, learning_rate, callbacks)
            self.trainings.append((weights, order, trained, model.optimizer))
            return trained

        patch.setattr(demo, "train", watched)
        logging.getLogger("tensorflow").addHandler(handler)
        with warnings.catch_warnings(record=True) as self.warnings, contextlib.redirect_stdout(printed):
            warnings.simplefilter("always")
            demo.run(None, self.output, 1, 7)
        logging.getLogger("tensorflow").removeHandler(handler)
        self.printed = printed.getvalue()
        self.results = json.loads((self.output / "results.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return Run(tmp_path_factory.mktemp("demo"), patch)


def kept(rounds):
    return [max(1, round(n * 0.5**rounds)) for n in SIZES[:-1]] + [max(1, round(SIZES[-1] * 0.75**rounds))]


def kernels(weights):
    return [array for array in weights if array.ndim == 2]


@pytest.mark.slow
def test_both_methods_start_from_the_same_trained_weights_and_see_the_same_batches(run):
    (_, first_order, dense, _), *retrained = run.trainings
    assert len(retrained) == 6
    assert len({id(optimizer) for *_, optimizer in run.trainings}) == 7
    for weights, order, _, _ in retrained:
        for array, expected in zip(weights, dense, strict=True):
            np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(order, retrained[0][1])
    assert len(first_order) == len(retrained[0][1]) == 7 * demo.BATCH_SIZE
    assert not np.array_equal(first_order, retrained[0][1])
    assert all(np.count_nonzero(kernel) == kernel.size for kernel in kernels(dense))


@pytest.mark.slow
def test_each_network_is_exactly_as_sparse_as_promised(run):
    for entry, (_, _, trained, _) in zip(run.results["retrained"], run.trainings[1:], strict=True):
        assert [np.count_nonzero(kernel) for kernel in kernels(trained)] == kept(entry["rounds"])
        assert entry["kept"] == sum(kept(entry["rounds"]))
        assert entry["sparsity"] == pytest.approx(1 - entry["kept"] / sum(SIZES))


@pytest.mark.slow
def test_it_ends_with_what_is_left_once_dead_neurons_are_gone(run):
    last = run.printed.splitlines()[-1]
    before, errors, after, errors_after = re.match(
        r"shrunk: ([\d,]+) weights, ([\d.]+%) errors -> ([\d,]+) weights, ([\d.]+%) errors", last
    ).groups()
    assert int(after.replace(",", "")) < int(before.replace(",", ""))
    assert errors_after == errors


@pytest.mark.slow
def test_the_methods_keep_different_weights(run):
    for magnitude, lookahead in zip(run.trainings[1::2], run.trainings[2::2], strict=True):
        for kernel, other in zip(kernels(magnitude[2]), kernels(lookahead[2]), strict=True):
            assert not np.array_equal(kernel != 0, other != 0)


@pytest.mark.slow
def test_the_saved_model_is_the_sparsest_lookahead_model_and_loads_with_plain_keras(run):
    model = keras.saving.load_model(run.output / "sparse.keras", safe_mode=True)
    assert run.results["retrained"][-1]["method"] == "lookahead"
    for array, expected in zip(model.get_weights(), run.trainings[-1][2], strict=True):
        np.testing.assert_array_equal(array, expected)
    assert [np.count_nonzero(kernel) for kernel in kernels(model.get_weights())] == kept(8)
    digits = datasets.load_digits_task().arrays
    assert demo.measure_error(model, digits["x_test"], digits["y_test"]) == run.results["retrained"][-1]["error"]


@pytest.mark.slow
def test_results_hold_every_single_error_and_the_settings(run):
    results = run.results
    assert [(e["seed"], e["rounds"], e["method"]) for e in results["retrained"]] == [
        (0, rounds, method) for rounds in (6, 7, 8) for method in ("magnitude", "lookahead")
    ]
    assert results["seeds"] == [0]
    assert results["data"] == {"name": "digits", "train": 1297, "test": 500}
    assert results["settings"]["widths"] == [64, 300, 300, 300, 300, 10]
    assert results["settings"]["steps_before_pruning"] == results["settings"]["steps_after_pruning"] == 7
    assert results["settings"]["layer_sparsities"]["8"]["dense_5"] == 1 - 0.75**8
    assert set(results["versions"]) == {"tf_lap", "tensorflow", "keras", "numpy", "python"}


@pytest.mark.slow
def test_the_printed_text_holds_progress_table_report_and_files(run):
    text = run.printed
    assert "training 1 of 7: seed 0, dense" in text
    assert "training 7 of 7: seed 0, lookahead, hidden layers at 99.61%, about " in text
    errors = [f"{entry['error']:.1%}" for entry in run.results["retrained"]]
    dense = f"{run.results['dense'][0]['error']:.1%}"
    assert f"dense, before pruning: {dense} ({dense} to {dense})" in text
    for row, shown in enumerate(("98.27%", "99.09%", "99.51%")):
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{shown}  "))
        assert line.split()[2::4] == errors[2 * row : 2 * row + 2]
    assert re.search(r"5 pruned kernels +292,200 +1,431 +99\.51%", text)
    names = {"sparse.keras", "sparse.tflite", "errors.png", "results.json"}
    assert {path.name for path in run.output.iterdir()} == names
    for name in names:
        assert str(run.output / name) in text
    exported = text[text.index("Exported to TFLite:") :]
    assert "checked in " in exported
    assert "latency on 1 thread, 20 rounds" in exported
    assert " times smaller on disk" in exported
    assert (run.output / "errors.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_no_warnings(run):
    unseen = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)  # Python's own filters hide these
    assert [w for w in run.warnings if not issubclass(w.category, unseen)] == []


@pytest.mark.slow
def test_nothing_is_logged(run):
    assert run.logged == []


def small_npz(path):
    random = np.random.default_rng(0)
    arrays = {f"x_{part}": random.integers(0, 256, (30, 28, 28), np.uint8) for part in ("train", "test")}
    np.savez(path, **arrays, y_train=np.arange(30) % 10, y_test=np.arange(30) % 10)
    return path


@pytest.mark.slow
def test_data_in_the_layout_of_mnist(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_ROUNDS", (9,))
    demo.run(small_npz(tmp_path / "small.npz"), tmp_path, 1, 2)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"] == {"name": "small", "train": 30, "test": 30}
    assert results["settings"]["widths"] == [784, 500, 500, 500, 500, 10]
    assert [(entry["rounds"], entry["method"]) for entry in results["retrained"]] == [
        (9, "magnitude"),
        (9, "lookahead"),
    ]
    counts = [
        np.count_nonzero(kernel) for kernel in kernels(keras.saving.load_model(tmp_path / "sparse.keras").get_weights())
    ]
    sizes = (784 * 500, 500 * 500, 500 * 500, 500 * 500)
    assert counts == [round(n * 0.5**9) for n in sizes] + [round(5000 * 0.75**9)]


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="the environment variable TF_LAP_MNIST names no file")
def test_mnist_itself():
    task = datasets.load_npz_task(MNIST)
    assert (len(task.arrays["x_train"]), len(task.arrays["x_test"])) == (60000, 10000)
    outcome = demo.measure(dataclasses.replace(task, rounds=(3,)), 1, 60)
    assert outcome.dense[0] < 0.5
    assert all(entry.error < 0.5 for entry in outcome.retrained)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_rewrites_one_line_on_a_terminal_only(terminal, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "40")
    progress = charts.Progress(2, 10)
    progress.begin("first")
    progress.step(5)
    progress.begin("the second, of which there is more to say")
    progress.close()
    text = capsys.readouterr().out
    if terminal:
        lines = text.split("\r\033[K")
        assert "\n" not in text
        assert lines[1] == "training 1 of 2: first"
        assert lines[2].startswith("training 1 of 2: first, about ")
        assert [len(line) for line in lines[3:]] == [39, 0]
    else:
        first, second = text.splitlines()
        assert first == "training 1 of 2: first"
        assert second.startswith("training 2 of 2: the second, of which there is more to say, about ")


def test_the_table_is_aligned_and_gives_mean_and_spread():
    curves = {"magnitude": {0.9: [0.1, 0.3], 0.995: [0.5, 0.9]}, "lookahead": {0.9: [0.1, 0.1], 0.995: [0.2, 0.4]}}
    lines = charts.format_table([0.01, 0.03], curves).splitlines()
    assert "dense, before pruning: 2.0% (1.0% to 3.0%)" in lines
    assert lines[-1].split("  ")[-2:] == ["70.0% (50.0% to 90.0%)", "30.0% (20.0% to 40.0%)"]
    assert lines[-1].split()[:2] == ["99.50%", "0.50%"]
    assert len({len(line) for line in lines[-4:]}) == 1


def test_the_chart_is_written_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    curves = {method: {0.9: [0.1], 0.99: [0.2]} for method in demo.METHODS}
    charts.draw_error_chart(tmp_path / "chart.png", "one seed", [0.01], curves)
    assert (tmp_path / "chart.png").stat().st_size > 5000
