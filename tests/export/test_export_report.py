import dataclasses
import gzip
import json

import pytest
from exported import convolutions, perceptron

import tf_lap
from tf_lap.export import runtime
from tf_lap.export.report import Latency
from tf_lap.export.runtime import Timing


def exported(make, path, sparsity, pattern="unstructured", **arguments):
    model = make()
    if sparsity:
        tf_lap.prune(model, sparsity, pattern=pattern, allocation="uniform")
    return tf_lap.export_tflite(model, path / "model.tflite", **arguments)


@pytest.mark.slow
def test_unstructured_zeros_make_it_smaller_not_faster(tmp_path):
    report = exported(convolutions, tmp_path, 0.9)
    assert report.file_bytes == (tmp_path / "model.tflite").stat().st_size < report.dense_bytes
    assert report.gzip_bytes < report.file_bytes
    ratio = report.dense_bytes / report.file_bytes
    expected = f"{ratio:.1f} times smaller on disk, not faster: TFLite writes these zeros out again when it loads"
    assert report.gain.startswith(expected)
    by_encoding = {tensor.encoding: tensor for tensor in report.tensors}
    assert by_encoding["sparse"].densified
    assert by_encoding["sparse"].sparsity == pytest.approx(0.9, abs=0.01)
    assert not by_encoding["dense"].densified  # the depthwise kernel
    assert "sparse, densified at load" in str(report)
    assert str(report).splitlines()[-1] == report.gain


def test_blocks_run_without_their_zeros_and_can_be_timed(tmp_path):
    report = exported(perceptron, tmp_path, 0.9, "block:1x4", sparse=True)
    assert report.gain.endswith("runs 3 Dense layer(s) without their zeros: timed() measures how fast")
    assert {tensor.encoding for tensor in report.tensors} == {"sparse blocks 1x4"}
    timed = report.timed(threads=2, rounds=3)
    assert report.latency is None
    assert (timed.latency.threads, timed.latency.rounds) == (2, 3)
    for timing in (timed.latency.dense, timed.latency.file):
        assert 0 < timing.least <= timing.median <= timing.most
    assert timed.gain.endswith(f", {timed.latency}")
    assert timed.gain.endswith("on 2 threads")
    assert "latency on 2 threads, 3 rounds: dense" in str(timed)
    assert dataclasses.replace(timed, latency=None) == report
    half = dataclasses.replace(report, latency=Latency(1, 1, Timing(3.0, 3.0, 3.0), Timing(1.5, 1.5, 1.5)))
    assert half.gain.endswith("2.00 times as fast on 1 thread")


def test_a_dense_file_says_why(tmp_path):
    report = exported(perceptron, tmp_path, 0.9, quantization="float16", pattern="block:1x4")
    packed = f"gzip makes it {report.dense_bytes / report.gzip_bytes:.1f} times smaller"
    reason = report.reason
    assert reason.startswith("LiteRT computes NaN from sparse blocks of float16, as of 'first', 'head', 'second'; ")
    assert report.gain == f"as large as a dense file ({reason}); {packed}"
    timed = report.timed(rounds=1)
    assert timed.latency.dense == timed.latency.file
    assert exported(perceptron, tmp_path, 0, sparse=False).gain.startswith("dense; gzip makes it")


def test_it_is_plain_data(tmp_path):
    report = exported(perceptron, tmp_path, 0.9).timed(rounds=1)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["file_bytes"] == report.file_bytes
    assert plain["gain"] == report.gain
    assert [tensor["shape"] for tensor in plain["tensors"]] == [[64, 64], [64, 64], [8, 64]]
    assert set(plain["latency"]) == {"threads", "rounds", "dense", "file"}
    assert "_files" not in plain
    assert "_files" not in repr(report)


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"rounds": 0}])
def test_no_threads_and_no_rounds_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="expected at least one of each"):
        exported(perceptron, tmp_path, 0).timed(**arguments)


def test_what_was_written_is_timed_whatever_lies_there_now(tmp_path):
    report = exported(perceptron, tmp_path, 0.9)
    report.path.unlink()
    assert report.timed(rounds=1).latency.file.median > 0


def test_dense_and_sparse_layers_are_told_apart(tmp_path):
    report = exported(convolutions, tmp_path, 0.9, "block:1x4", sparse=True)
    assert "runs 1 Dense layer(s) without their zeros" in report.gain


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (0.5, "2.00 times as fast on 1 thread"),
        (1.05, "not faster: 0.95 times as fast on 1 thread"),
        (1.25, "1.2 times SLOWER on 1 thread"),
        (3.0, "3.0 times SLOWER on 1 thread"),
    ],
)
def test_the_gain_says_faster_or_slower(tmp_path, milliseconds, words):
    report = exported(perceptron, tmp_path, 0.9, "block:1x4", sparse=True)
    latency = Latency(1, 1, Timing(1.0, 1.0, 1.0), Timing(milliseconds, milliseconds, milliseconds))
    assert dataclasses.replace(report, latency=latency).gain.endswith(f"on disk, {words}")


def test_files_that_need_densify_say_so(tmp_path):
    report = exported(perceptron, tmp_path, 0.9)
    assert report.needs_densify
    assert report.to_dict()["needs_densify"]
    assert "need the operation DENSIFY, which TFLite Micro does not have" in str(report)
    for arguments in ({"sparse": False}, {"pattern": "block:1x4"}):
        other = exported(perceptron, tmp_path, 0.9, **arguments)
        assert not other.needs_densify
        assert "DENSIFY" not in str(other)


def test_sizes_are_those_of_the_file(tmp_path):
    report = exported(perceptron, tmp_path, 0.9)
    assert report.gzip_bytes == len(gzip.compress((tmp_path / "model.tflite").read_bytes()))
    assert report.dense_bytes == exported(perceptron, tmp_path, 0.9, sparse=False).file_bytes


def test_dense_comes_first_when_timed(tmp_path, monkeypatch):
    report = exported(perceptron, tmp_path, 0.9)
    sizes = []
    monkeypatch.setattr(runtime.Runtime, "load", lambda self, file, threads: sizes.append(len(file)))
    timings = [Timing(2.0, 2.0, 2.0), Timing(1.0, 1.0, 1.0)]
    monkeypatch.setattr(runtime, "time_in_turn", lambda interpreters, sample, rounds: timings)
    assert report.timed().latency.speedup == 2
    assert sizes == [report.dense_bytes, report.file_bytes]
