"""TFLite files of pruned models: converted, encoded without zeros where that pays, checked, and only then written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from tf_lap import compat, samples
from tf_lap.compat import converting, exporting
from tf_lap.compat.exporting import Input
from tf_lap.compat.types import Model
from tf_lap.export.arguments import check_batch_size, check_choices, check_micro, check_path, check_shapes
from tf_lap.export.check import TOLERANCES, Check, Quantization
from tf_lap.export.check import ExportError as ExportError
from tf_lap.export.convert import Samples, convert, repeat_to_batch
from tf_lap.export.progress import Progress
from tf_lap.export.report import ExportReport, TensorReport
from tf_lap.export.sparse import CheckedFile, SparseFileRefused, make_sparse_file
from tf_lap.files import AnyPath, replaced
from tf_lap.tflite import file as tflite
from tf_lap.tflite.errors import advise_on_operations, explain_errors
from tf_lap.tflite.origins import Origins


def export_tflite(
    model: Model,
    path: AnyPath,
    *,
    quantization: Quantization = None,
    representative_dataset: samples.Representative = None,
    sparse: bool | Literal["auto"] = "auto",
    batch_size: int | None = None,
    micro: bool = False,
    integer_io: bool = False,
    verbose: int = 1,
) -> ExportReport:
    """Writes a model as a TFLite file, and checks that the file answers as the model does.

    The file is run in LiteRT (the package ai-edge-litert, `pip install "tf_lap[litert]"`; TensorFlow's interpreter
    where it is not installed) on eight inputs: of `representative_dataset`, or random ones. Each output may differ
    from Keras's by a fraction of the largest: 0.001, float16 0.01, dynamic range 0.1, int8 0.2; whole numbers from a
    quantized file may differ by anything. A file that does not pass is not left at `path`; what was there stays.

    A model under a mixed precision policy is converted as it computes in float32. Pruning wrappers of tfmot are
    stripped in the file. The model itself stays as it is.

    An input whose batch is fixed (`keras.Input(batch_size=1)`) has it fixed in the file, which delegates of phones
    ask for, and which LSTM and GRU layers need unless they are built with `unroll=True`. A Sequential model without a
    `keras.Input`, built by a call on 40 samples, has a batch of 40 in this sense; with an open one it is
    `keras.Sequential([keras.Input(shape), *model.layers])`.

    With `sparse="auto"` a file without zeros is written where it computes right, is smaller, and takes at most 1.2
    times as long as the dense one. Where the runtime multiplies tensors as they are stored, that time is measured:
    seven rounds of each by turns on one thread, of which the fastest count, and once more where the sparse file seems
    too slow.

    Where XNNPACK runs 1x1 convolutions sparse on ARM and in WebAssembly (`tf_lap.device_report`) the time on this
    machine does not count: x86 cannot show it. A sparse file with which XNNPACK fails there is not written.

    Example:

    >>> report = tf_lap.prune(model, 0.9, pattern="block:1x4")
    >>> exported = tf_lap.export_tflite(model, "model.tflite")
    >>> exported.relative_difference < exported.tolerance
    True

    Args:
        model: a built Keras model, of Keras 3 or tf_keras.
        path: the file to write; bytes are decoded as `os.fsdecode` does.
        quantization: None for float32; "dynamic_range" (weights int8), "float16" (weights), or "int8" (weights and
            activations; inputs and outputs of the file stay as the model's, unless `integer_io`).
        representative_dataset: typical inputs, which int8 needs for calibration: an array with a batch dimension (for
            several inputs a list of them or a mapping by name), a `tf.data.Dataset` (batched or not; of `(x, y)` the x
            is taken), or a function without arguments that returns an iterable of samples with a batch dimension. Of
            an array 500 samples that lie evenly in it are used, of the others the first 500.
        sparse: whether to store tensors without their zeros: True, False, or "auto": where the file gets smaller, the
            runtime computes it right, and it does not run slower.
        batch_size: the batch of the file, where the model's own is open; None leaves it open.
        micro: whether the file is for TFLite Micro: no sparse tensors, and fixed shapes. An open batch becomes 1.
        integer_io: whether inputs and outputs of a file of int8 are int8 too, in the file's own scale.
        verbose: 1 tells on standard error what is being done, where the export takes longer than a few seconds: every
            five seconds, and before TensorFlow's converter begins, which lets nothing else run; 0 nothing.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError, ValueError: a model that is not built or not of Keras, an argument that is not known, inputs that do
            not fit, a `batch_size` beside another one of the model, or `sparse=True` where no sparse file can be
            written.
        ExportError: TensorFlow cannot convert the model, or the file does not answer as the model does.
        OSError: the file cannot be written.
    """
    target = check_path(path)
    check_choices(quantization, representative_dataset, sparse)
    check_micro(micro, integer_io, quantization, sparse)
    compat.check_model(model)
    user_samples: Samples | None = None
    if representative_dataset is not None:
        user_samples = samples.read_samples(representative_dataset, exporting.inputs(model))
    model = exporting.without_wrappers(model)
    with Progress(target.name, bool(verbose)) as progress, exporting.in_float32(model):
        inputs = exporting.signature(model, check_batch_size(batch_size))
        if micro:
            inputs = exporting.signature(model, inputs[0].shape[0] or 1)
            check_shapes(inputs)
        batch = inputs[0].shape[0]
        if user_samples is not None and batch is not None:
            user_samples = repeat_to_batch(user_samples, batch)
        dense, origins = _make_dense_file(model, inputs, user_samples, quantization, integer_io, progress)
        contents = tflite.read(dense, origins)
        _refuse_flex(model, contents, batch)
        progress.begin_stage("comparing with Keras")
        check = Check(model, inputs, user_samples, dense, quantization)
        storage = False if micro else sparse
        chosen, reason = _choose_file(dense, contents, origins, check, quantization, storage, progress)
    _write(target, chosen.file)
    on_devices = chosen.on_devices
    return ExportReport(
        path=target,
        quantization=quantization,
        sparse=bool(chosen.contents.sparse),
        reason=reason,
        dense_bytes=len(dense),
        file_bytes=len(chosen.file),
        tensors=tuple(map(TensorReport.from_weight, chosen.contents.weights)),
        difference=chosen.difference.absolute,
        relative_difference=chosen.difference.relative,
        tolerance=TOLERANCES[quantization],
        runtime=check.runtime.name,
        batch_size=batch,
        latency=chosen.latency,
        convolutions=0 if on_devices is None else on_devices.convolutions,
        sparse_convolutions=0 if on_devices is None else on_devices.sparse_convolutions,
        _files=(dense,) if chosen.file is dense else (dense, chosen.file),
        _sample=check.sample,
    )


def _make_dense_file(
    model: Model,
    inputs: list[Input],
    user_samples: Samples | None,
    quantization: Quantization,
    integer_io: bool,
    progress: Progress,
) -> tuple[bytes, Origins]:
    """Converts a model with every zero written out.

    Args:
        model: the model.
        inputs: what the file takes.
        user_samples: samples to calibrate int8 with.
        quantization: of the file.
        integer_io: whether its inputs and outputs are int8.
        progress: is told the stages.

    Returns:
        The file, and what tells which layers its tensors come from.

    Raises:
        ExportError: TensorFlow cannot trace or convert the model.
    """
    progress.begin_stage("tracing the model")
    with contextlib.ExitStack() as stack:
        with explain_errors(model):
            program = stack.enter_context(converting.save_program(model, inputs))
        progress.begin_stage("converting", blocks_threads=True)
        file = convert(model, program, inputs, user_samples, quantization, progress, integer_io)
    return file, Origins(program.readers, dict(converting.matrices(model)))


def _refuse_flex(model: Model, contents: tflite.Contents, batch: int | None) -> None:
    """Raises ExportError where a file needs operations of TensorFlow beside TFLite's own."""
    if contents.flex:
        names = ", ".join(contents.flex)
        advice = ["dtype; a file that needs TensorFlow's cannot be checked here", *advise_on_operations(names, batch)]
        raise ExportError(
            f"model {model.name!r} uses {names}, for which TFLite has no operation of its own, or not in this "
            + "; ".join(advice)
        )


def _choose_file(
    dense: bytes,
    contents: tflite.Contents,
    origins: Origins,
    check: Check,
    quantization: Quantization,
    sparse: bool | Literal["auto"],
    progress: Progress,
) -> tuple[CheckedFile, str | None]:
    """The file to write, and why it is not the sparse one where that was to be tried.

    Args:
        dense: the file with every zero written out.
        contents: what that holds.
        origins: tells which layers its tensors come from.
        check: compares files with the model.
        quantization: how the file is quantized.
        sparse: as the user passed it.
        progress: is told the stages.

    Raises:
        ValueError: `sparse=True`, and there is no sparse file.
        ExportError: the dense file does not answer as the model does.
    """
    reason = None
    if sparse:
        progress.begin_stage("leaving the zeros out", blocks_threads=True)
        try:
            return make_sparse_file(dense, contents, origins, check, quantization, auto=sparse == "auto"), None
        except SparseFileRefused as refusal:
            reason = str(refusal)
    if sparse is True:
        raise ValueError(f"sparse=True, quantization={quantization!r}: {reason}. Use sparse='auto' or False")
    return CheckedFile(dense, contents, check(dense), None), reason


def _write(target: Path, file: bytes) -> None:
    """Writes a file under another name, then gives it its own. Of a link the file that it points to is replaced.

    A crash leaves what was there.
    """
    with replaced(Path(os.path.realpath(target))) as out:
        out.write(file)
        out.flush()
        os.fsync(out.fileno())
