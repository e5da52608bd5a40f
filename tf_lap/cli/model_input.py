"""Models of the command line: read, with a remedy where that fails, and written."""

from __future__ import annotations

import argparse
import gzip
import importlib
import sys
from pathlib import Path
from typing import Any

from tf_lap.cli.errors import CommandError
from tf_lap.compat.model_files import (
    LoadedModel,
    ModelFile,
    ModelFileError,
    StoredCodeError,
    UnknownClassError,
    check_model_target,
    load_model_file,
    open_model_file,
    save_model_file,
)
from tf_lap.compat.types import Model
from tf_lap.warn import warn


def read_model(args: argparse.Namespace, path: Path | None = None) -> tuple[Model, ModelFile]:
    """The model of a file, and what the file is.

    Args:
        args: the command line; `custom` and `unsafe` say what may be made of the file, and `output`, where the command
            has it, is checked before the model is made.
        path: the file; that of the command line by default.

    Raises:
        CommandError: it is no model that can be read, with a remedy.
    """
    path = args.model if path is None else path
    custom_objects = _import_custom(args)
    try:
        file = open_model_file(path, [module.partition(".")[0] for module, _ in args.custom])
        _check_target(args, file)
        loaded = load_model_file(file, custom_objects, args.unsafe)
    except StoredCodeError as error:
        raise CommandError(f"{path}: {error}: pass --unsafe if you trust the file") from error
    except UnknownClassError as error:
        name = error.name if ":" in error.name else f"module:{error.name}"
        raise CommandError(f"{path}: {error}: pass --custom {name}, the module that has it and its name") from error
    except ModelFileError as error:
        raise CommandError(f"{path}: {error}") from error
    _warn_of_losses(path, loaded)
    return loaded.model, file


def _import_custom(args: argparse.Namespace) -> dict[str, Any]:
    """The classes and functions that the command line names, by name."""
    sys.path.insert(0, "")  # a command does not look into the present folder by itself
    custom_objects = {}
    try:
        for module, name in args.custom:
            imported = importlib.import_module(module)
            if name:
                custom_objects[name] = getattr(imported, name)
    except (ImportError, AttributeError) as error:
        raise CommandError(f"--custom {module}{':' * bool(name)}{name}: {error}") from error
    finally:
        sys.path.remove("")
    return custom_objects


def _check_target(args: argparse.Namespace, file: ModelFile) -> None:
    """Refuses the name of an output that no model of this Keras can have."""
    output = vars(args).get("output")
    if output is None or output.suffix == ".tflite":
        return
    try:
        check_model_target(output, file.of_tf_keras)
    except ModelFileError as error:
        raise CommandError(f"--output {output}: {error}") from error
    if output.is_dir() and (output.suffix or not (output / "saved_model.pb").is_file()):
        raise CommandError(f"--output {output}: there is a folder of this name, which is no SavedModel: name another")


def _warn_of_losses(path: Path, loaded: LoadedModel) -> None:
    if loaded.uncompiled_reason:
        warn(f"{path}: what it was compiled with is left out ({loaded.uncompiled_reason}); compile it before training")
    if loaded.was_wrapped:
        warn(f"{path}: pruning wrappers of tfmot are taken off")


def write_model(model: Model, path: Path) -> tuple[str, dict[str, Any]]:
    """Writes a model; returns a line about the file, and the same as plain data."""
    verb = "replaced" if path.exists() else "written"
    save_model_file(model, path)
    size, packed = measure_bytes(path)
    line = f"{verb}: {path} ({size:,} bytes, gzipped {packed:,})"
    return line, {"output": str(path), "bytes": size, "gzip_bytes": packed}


def measure_bytes(path: Path) -> tuple[int, int]:
    """How many bytes a file or a folder has, and how many when its files are compressed."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files), sum(len(gzip.compress(file.read_bytes())) for file in files)
