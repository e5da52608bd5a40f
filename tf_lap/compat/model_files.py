"""Files of models: which Keras wrote one, reading it without running what is stored in it, and writing one whole."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras

from tf_lap.compat.exporting import without_wrappers
from tf_lap.compat.flavours import is_tf_keras
from tf_lap.compat.models import parts
from tf_lap.compat.stored_objects import StoredObjects, find_stored_objects
from tf_lap.compat.types import Model
from tf_lap.files import replaced

ARCHIVE, HDF5, SAVED_MODEL = "archive", "hdf5", "saved_model"
_ENDINGS = {ARCHIVE: (".keras",), HDF5: (".h5", ".hdf5")}
_METADATA = "keras_metadata.pb"  # tf_keras writes it beside the graph of a SavedModel
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function) |Unknown [\w ]+: |Cannot deserialize object of type )['`]([\w.>]+)['`]"
)


class ModelFileError(ValueError):
    """A file that is not read as a model, and why."""


class UnknownClassError(ModelFileError):
    """A file names a class or a function that is not known.

    Attributes:
        name: its name, with its module where the file has that: "my_layers:Gate".
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"it holds {name}, which is not Keras's own")
        self.name = name


class StoredCodeError(ModelFileError):
    """A file holds code, which is not run.

    Attributes:
        names: the layers and objects that are code.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(f"it holds code ({', '.join(names)}), which is not run")
        self.names = tuple(names)


class ModelFile(NamedTuple):
    """A file of a model, before the model is made.

    Attributes:
        path: where it is.
        form: `ARCHIVE`, `HDF5` or `SAVED_MODEL`.
        of_tf_keras: whether tf_keras wrote it, or Keras 2.
        version: the version of that Keras; empty where the file does not say.
        objects: what its config names beside Keras's own classes.
    """

    path: Path
    form: str
    of_tf_keras: bool
    version: str
    objects: StoredObjects

    @property
    def flavour(self) -> str:
        """The Keras that reads the file, in words."""
        return f"{'tf_keras' if self.of_tf_keras else 'Keras'} {self.version}".rstrip()


class LoadedModel(NamedTuple):
    """A model and how it was read.

    Attributes:
        model: the model.
        uncompiled_reason: why what it was compiled with was left out; empty where it was not.
        was_wrapped: whether pruning wrappers of tfmot were taken off it.
    """

    model: Model
    uncompiled_reason: str
    was_wrapped: bool


def open_model_file(path: Path, trusted: Collection[str] = ()) -> ModelFile:
    """Finds out what a file is, from what is in it and not from its name. Nothing in it is run.

    Args:
        path: a `.keras` or `.h5` file, or the folder of a SavedModel.
        trusted: the outermost names of modules whose classes the user has named.

    Raises:
        ModelFileError: it is no model, is damaged, or has no layers. OSError: it cannot be opened.
    """
    if path.is_dir():
        return _open_saved_model(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start[:4] == b"PK\x03\x04":
        return _open_archive(path, trusted)
    if start == b"\x89HDF\r\n\x1a\n":
        return _open_hdf5(path, trusted)
    if start[4:8] == b"TFL3":
        raise ModelFileError("it is a TFLite file, which holds no Keras model: name the model that it was made of")
    raise ModelFileError("it is no file of a Keras model: expected .keras, .h5 or the folder of a SavedModel")


def _open_archive(path: Path, trusted: Collection[str]) -> ModelFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if not {"config.json", "metadata.json"} <= names:
                raise ModelFileError(f"it is an archive without a model (it has {', '.join(sorted(names)[:3])})")
            damaged = archive.testzip()
            if damaged is not None:
                raise ModelFileError(f"it is damaged: its part {damaged!r} has another checksum")
            metadata, config = (json.loads(archive.read(name)) for name in ("metadata.json", "config.json"))
    except (zipfile.BadZipFile, EOFError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"it is damaged, or was not written to the end ({error})") from error
    version = str(metadata.get("keras_version", ""))
    return ModelFile(path, ARCHIVE, _is_keras_2(version), version, find_stored_objects(config, trusted))


def _open_hdf5(path: Path, trusted: Collection[str]) -> ModelFile:
    try:
        with h5py.File(path, "r") as file:
            attributes = {key: _as_text(file.attrs[key]) for key in file.attrs}
            holds_weights = "layer_names" in attributes or "layers" in file or "_layer_checkpoint_dependencies" in file
    except OSError as error:
        raise ModelFileError(f"it is damaged, or was not written to the end ({error})") from error
    if "model_config" not in attributes:
        if holds_weights:
            raise ModelFileError(
                "it holds weights alone, and not the model: load them into the model, and save that with "
                "model.save('model.keras')"
            )
        raise ModelFileError("it is an HDF5 file without a model")
    config = [json.loads(attributes[key]) for key in ("model_config", "training_config") if key in attributes]
    version = attributes.get("keras_version", "")
    return ModelFile(path, HDF5, _is_keras_2(version), version, find_stored_objects(config, trusted))


def _open_saved_model(path: Path) -> ModelFile:
    if not (path / "saved_model.pb").is_file():
        raise ModelFileError(
            "it is a folder without saved_model.pb: expected .keras, .h5 or the folder of a SavedModel"
        )
    if not (path / _METADATA).is_file():
        raise ModelFileError(
            "it is a SavedModel of functions alone, as model.export writes it: it has no layers. Save the model with "
            "model.save('model.keras')"
        )
    from tf_keras.protobuf import saved_metadata_pb2

    metadata = saved_metadata_pb2.SavedMetadata()
    try:
        metadata.ParseFromString((path / _METADATA).read_bytes())
    except Exception as error:  # protobuf's DecodeError has no public home
        raise ModelFileError(f"its {_METADATA} is damaged ({error})") from error
    configs = [json.loads(node.metadata) for node in metadata.nodes if node.metadata]
    return ModelFile(path, SAVED_MODEL, True, "", find_stored_objects(configs))


def _as_text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _is_keras_2(version: str) -> bool:
    """Whether it is a version of Keras 2 or 1, or of none: older files do not say which."""
    major = version.partition(".")[0]
    return not major.isdecimal() or int(major) < 3


def load_model_file(
    file: ModelFile, custom_objects: Mapping[str, Any] | None = None, unsafe: bool = False
) -> LoadedModel:
    """Makes the model of a file.

    What it was compiled with is left out where it cannot be made. Pruning wrappers of tfmot are taken off.

    Args:
        file: the file.
        custom_objects: classes and functions that are not Keras's own, by name.
        unsafe: whether code that is stored in the file is run, and modules that it names are imported.

    Raises:
        StoredCodeError: code is stored in it, and `unsafe` is False. UnknownClassError: a class is not known.
        ModelFileError: it cannot be read otherwise.
    """
    if file.objects.code and not unsafe:
        raise StoredCodeError(file.objects.code)
    if file.objects.foreign and not unsafe:
        module, name = file.objects.foreign[0]
        raise UnknownClassError(f"{module}:{name}")
    reason = ""
    try:
        model = _load(file, custom_objects, unsafe, compile=True)
    except Exception as error:  # a user's loss or optimizer may raise anything
        try:
            model = _load(file, custom_objects, unsafe, compile=False)
        except Exception as second:
            raise _explain(file, second) from second
        reason = _first_line(error)
    revived = _find_revived(model) if file.form == SAVED_MODEL else None
    if revived is not None:
        raise UnknownClassError(revived)
    bare = without_wrappers(model)
    return LoadedModel(bare, reason, bare is not model)


def _load(file: ModelFile, custom_objects: Mapping[str, Any] | None, unsafe: bool, compile: bool) -> Model:
    arguments: dict[str, Any] = {"custom_objects": dict(custom_objects or {}), "compile": compile}
    if file.form != SAVED_MODEL:
        arguments["safe_mode"] = not unsafe
    with _named_by_form(file) as path:
        if not file.of_tf_keras:
            return keras.saving.load_model(str(path), **arguments)
        import tf_keras

        from tf_lap.compat.tfmot import prune

        with prune.prune_scope():
            return tf_keras.models.load_model(str(path), **arguments)


@contextlib.contextmanager
def _named_by_form(file: ModelFile) -> Iterator[Path]:
    """The path of a file, with the ending of its form, by which Keras goes."""
    endings = _ENDINGS.get(file.form)
    if endings is None or file.path.suffix in endings:
        yield file.path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{endings[0]}"
        link.symlink_to(file.path.resolve())
        yield link


def _explain(file: ModelFile, error: Exception) -> ModelFileError:
    """What hinders a file from being loaded, in a sentence."""
    if isinstance(error, ModelFileError):
        return error
    unknown = _UNKNOWN.search(str(error))
    if unknown is not None:
        return UnknownClassError(unknown.group(1).rpartition(">")[2])
    package = "tf_keras" if file.of_tf_keras else "keras"
    installed = importlib.metadata.version(package)
    if _as_numbers(file.version) > _as_numbers(installed):
        return ModelFileError(
            f"{file.flavour} wrote it, and {package} {installed} cannot read it ({_first_line(error)}): "
            f"pip install -U {package}"
        )
    return ModelFileError(f"{package} {installed} cannot read it ({_first_line(error)})")


def _as_numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _find_revived(model: Model) -> str | None:
    """The name of a class that tf_keras did not know, and put something in the place of; None where there is none."""
    for layer in parts(model):
        if any(base.__name__ in ("RevivedLayer", "RevivedNetwork") for base in type(layer).__mro__[1:]):
            return type(layer).__name__
    return None


def check_model_target(path: Path, of_tf_keras: bool) -> None:
    """Raises ModelFileError where a model of this Keras cannot be written at a path of this name."""
    if path.suffix in (".keras", ".h5", ".hdf5") or (of_tf_keras and not path.suffix):
        return
    folder = " or no ending, for a SavedModel" if of_tf_keras else ""
    raise ModelFileError(f"its name ends in {path.suffix or 'nothing'}: expected .keras or .h5{folder}")


def save_model_file(model: Model, path: Path) -> None:
    """Writes a model in the form that the ending of the path names. What is there is replaced whole or not at all.

    Args:
        model: the model.
        path: it ends in `.keras` or `.h5`; a folder without an ending becomes a SavedModel of tf_keras.

    Raises:
        ModelFileError: another ending. OSError: it cannot be written.
    """
    check_model_target(path, is_tf_keras(model))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part") as folder:
        written = Path(folder) / path.name
        if path.suffix:
            model.save(str(written))
            with written.open("rb") as source, replaced(path) as target:
                shutil.copyfileobj(source, target)
        else:
            model.save(str(written), save_format="tf")
            _replace_folder(written, path)


def _replace_folder(written: Path, path: Path) -> None:
    """Gives a folder its name. It cannot replace another one: the old one steps aside first."""
    aside = written.with_name("replaced")
    if path.exists():
        os.replace(path, aside)
    try:
        os.replace(written, path)
    except OSError:
        if aside.exists():
            os.replace(aside, path)
        raise
