"""TFLite files of pruned models: converted, encoded without zeros where that pays, checked, and only then written."""

from __future__ import annotations

import gzip
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tf_lap import compat, samples
from tf_lap.compat import exporting
from tf_lap.compat.exporting import Input
from tf_lap.export import file as tflite
from tf_lap.export.check import TOLERANCES, Check, Difference, ExportError, Quantization
from tf_lap.export.report import ExportReport, TensorReport
from tf_lap.files import replaced

_TOO_FEW = "no tensor has zeros enough to be stored without them"
_REMEDY = "float32 can be stored sparse"


def export_tflite(
    model: Any,
    path: str | os.PathLike[str],
    *,
    quantization: Quantization = None,
    representative_dataset: samples.Representative = None,
    sparse: bool | Literal["auto"] = "auto",
) -> ExportReport:
    """Writes a model as a TFLite file, and checks that the file answers as the model does.

    The file is run in LiteRT (the package ai-edge-litert, `pip install "tf_lap[litert]"`; TensorFlow's interpreter
    where it is not installed) on eight inputs: of `representative_dataset`, or random ones. Each output may differ
    from Keras's by a fraction of the largest: 0.001, float16 0.01, dynamic range 0.1, int8 0.2; whole numbers from a
    quantized file may differ by anything. A file that does not pass is not left at `path`; what was there stays.

    A model under a mixed precision policy is converted as it computes in float32. Pruning wrappers of tfmot are
    stripped in the file. The model itself stays as it is.

    Example:

    >>> report = tf_lap.prune(model, 0.9, pattern="block:1x4")
    >>> exported = tf_lap.export_tflite(model, "model.tflite")
    >>> exported.sparse
    True

    Args:
        model: a built Keras model, of Keras 3 or tf_keras.
        path: the file to write.
        quantization: None for float32; "dynamic_range" (weights int8), "float16" (weights), or "int8" (weights and
            activations; inputs and outputs of the file stay as the model's).
        representative_dataset: typical inputs, which int8 needs for calibration: an array with a batch dimension (for
            several inputs a list of them or a mapping by name), a `tf.data.Dataset` (batched or not; of `(x, y)` the x
            is taken), or a function without arguments that returns an iterable of samples with a batch dimension. Of
            an array 500 samples that lie evenly in it are used, of the others the first 500.
        sparse: whether to store tensors without their zeros: True, False, or "auto": where the file gets smaller and
            the runtime computes it right.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError, ValueError: a model that is not built or not of Keras, an argument that is not known, inputs that do
            not fit, or `sparse=True` where no sparse file can be written.
        ExportError: TensorFlow cannot convert the model, or the file does not answer as the model does.
        OSError: the file cannot be written.
    """
    target = _checked_path(path)
    _check_choices(quantization, representative_dataset, sparse)
    compat.check_model(model)
    inputs = exporting.inputs(model)
    given = None if representative_dataset is None else samples.given(representative_dataset, inputs)
    model = exporting.without_wrappers(model)
    with exporting.in_float32(model):
        dense = _convert(model, _settings(quantization, given, inputs))
        contents = tflite.read(dense)
        if contents.flex:
            names = ", ".join(contents.flex)
            raise ExportError(
                f"model {model.name!r} uses {names}, for which TFLite has no operation of its own, or not in this "
                + "; ".join(["dtype; a file that needs TensorFlow's cannot be checked here", *_remedies(names)])
            )
        check = Check(model, inputs, given, dense, quantization)
        files, difference, reason = (dense,), None, None
        if sparse:
            smaller = None if sparse is True else len(dense)
            settings = _settings(quantization, given, inputs, sparse=True)
            try:
                file, contents, difference = _sparse_file(model, settings, quantization, contents, check, smaller)
                files = (dense, file)
            except _Refused as refusal:
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
        gzip_bytes=len(gzip.compress(files[-1])),
        tensors=tuple(map(TensorReport.of, contents.weights)),
        difference=difference.absolute,
        relative_difference=difference.relative,
        tolerance=TOLERANCES[quantization],
        runtime=check.runtime.name,
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


class _Refused(Exception):
    """There is no sparse file that is worth having; its text says why."""


