"""When a file without zeros is taken, and what is said where it is not."""

import re

import keras
import numpy as np
import pytest
from exported import converted, export, perceptron

import tf_lap
from tf_lap.compat import converting
from tf_lap.export import runtime, sparse
from tf_lap.export.runtime import Timing
from tf_lap.tflite import file as tflite

pytestmark = pytest.mark.slow  # each converts several times

layers = keras.layers


def timed_as(monkeypatch, dense, file):
    """The runtime takes so many milliseconds for a dense file, and for a sparse one."""
    pair = [Timing(2 * dense, dense, 3 * dense), Timing(2 * file, file, 3 * file)]
    monkeypatch.setattr(runtime, "time_in_turn", lambda interpreters, sample, rounds: pair)


def wide(inputs=256, widths=(256, 256)):
    return keras.Sequential([keras.Input((inputs,)), *(layers.Dense(n, name=f"d{i}") for i, n in enumerate(widths))])


@pytest.mark.parametrize(("slowdown", "is_sparse"), [(0.4, True), (1.19, True), (1.21, False), (3.0, False)])
def test_blocks_are_taken_up_to_the_slowdown_of_the_docstring(tmp_path, monkeypatch, slowdown, is_sparse):
    timed_as(monkeypatch, 1.0, slowdown)
    model = perceptron()
    tf_lap.prune(model, 0.9, pattern="block:1x4")
    report = export(model, tmp_path / "m.tflite")
    assert f"{sparse.MAX_SLOWDOWN:g} times" in " ".join(tf_lap.export_tflite.__doc__.split())
    assert sparse.ROUNDS == 7
    assert "seven rounds" in tf_lap.export_tflite.__doc__
    assert report.sparse == is_sparse
    if is_sparse:
        assert report.latency.rounds == sparse.ROUNDS
        assert report.latency.speedup == pytest.approx(1 / slowdown)
    else:
        assert report.latency is None
        assert f"runs {slowdown:.1f} times SLOWER in {report.runtime} on 1 thread" in report.reason
        assert report.file_bytes == report.dense_bytes


def test_a_measurement_that_was_disturbed_is_repeated(tmp_path, monkeypatch):
    even, slow = Timing(1.0, 1.0, 1.0), Timing(3.0, 3.0, 3.0)
    measurements = [[even, slow], [even, even]]
    monkeypatch.setattr(runtime, "time_in_turn", lambda interpreters, sample, rounds: measurements.pop(0))
    model = perceptron()
    tf_lap.prune(model, 0.9, pattern="block:1x4")
    assert export(model, tmp_path / "m.tflite").sparse
    assert measurements == []


def test_the_remedy_for_a_slow_file_writes_it_and_says_how_slow_it_is(tmp_path, monkeypatch):
    timed_as(monkeypatch, 1.0, 3.0)
    model = perceptron()
    tf_lap.prune(model, 0.9, pattern="block:1x4")
    refused = export(model, tmp_path / "m.tflite")
    assert "sparse=True writes it for its size" in refused.reason
    report = export(model, tmp_path / "m.tflite", sparse=True)
    assert report.file_bytes < refused.file_bytes
    assert report.timed().gain.endswith("times smaller on disk, 3.0 times SLOWER on 1 thread")


def test_zeros_that_are_written_out_at_load_are_not_timed(tmp_path, monkeypatch):
    timed_as(monkeypatch, 1.0, 3.0)
    model = perceptron()
    tf_lap.prune(model, 0.9)
    report = export(model, tmp_path / "m.tflite")
    assert report.sparse
    assert report.latency is None


def test_what_auto_takes_in_int8_is_as_fast_as_measured(tmp_path):
    """The real runtime: LiteRT's kernels for sparse int8 are far slower than its dense ones where half is zero."""
    pytest.importorskip("ai_edge_litert")
    model = wide(512, (512, 512))
    tf_lap.prune(model, 0.5, pattern="block:1x16")
    auto = export(model, tmp_path / "auto.tflite", quantization="int8")
    forced = export(model, tmp_path / "forced.tflite", quantization="int8", sparse=True).timed(rounds=sparse.ROUNDS)
    assert forced.file_bytes < forced.dense_bytes
    slowdown = forced.latency.file.least / forced.latency.dense.least
    if auto.sparse:
        assert slowdown < 1.5 * sparse.MAX_SLOWDOWN
    else:
        assert slowdown > sparse.MAX_SLOWDOWN / 1.5
        assert float(re.search(r"runs ([\d.]+) times SLOWER", auto.reason)[1]) > sparse.MAX_SLOWDOWN
        assert auto.file_bytes == auto.dense_bytes


@pytest.mark.parametrize(("quantization", "percent"), [("float16", 60), ("dynamic_range", 80), ("int8", 80)], ids=str)
def test_float32_in_blocks_is_smaller_from_the_zeros_on_that_are_told(tmp_path, quantization, percent):
    assert f"smaller than this file from about {percent}% zeros on" in sparse._GAINS[quantization]
    model = wide(1024, (1024,))
    dense = len(converted(model, quantization))
    sizes = []
    for sparsity in (percent / 100 - 0.15, percent / 100):
        model = wide(1024, (1024,))
        tf_lap.prune(model, sparsity, pattern="block:1x4")
        sizes.append(len(converted(model, sparse=True)))
    assert sizes[0] > dense > sizes[1]


