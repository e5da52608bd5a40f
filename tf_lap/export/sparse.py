"""Files without zeros: they must compute right, be smaller, and be about as fast as dense ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_lap.compat import converting
from tf_lap.devices.describing import describe_graph
from tf_lap.devices.report import DeviceReport
from tf_lap.export import runtime as runtimes
from tf_lap.export.check import Check, Difference, ExportError, Quantization
from tf_lap.export.report import Latency
from tf_lap.tflite import file as tflite
from tf_lap.tflite.converter_errors import explain
from tf_lap.tflite.operations import read_operations
from tf_lap.tflite.origins import Origins

MAX_SLOWDOWN = 1.2
"""How many times as long as the dense file a sparse one may run, by the fastest rounds of each, to be chosen."""
ROUNDS = 7
"""How often each file is measured, by turns, on one thread."""


class SparseFileRefused(Exception):
    """There is no sparse file, or it is wrong, larger or too slow; the text says which."""


class CheckedFile(NamedTuple):
    """A file that was compared with the model.

    Attributes:
        file: its bytes.
        contents: what it holds.
        difference: how far its outputs are from Keras's.
        latency: how fast it runs beside the dense file; None where that was not measured.
        on_devices: what of it XNNPACK runs sparse; None for a dense file.
    """

    file: bytes
    contents: tflite.Contents
    difference: Difference
    latency: Latency | None
    on_devices: DeviceReport | None = None


def make_sparse_file(
    dense: bytes,
    dense_contents: tflite.Contents,
    origins: Origins,
    check: Check,
    quantization: Quantization,
    auto: bool,
) -> CheckedFile:
    """Makes the sparse file of a model from its dense one, and checks it.

    What XNNPACK makes of it on ARM and in WebAssembly cannot be seen on x86: that is read off its operations.

    Args:
        dense: the file with zeros.
        dense_contents: what that holds.
        origins: tells which layers its tensors come from.
        check: compares it with the model.
        quantization: how the file is quantized.
        auto: whether it must also be smaller, and take at most `MAX_SLOWDOWN` times as long as the dense file. The
            time is measured only where the runtime multiplies a tensor as it is stored: other files run as the dense
            one does. Where convolutions run sparse on other processors it does not count.

    Raises:
        SparseFileRefused: there is none, it is wrong, larger or too slow.
    """
    try:
        file = converting.without_zeros(dense)
    except Exception as error:
        raise SparseFileRefused(f"TensorFlow cannot leave the zeros out of its file: {explain(error)}") from error
    try:
        contents = tflite.read(file, origins)
    except ValueError as error:
        raise SparseFileRefused(str(error)) from error
    fault = _find_fault(quantization, dense_contents, contents)
    if fault is not None:
        raise SparseFileRefused(fault)
    on_devices = describe_graph(read_operations(file, origins.find_label), "the file")
    if on_devices.failing and any(cluster.runs_sparse for cluster in on_devices.clusters):
        ((layer, reason), *_) = on_devices.failing.items()
        raise SparseFileRefused(f"XNNPACK fails with a sparse file on ARM and in WebAssembly: {layer!r} {reason}")
    if auto and len(file) >= len(dense):
        raise SparseFileRefused("a sparse file is larger")
    try:
        difference = check(file)
    except ExportError as error:
        raise SparseFileRefused(str(error)) from error
    needs_timing = auto and not on_devices.runs_sparse and any(not weight.densified for weight in contents.sparse)
    latency = _time_files(dense, file, check) if needs_timing else None
    return CheckedFile(file, contents, difference, latency, on_devices)


def _time_files(dense: bytes, file: bytes, check: Check) -> Latency:
    """How fast a dense and a sparse file run by turns. A second measurement decides where the first is too slow.

    Raises:
        SparseFileRefused: the sparse file is too slow in both measurements.
    """
    interpreters = [check.runtime.load(content, 1) for content in (dense, file)]
    for _ in range(2):
        latency = Latency(1, ROUNDS, *runtimes.time_in_turn(interpreters, check.sample, ROUNDS))
        slowdown = latency.file.least / latency.dense.least
        if slowdown <= MAX_SLOWDOWN:
            return latency
    raise SparseFileRefused(
        f"a sparse file is {len(dense) / len(file):.1f} times smaller, but runs {slowdown:.1f} times SLOWER in "
        f"{check.runtime.name} on {latency.on}; sparse=True writes it for its size"
    )


_TOO_FEW = "no tensor has zeros enough to be stored without them"
# test_export_sparse.py tests these percentages, on Dense layers of width 1024.
_FLOAT32 = (
    "quantization=None stores blocks of 1x4, which gain speed and size (smaller than this file from about {}% zeros "
    "on), and single zeros, which gain size alone"
)
_GAINS = {
    "float16": _FLOAT32.format(60),
    "dynamic_range": _FLOAT32.format(80),
    "int8": "pattern='block:1x16' gains size, and speed only where sparse='auto' measures it; " + _FLOAT32.format(80),
}
# LiteRT runs sparse int8 Dense layers in blocks of this size only, and the converter makes no others.
_INT8_BLOCK = 16
_FLOAT_BLOCK = 4


def _find_fault(quantization: Quantization, dense: tflite.Contents, sparse: tflite.Contents) -> str | None:
    """A known fault of a sparse file, or None. A comparison of outputs may miss it.

    Some faults show on other devices only, or in few outputs.
    """
    stored = sparse.sparse
    lost = _find_lost_weights(dense, sparse)
    if lost:
        block = _INT8_BLOCK if quantization == "int8" else _FLOAT_BLOCK
        return (
            f"TensorFlow's converter stores whole blocks of {block} inputs alone, and loses weights of "
            f"{_list_names(lost, block)}: leave such layers out of pruning with filters"
        )
    if not stored:
        return _TOO_FEW
    if quantization == "float16":
        blocks = [weight for weight in stored if weight.block > 1]
        if blocks:
            return (
                f"LiteRT computes NaN from sparse blocks of float16, as of {_list_names(blocks)}; "
                f"{_GAINS[quantization]}"
            )
    if quantization == "dynamic_range":
        return (
            "LiteRT does not load sparse tensors of dynamic range, or computes wrongly with them; "
            f"{_GAINS[quantization]}"
        )
    if quantization == "int8":
        unsupported = [weight for weight in stored if weight.values.ndim == 2 and weight.block != _INT8_BLOCK]
        if unsupported:
            return (
                f"LiteRT loads sparse Dense layers of int8 only in blocks of 1 output by {_INT8_BLOCK} inputs, which "
                f"{_list_names(unsupported, _INT8_BLOCK)} cannot be stored in; {_GAINS[quantization]}"
            )
    return None


def _find_lost_weights(dense: tflite.Contents, sparse: tflite.Contents) -> list[tflite.WeightTensor]:
    """The tensors of the dense file without an equal in the sparse file, by shape and number of nonzeros."""
    unmatched = Counter(map(_shape_and_nonzeros, sparse.weights))
    lost = []
    for weight in dense.weights:
        if unmatched[_shape_and_nonzeros(weight)]:
            unmatched[_shape_and_nonzeros(weight)] -= 1
        else:
            lost.append(weight)
    return lost


def _shape_and_nonzeros(weight: tflite.WeightTensor) -> tuple[tuple[int, ...], int]:
    return weight.values.shape, int(np.count_nonzero(weight.values))


def _list_names(weights: Sequence[tflite.WeightTensor], block: int = 0) -> str:
    """The names of tensors, with the number of their inputs where a block does not divide it.

    Args:
        weights: the tensors; the first three by name are listed.
        block: the size of a block; 0 for the names alone.
    """
    words = []
    for weight in sorted(weights, key=lambda weight: weight.label)[:3]:  # the converter's order varies
        inputs = weight.values.shape[-1]
        too_few = ", fewer than a block" if inputs < block else ""
        words.append(f"{weight.label!r}" + (f" ({inputs} inputs{too_few})" if block and inputs % block else ""))
    return ", ".join(words) + (f" and {len(weights) - 3} more" if len(weights) > 3 else "")
