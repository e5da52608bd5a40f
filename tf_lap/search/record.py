"""The evaluations of a search on disk, so that one that was stopped goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Model
from tf_lap.files import remove_unfinished, replaced
from tf_lap.samples import Representative
from tf_lap.search.combinations import SamplesReadOnce

_FORMAT = "tf_lap search 1"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One pruned model that was evaluated.

    Attributes:
        combination: the number of its combination, from 0.
        target: the sparsity that `prune` was told.
        sparsity: the fraction of zeros in the pruned kernels.
        model_sparsity: the fraction of zeros in the whole model.
        value: what `evaluate` returned.
        within: whether that is within the drop.
    """

    combination: int
    target: float
    sparsity: float
    model_sparsity: float
    value: float
    within: bool


class Record:
    """The evaluations that are done; kept in a file, where one is named.

    Args:
        path: the file, which need not be there yet; None to keep nothing on disk.
        arguments: what the search was told, as plain data, by the arguments' names.

    Attributes:
        dense: the value of the model as it is; None before it is measured.
        evaluations: those that are done, by combination and target sparsity.

    Raises:
        ValueError: the file is none of a search, or of one with other arguments.
        OSError: it cannot be read, or its folder is not there.
    """

    def __init__(self, path: Path | None, arguments: Mapping[str, Any]) -> None:
        self._path, self._arguments = path, dict(arguments)
        self.dense: float | None = None
        self.evaluations: dict[tuple[int, float], Evaluation] = {}
        if path is None:
            return
        if not path.parent.is_dir():
            raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}: make it first")
        remove_unfinished(path)
        if path.exists():
            self._load(path)

    def note_dense(self, value: float) -> None:
        """Keeps the value of the model as it is."""
        self.dense = value
        self._save()

    def add(self, evaluation: Evaluation) -> None:
        """Keeps an evaluation."""
        self.evaluations[evaluation.combination, evaluation.target] = evaluation
        self._save()

    def _load(self, path: Path) -> None:
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            dense = content["dense"]
            evaluations = [Evaluation(**entry) for entry in content["evaluations"]]
            arguments = dict(content["arguments"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"path={str(path)!r} is damaged, or is no file of find_sparsity ({type(error).__name__}: {error}): "
                "name another one, or delete it to begin anew"
            ) from error
        for name, value in json.loads(json.dumps(self._arguments)).items():
            if arguments.get(name) != value:
                raise ValueError(f"path={str(path)!r}: {_describe_difference(name, arguments.get(name), value)}")
        self.dense = dense
        self.evaluations = {(entry.combination, entry.target): entry for entry in evaluations}

    def _save(self) -> None:
        if self._path is None:
            return
        content = {
            "format": _FORMAT,
            "arguments": self._arguments,
            "dense": self.dense,
            "evaluations": [dataclasses.asdict(entry) for entry in self.evaluations.values()],
        }
        with replaced(self._path) as file:
            file.write(json.dumps(content, indent=1).encode())


def _describe_difference(name: str, recorded: Any, current: Any) -> str:
    """What is wrong with the file of a search with another argument, and what to do."""
    remedy = "name another file, or delete it to begin anew"
    if name == "weights":
        return f"the search in this file was of a model with other weights: load those, {remedy}"
    if name == "data":
        return f"the search in this file had other data: pass those, {remedy}"
    return f"the search in this file had {name}={recorded}, and this one has {current}: pass the same, {remedy}"


def fingerprint_weights(model: Model) -> str:
    """A number by which the weights of a model are known again, with their names left out."""
    return _fingerprint([compat.host_array(variable) for variable in compat.weights(model)])


def fingerprint_data(data: Representative) -> str | None:
    """A number by which data are known again; None for none."""
    if data is None:
        return None
    content = data.samples if isinstance(data, SamplesReadOnce) else data
    return _fingerprint([np.asarray(array) for array in tf.nest.flatten(content)])


def _fingerprint(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]
