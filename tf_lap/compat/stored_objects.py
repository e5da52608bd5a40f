"""What a model's file names: code that is stored in it, and classes that are not Keras's own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

# Objects that are made of what a file holds: marshalled bytecode, a pickle, another SavedModel.
_CODE_CLASSES = ("__lambda__", "TorchModuleWrapper", "TFSMLayer")
# A class or function of Keras that a config may name lies in one of these modules: not in `utils`, which reads files
# and the net.
_KERAS_MODULES = frozenset(
    [
        "activations",
        "applications",
        "backend",
        "constraints",
        "distillation",
        "dtype_policies",
        "engine",
        "initializers",
        "layers",
        "legacy",
        "losses",
        "metrics",
        "mixed_precision",
        "models",
        "ops",
        "optimizers",
        "premade_models",
        "quantizers",
        "random",
        "regularizers",
    ]
)
_KERAS = ("keras", "tf_keras", "keras_src")
_OTHER_TRUSTED = ("builtins", "tensorflow_model_optimization", "tf_lap")


class StoredObjects(NamedTuple):
    """What is in the config of a model beside layers of Keras.

    Attributes:
        code: names of the layers and objects that are code stored in the file.
        foreign: the modules and names of classes and functions that are not Keras's own, each once.
    """

    code: tuple[str, ...]
    foreign: tuple[tuple[str, str], ...]


def find_stored_objects(config: Any, trusted: Collection[str] = ()) -> StoredObjects:
    """Reads a model's config, without making anything of it.

    Args:
        config: what JSON gives of the config: mappings, lists and plain values.
        trusted: the outermost names of modules that the user has named.
    """
    code: dict[str, None] = {}
    foreign: dict[tuple[str, str], None] = {}
    for entry in _walk(config):
        class_name, module = entry.get("class_name"), entry.get("module")
        name = _name(entry)
        if class_name in _CODE_CLASSES or _is_bytecode_layer(entry):
            code[name] = None
        elif isinstance(module, str) and not _is_trusted(module, trusted):
            foreign[module, name if class_name == "function" else str(class_name)] = None
    return StoredObjects(tuple(code), tuple(foreign))


def _walk(config: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings in a config that describe an object."""
    if isinstance(config, Mapping):
        if isinstance(config.get("class_name"), str):
            yield config
        if not _is_bytecode_layer(config):  # what is inside is named by the layer
            for value in config.values():
                yield from _walk(value)
    elif isinstance(config, list):
        for value in config:
            yield from _walk(value)


def _name(entry: Mapping[str, Any]) -> str:
    """The name of a layer or function, or that of its class."""
    config = entry.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("name"), str):
        return config["name"]
    return config if isinstance(config, str) else str(entry["class_name"])


def _is_bytecode_layer(entry: Mapping[str, Any]) -> bool:
    """Whether it is a Lambda layer of a function that is stored as bytecode."""
    config = entry.get("config")
    if entry.get("class_name") != "Lambda" or not isinstance(config, Mapping):
        return False
    kinds = [config.get(f"{key}_type") for key in ("function", "output_shape", "mask")]
    function = config.get("function")
    is_lambda = isinstance(function, Mapping) and function.get("class_name") == "__lambda__"
    return "lambda" in kinds or isinstance(function, list) or is_lambda


def _is_trusted(module: str, trusted: Collection[str]) -> bool:
    root, *rest = module.split(".")
    if root in _KERAS:
        parts = [part for part in rest if part not in ("src", "api", "_v2", "keras")]
        return not parts or parts[0] in _KERAS_MODULES
    return root in (*_OTHER_TRUSTED, *trusted)