def _sparse_file(
    model: Any,
    settings: dict[str, Any],
    quantization: Quantization,
    dense: tflite.Contents,
    check: Check,
    smaller: int | None,
) -> tuple[bytes, tflite.Contents, Difference]:
    """A file without zeros, what it holds, and how far it is from Keras.

    Args:
        model: the model.
        settings: of the converter.
        quantization: how the file is quantized.
        dense: what the file with zeros holds.
        check: compares it with the model.
        smaller: how many bytes it must stay below; None for any.

    Raises:
        _Refused: there is none, or it is wrong.
    """
    try:
        file = _convert(model, settings)
        contents = tflite.read(file)
    except (ExportError, ValueError) as error:
        raise _Refused(str(error)) from error
    fault = _fault(quantization, dense, contents)
    if fault is not None:
        raise _Refused(fault)
    if smaller is not None and len(file) >= smaller:
        raise _Refused("a sparse file is larger")
    try:
        return file, contents, check(file)
    except ExportError as error:
        raise _Refused(str(error)) from error


def _fault(quantization: Quantization, dense: tflite.Contents, sparse: tflite.Contents) -> str | None:
    """What is known to be wrong with a sparse file; some of it shows on other devices only, or in a few outputs."""
    stored = sparse.sparse
    if not stored:
        return _TOO_FEW
    if _nonzeros(dense) != _nonzeros(sparse):
        return "TensorFlow's converter lost weights where the inputs of a layer are no multiple of its blocks"
    if quantization == "float16" and any(weight.block > 1 for weight in stored):
        return f"LiteRT computes NaN from sparse blocks of float16; {_REMEDY}"
    if quantization == "dynamic_range":
        return f"LiteRT does not load sparse tensors of dynamic range, or computes wrongly with them; {_REMEDY}"
    if quantization == "int8" and any(weight.values.ndim == 2 and weight.block != _INT8_BLOCK for weight in stored):
        return (
            "LiteRT loads sparse Dense layers of int8 only in blocks of 1 output by 16 inputs (pattern='block:1x16'); "
            f"{_REMEDY}"
        )
    return None


_INT8_BLOCK = 16


def _nonzeros(contents: tflite.Contents) -> list[tuple[tuple[int, ...], int]]:
    return sorted((weight.values.shape, int(np.count_nonzero(weight.values))) for weight in contents.weights)


def _settings(
    quantization: Quantization,
    given: Sequence[list[np.ndarray]] | None,
    inputs: Sequence[Input] | None,
    sparse: bool = False,
) -> dict[str, Any]:
    """Attributes of a converter."""
    optimizations = [] if quantization is None else [tf.lite.Optimize.DEFAULT]
    if sparse:
        optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    settings: dict[str, Any] = {"optimizations": optimizations}
    if quantization == "float16":
        settings["target_spec"] = {"supported_types": [tf.float16]}
    if quantization == "int8":
        names = [each.name for each in inputs or ()]

        def calibration() -> Any:
            for sample in given or ():
                yield dict(zip(names, sample, strict=True)) if len(names) > 1 else sample

        settings["representative_dataset"] = calibration
        settings["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
    return settings


def _convert(model: Any, settings: dict[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            exporting.convert(model, path, settings)
        except Exception as error:
            raise ExportError(f"TensorFlow cannot convert model {model.name!r} to TFLite: {_gist(error)}") from error
        return path.read_bytes()


def _gist(error: Exception) -> str:
    """What a converter's error says, without the model's whole text or the way through Keras that it shows too."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    first = lines[-1] if lines[0].startswith("in user code") else lines[0]
    # Where the converter names places in the model first, what matters is the operation there and the last words.
    if _PLACE in first:
        operations = dict.fromkeys(_OPERATION.findall(first))
        first = f"{', '.join(operations)}: {lines[-1].rpartition('error: ')[2]}"
    telling = [line for line in lines if _TELLING.match(line) and line not in first]
    return "; ".join([first[:400], *dict.fromkeys(telling), *_remedies(str(error))])


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = "loc(callsite("
_OPERATION = re.compile(r'fused\["(?!StatefulPartitionedCall)(\w+):"')
_TELLING = re.compile(r"\w+ ops: ")


def _remedies(text: str) -> list[str]:
    return ["build recurrent layers with unroll=True"] if "TensorList" in text else []


def _checked_path(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.is_dir() or not target.name:
        raise IsADirectoryError(f"path={os.fspath(path)!r} is a directory: name the file to write in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={os.fspath(path)!r}: there is no directory {os.fspath(target.parent)!r}")
    with tempfile.TemporaryFile(dir=target.parent):  # raises before the work where nothing can be written
        pass
    return target


def _write(target: Path, file: bytes) -> None:
    """Writes beside the target first: a crash leaves what was there. Of a link the file that it names is replaced."""
    with replaced(Path(os.path.realpath(target))) as out:
        out.write(file)
        out.flush()
        os.fsync(out.fileno())
