import dataclasses
import json

import pytest
from exported import convolutions, perceptron

import tf_lap
from tf_lap.export.report import Latency
from tf_lap.export.runtime import Timing


def exported(make, path, sparsity, pattern="unstructured", **arguments):
    model = make()
    if sparsity:
        tf_lap.prune(model, sparsity, pattern=pattern)
    return tf_lap.export_tflite(model, path / "model.tflite", **arguments)


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
    report = exported(perceptron, tmp_path, 0.9, "block:1x4")
    assert report.gain.endswith("blocks run without their zeros: timed() measures how much faster")
    assert {tensor.encoding for tensor in report.tensors} == {"sparse blocks 1x4"}
    timed = report.timed(threads=2, rounds=3)
    assert report.latency is None
    assert (timed.latency.threads, timed.latency.rounds) == (2, 3)
    for timing in (timed.latency.dense, timed.latency.file):
        assert 0 < timing.least <= timing.median <= timing.most
    assert f"{timed.latency.speedup:.2f} times as fast on 2 threads" in timed.gain
    assert "latency on 2 threads, 3 rounds: dense" in str(timed)
    assert dataclasses.replace(timed, latency=None) == report
    half = dataclasses.replace(report, latency=Latency(1, 1, Timing(3.0, 3.0, 3.0), Timing(1.5, 1.5, 1.5)))
    assert half.gain.endswith("2.00 times as fast on 1 thread")


def test_a_dense_file_says_why(tmp_path):
    report = exported(perceptron, tmp_path, 0.9, quantization="float16", pattern="block:1x4")
    packed = f"gzip makes it {report.dense_bytes / report.gzip_bytes:.1f} times smaller"
    reason = "LiteRT computes NaN from sparse blocks of float16; float32 can be stored sparse"
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
    assert "_dense" not in plain
    assert "_dense" not in repr(report)


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"rounds": 0}])
def test_no_threads_and_no_rounds_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="expected at least one of each"):
        exported(perceptron, tmp_path, 0).timed(**arguments)


def test_the_file_that_is_timed_must_still_be_there(tmp_path):
    report = exported(perceptron, tmp_path, 0.9)
    report.path.unlink()
    with pytest.raises(FileNotFoundError):
        report.timed()