def test_the_remedy_for_float16_and_dynamic_range_is_stored_sparse(tmp_path, monkeypatch):
    timed_as(monkeypatch, 1.0, 1.0)
    for quantization in ("float16", "dynamic_range"):
        model = wide()
        tf_lap.prune(model, 0.9, pattern="block:1x4")
        refused = export(model, tmp_path / "m.tflite", quantization=quantization)
        assert "quantization=None stores blocks of 1x4" in refused.reason
        report = export(model, tmp_path / "m.tflite", quantization=None)
        assert report.sparse
        assert report.file_bytes < refused.file_bytes


def test_int8_names_the_layers_that_are_not_in_blocks_of_16_and_the_remedy_helps(tmp_path, monkeypatch):
    timed_as(monkeypatch, 1.0, 1.0)
    model = wide(64, (64, 64))
    tf_lap.prune(model, 0.9, pattern="block:1x4")
    reason = export(model, tmp_path / "m.tflite", quantization="int8").reason
    assert "only in blocks of 1 output by 16 inputs, which 'd0', 'd1' cannot be stored in" in reason
    assert "pattern='block:1x16' gains size" in reason
    model = wide(64, (64, 64))
    tf_lap.prune(model, 0.9, pattern="block:1x16")
    assert export(model, tmp_path / "m.tflite", quantization="int8").sparse


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_layer_too_small_for_a_block_is_named_as_that_and_the_remedy_helps(tmp_path, monkeypatch, quantization):
    timed_as(monkeypatch, 1.0, 1.0)
    pattern, block = ("block:1x16", 16) if quantization else ("block:1x4", 4)
    model = wide(3, (64, 64))
    tf_lap.prune(model, 0.8, pattern=pattern, allocation="uniform")
    reason = export(model, tmp_path / "m.tflite", quantization=quantization).reason
    assert f"whole blocks of {block} inputs alone, and loses weights of 'd0' (3 inputs, fewer than a block)" in reason
    assert "d1" not in reason
    model = wide(3, (64, 64))
    tf_lap.prune(model, 0.8, pattern=pattern, filters="d1")
    report = export(model, tmp_path / "m.tflite", quantization=quantization)
    assert report.sparse, report.reason


def test_inputs_that_blocks_do_not_divide_are_told(tmp_path):
    model = wide(10, (64, 64))
    tf_lap.prune(model, 0.8, pattern="block:1x4")
    reason = export(model, tmp_path / "m.tflite").reason
    assert "loses weights of 'd0' (10 inputs): leave such layers out of pruning with filters" in reason


@pytest.mark.parametrize("where", ["converting", "reading", "running"])
def test_where_the_sparse_file_fails_the_dense_one_is_written(tmp_path, monkeypatch, where):
    model, path = perceptron(), tmp_path / "model.tflite"
    tf_lap.prune(model, 0.9)
    if where == "converting":
        monkeypatch.setattr(converting, "without_zeros", leaving_zeros_out_fails)
    elif where == "reading":
        monkeypatch.setattr(tflite, "read", reading_fails(tflite.read))
    else:
        stub_answers_of_sparse(monkeypatch)
    report = tf_lap.export_tflite(model, path)
    assert not report.sparse
    assert "it is broken" in report.reason or report.reason == "no way to read it" or "is NaN" in report.reason
    assert path.stat().st_size == report.dense_bytes
    with pytest.raises(ValueError, match="sparse=True"):
        tf_lap.export_tflite(model, path, sparse=True)


def leaving_zeros_out_fails(file):
    raise RuntimeError("it is broken")


def reading_fails(honest):
    def read(file, origins=None):
        contents = honest(file, origins)
        if contents.sparse:
            raise ValueError("no way to read it")
        return contents

    return read


def stub_answers_of_sparse(monkeypatch):
    honest, load = runtime.run, runtime.Runtime.load
    sizes = {}

    def watched(self, file, threads=None):
        interpreter = load(self, file, threads)
        sizes[id(interpreter)] = bool(tflite.read(file).sparse)
        return interpreter

    def run(interpreter, samples):
        factor = np.nan if sizes[id(interpreter)] else 1.0
        return [{name: value * factor for name, value in answer.items()} for answer in honest(interpreter, samples)]

    monkeypatch.setattr(runtime.Runtime, "load", watched)
    monkeypatch.setattr(runtime, "run", run)


def test_a_sparse_file_that_is_larger_is_written_only_when_asked(tmp_path):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8)])
    tf_lap.prune(model, 0.5)
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite")
    assert report.reason == "a sparse file is larger"
    assert not report.sparse
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite", sparse=True)
    assert report.file_bytes > report.dense_bytes
    assert report.gain.startswith(f"{report.file_bytes / report.dense_bytes:.2f} times larger on disk, not faster")
