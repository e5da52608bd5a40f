"""TFLite files of pruned models: converted, encoded without zeros where that pays, checked, and only then written."""

from __future__ import annotations

import contextlib
import operator
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from tf_lap import compat, samples
from tf_lap.compat import converting, exporting
from tf_lap.export import file as tflite
from tf_lap.export.check import TOLERANCES, Check, ExportError, Quantization
from tf_lap.export.convert import convert, explained, in_batches, loop_advice
from tf_lap.export.origins import Origins
from tf_lap.export.progress import Progress
from tf_lap.export.report import ExportReport, TensorReport
from tf_lap.export.sparse import Refused, sparse_file
from tf_lap.files import AnyPath, as_path, replaced


def export_tflite(
    model: Any,
    path: AnyPath,
    *,
    quantization: Quantization = None,
    representative_dataset: samples.Representative = None,
    sparse: bool | Literal["auto"] = "auto",
    batch_size: int | None = None,
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

    With `sparse="auto"` a file without zeros is taken where it computes right, is smaller, and takes at most 1.2 times
    as long as the dense one. Where the runtime multiplies tensors as they are stored, that is measured: seven rounds
    of each by turns on one thread, of which the fastest count, and once more where the sparse file seems too slow.

    Example:

    >>> report = tf_lap.prune(model, 0.9, pattern="block:1x4")
    >>> exported = tf_lap.export_tflite(model, "model.tflite")
    >>> exported.relative_difference < exported.tolerance
    True

    Args:
        model: a built Keras model, of Keras 3 or tf_keras.
        path: the file to write; bytes are decoded as `os.fsdecode` does.
        quantization: None for float32; "dynamic_range" (weights int8), "float16" (weights), or "int8" (weights and
            activations; inputs and outputs of the file stay as the model's).
        representative_dataset: typical inputs, which int8 needs for calibration: an array with a batch dimension (for
            several inputs a list of them or a mapping by name), a `tf.data.Dataset` (batched or not; of `(x, y)` the x
            is taken), or a function without arguments that returns an iterable of samples with a batch dimension. Of
            an array 500 samples that lie evenly in it are used, of the others the first 500.
        sparse: whether to store tensors without their zeros: True, False, or "auto": where the file gets smaller, the
            runtime computes it right, and it does not run slower.
        batch_size: the batch of the file, where the model's own is open; None leaves it open.
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
    target = _checked_path(path)
    _check_choices(quantization, representative_dataset, sparse)
    compat.check_model(model)
    given = (
        None
        if representative_dataset is None
        else samples.read_samples(representative_dataset, exporting.inputs(model))
    )
    model = exporting.without_wrappers(model)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(target.name, bool(verbose)))
        stack.enter_context(exporting.in_float32(model))
        inputs = exporting.signature(model, _checked_batch(batch_size))
        batch = inputs[0].shape[0]
        if given is not None and batch is not None:
            given = in_batches(given, batch)
        progress.stage("tracing the model")
        with explained(model):
            program = stack.enter_context(converting.saved(model, inputs))
        progress.stage("converting", silent=True)
        dense = convert(model, program, inputs, given, quantization, progress)
        origins = Origins(program.readers, dict(converting.matrices(model)))
        contents = tflite.read(dense, origins)
        if contents.flex:
            names = ", ".join(contents.flex)
            raise ExportError(
                f"model {model.name!r} uses {names}, for which TFLite has no operation of its own, or not in this "
                + "; ".join(
                    ["dtype; a file that needs TensorFlow's cannot be checked here", *loop_advice(names, batch)]
                )
            )
        progress.stage("comparing with Keras")
        check = Check(model, inputs, given, dense, quantization)
        files, difference, reason, latency = (dense,), None, None, None
        if sparse:
            progress.stage("leaving the zeros out", silent=True)
            try:
                file, contents, difference, latency = sparse_file(
                    dense, contents, origins, check, quantization, auto=sparse == "auto"
                )
                files = (dense, file)
            except Refused as refusal:
                reason = str(refusal)
        if sparse is True and reason is not None:
            raise ValueError(f"sparse=True, quantization={quantization!r}: {reason}. Use sparse='auto' or False")
        if difference is None:
            difference = check(dense)
    _write(target, files[-1])
    return ExportReport(
        path=target,
        quantization=quantization,
        sparse=bool(contents.sparse),
        reason=reason,
        dense_bytes=len(dense),
        file_bytes=len(files[-1]),
        tensors=tuple(map(TensorReport.of, contents.weights)),
        difference=difference.absolute,
        relative_difference=difference.relative,
        tolerance=TOLERANCES[quantization],
        runtime=check.runtime.name,
        batch_size=batch,
        latency=latency,
        _files=files,
        _sample=check.sample,
    )


def _check_choices(quantization: Any, representative_dataset: Any, sparse: Any) -> None:
    if not isinstance(quantization, (str, type(None))) or quantization not in TOLERANCES:
        raise ValueError(f"quantization={quantization!r} is not known: use one of {list(TOLERANCES)}")
    if not isinstance(sparse, bool) and sparse != "auto":
        raise ValueError(f"sparse={sparse!r}: expected True, False or 'auto'")
    if quantization == "int8" and representative_dataset is None:
        raise ValueError(
            "quantization='int8' calibrates activations: pass representative_dataset, typical inputs such as "
            "x_train[:500], a tf.data.Dataset, or a function that returns samples"
        )


def _checked_batch(batch_size: Any) -> int | None:
    if batch_size is None:
        return None
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__"):
        raise TypeError(f"batch_size={batch_size!r}: expected a whole number, or None for the model's own batch")
    if operator.index(batch_size) < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected at least 1, or None for the model's own batch")
    return operator.index(batch_size)


def _checked_path(path: AnyPath) -> Path:
    target = as_path(path)
    if target.is_dir() or not target.name:
        raise IsADirectoryError(f"path={str(target)!r} is a directory: name the file to write in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={str(target)!r}: there is no directory {str(target.parent)!r}")
    with tempfile.TemporaryFile(dir=target.parent):  # raises before the work where nothing can be written
        pass
    return target


def _write(target: Path, file: bytes) -> None:
    """Writes beside the target first: a crash leaves what was there. Of a link the file that it names is replaced."""
    with replaced(Path(os.path.realpath(target))) as out:
        out.write(file)
        out.flush()
        os.fsync(out.fileno())
