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

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.exporting import Input
from tf_lap.export import file as tflite
from tf_lap.export import samples
from tf_lap.export.check import TOLERANCES, Check, Difference, ExportError, Quantization
from tf_lap.export.report import ExportReport, TensorReport

# What runtimes are known to do wrong, so that it is not found out on a device.
_NO_INTEGERS = "LiteRT cannot load sparse tensors of int8 under its default delegate; float32 can be stored sparse"
_NO_SPARSE: dict[Quantization, str] = {"dynamic_range": _NO_INTEGERS, "int8": _NO_INTEGERS}
_NO_HALF_BLOCKS = "LiteRT computes NaN from sparse blocks of float16; float32 can be stored sparse"
_TOO_FEW = "no tensor has zeros enough to be stored without them"
# The fraction of zeros below which the converter stores a tensor dense.
_LEAST = 0.3


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
    stripped in the file; the model itself stays as it is.

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
            an array 500 samples that lie evenly in it are used, of a dataset the first 500.
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
    if quantization not in TOLERANCES:
        raise ValueError(f"quantization={quantization!r} is not known: use one of {list(TOLERANCES)}")
    if sparse not in (True, False, "auto"):
        raise ValueError(f"sparse={sparse!r}: expected True, False or 'auto'")
    if quantization == "int8" and representative_dataset is None:
        raise ValueError(
            "quantization='int8' calibrates activations: pass representative_dataset, typical inputs such as "
            "x_train[:500], a tf.data.Dataset, or a function that returns samples"
        )
    compat.check_model(model)
    inputs = exporting.inputs(model)
    given = None if representative_dataset is None else samples.given(representative_dataset, inputs)
    model = exporting.without_wrappers(model)
    with exporting.in_float32(model):
        dense = _convert(model, _settings(quantization, given, inputs))
        contents = tflite.read(dense)
        if contents.flex:
            raise ExportError(
                f"model {model.name!r} uses {', '.join(contents.flex)}, for which TFLite has no operation of its own; "
                "a file that needs TensorFlow's would run in no interpreter here, so it could not be checked"
            )
        check = Check(model, inputs, given, dense, quantization)
        reason = _NO_SPARSE.get(quantization)
        if not any(TensorReport.of(weight).sparsity >= _LEAST for weight in contents.weights):
            reason = _TOO_FEW
        written, difference = dense, None
        if sparse and reason is None:
            reason, candidate = _sparse_file(model, quantization, dense, check, sparse is True)
            if candidate is not None:
                written, difference = candidate
        if sparse is True and reason is not None:
            raise ValueError(f"sparse=True, quantization={quantization!r}: {reason}. Use sparse='auto' or False")
        if difference is None:
            difference = check(dense)
    if written is not dense:
        contents = tflite.read(written)
    _write(target, written)
    return ExportReport(
        path=target,
        quantization=quantization,
        sparse=bool(contents.sparse),
        reason=reason if sparse else None,
        dense_bytes=len(dense),
        file_bytes=len(written),
        gzip_bytes=len(gzip.compress(written)),
        tensors=tuple(map(TensorReport.of, contents.weights)),
        difference=difference.absolute,
        relative_difference=difference.relative,
        tolerance=TOLERANCES[quantization],
        runtime=check.runtime.name,
        _dense=dense,
        _sample=check.sample,
    )


def _sparse_file(
    model: Any, quantization: Quantization, dense: bytes, check: Check, wanted: bool
) -> tuple[str | None, tuple[bytes, Difference] | None]:
    """Why there is no sparse file that is worth having, or the file and how far it is from Keras."""
    file = _convert(model, _settings(quantization, None, None, sparse=True))
    stored = tflite.read(file).sparse
    if not stored:
        return _TOO_FEW, None
    if quantization == "float16" and any(weight.encoding != "sparse" for weight in stored):
        return _NO_HALF_BLOCKS, None
    if len(file) >= len(dense) and not wanted:
        return "a sparse file is larger", None
    try:
        return None, (file, check(file))
    except ExportError as error:
        return str(error), None


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
    """What a converter's error says, without the model's whole text that it shows too."""
    first, *others = str(error).splitlines() or [type(error).__name__]
    return "; ".join([first[:300], *(line.strip() for line in others if _TELLING.match(line))])


_TELLING = re.compile(r"\s*\w+ ops: ")


def _checked_path(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.is_dir() or not target.name:
        raise IsADirectoryError(f"path={os.fspath(path)!r} is a directory: name the file to write in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={os.fspath(path)!r}: there is no directory {os.fspath(target.parent)!r}")
    return target


def _write(target: Path, file: bytes) -> None:
    """Writes beside the target first: a crash leaves what was there."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_bytes(file)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
