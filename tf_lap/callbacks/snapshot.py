"""A training on disk in one file: all variables, the masks, and the position in its data."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_lap.callbacks.mask_backup import PruningState, unpack_mask
from tf_lap.compat.callback_states import CallbackState
from tf_lap.files import replaced

_FORMAT = "tf_lap snapshot 1"


class DamagedError(ValueError):
    """The file is not whole, or is no snapshot."""


class Position(NamedTuple):
    """Where in its data a training is.

    Attributes:
        first_epoch: with which epoch its fit began.
        epoch: with which epoch it goes on, counted from 0.
        executions: how many calls of the training function are done in that epoch.
        steps_per_execution: how many batches a call takes.
    """

    first_epoch: int
    epoch: int
    executions: int = 0
    steps_per_execution: int = 1


class Value(NamedTuple):
    """A variable's content.

    Attributes:
        name: the variable's name, for messages.
        arrays: its arrays, one a replica that has its own.
    """

    name: str
    arrays: Sequence[np.ndarray]

    @property
    def kinds(self) -> list[tuple[str, tuple[int, ...]]]:
        """The dtype and the shape of each array."""
        return [(array.dtype.name, array.shape) for array in self.arrays]


class Snapshot(NamedTuple):
    """All that a killed training needs to go on.

    Attributes:
        position: where in its data it is.
        variables: the content of the variables in their order, by their owner, such as "the model".
        pruning: step and masks of the callback that sets masks; None where there is none.
        random: the states of random generators that no variable holds, as plain numbers and lists.
        callbacks: what Keras's own callbacks of the fit remember, such as the best weights so far.
    """

    position: Position
    variables: Mapping[str, Sequence[Value]]
    pruning: PruningState | None
    random: Any
    callbacks: Sequence[CallbackState] = ()


def save(path: Path, snapshot: Snapshot) -> None:
    """Writes a snapshot, complete or not at all.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    values = [value for section in snapshot.variables.values() for value in section]
    callback_weights = [state.weights or () for state in snapshot.callbacks]
    index = {
        "format": _FORMAT,
        "position": snapshot.position,
        "variables": {
            section: [(value.name, value.kinds) for value in content] for section, content in snapshot.variables.items()
        },
        "pruning": None,
        "random": snapshot.random,
        "callbacks": [
            {
                "name": state.name,
                "numbers": state.numbers,
                "weights": None if state.weights is None else [(a.dtype.name, a.shape) for a in state.weights],
            }
            for state in snapshot.callbacks
        ],
    }
    masks: list[np.ndarray] = []
    if snapshot.pruning is not None:
        masks = list(snapshot.pruning.masks.values())
        shapes = {name: mask.shape for name, mask in snapshot.pruning.masks.items()}
        step, iterations, _, callback_class = snapshot.pruning
        index["pruning"] = {"step": step, "iterations": iterations, "masks": shapes, "holder": callback_class}
    with replaced(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        archive.writestr("index.json", json.dumps(index))
        for i, array in enumerate(array for value in values for array in value.arrays):
            with archive.open(f"variable_{i}", "w", force_zip64=True) as member:
                member.write(array.tobytes())
        for i, mask in enumerate(masks):
            archive.writestr(f"mask_{i}", np.packbits(mask).tobytes())
        for i, array in enumerate(itertools.chain.from_iterable(callback_weights)):
            with archive.open(f"kept_{i}", "w", force_zip64=True) as member:
                member.write(array.tobytes())


def load(path: Path) -> Snapshot:
    """Reads a snapshot.

    Raises:
        OSError: there is none, or it cannot be read.
        DamagedError: the file is not whole, or is no snapshot.
    """
    with path.open("rb") as file:
        try:
            return _read(file)
        except Exception as error:  # damage raises any of a dozen kinds
            raise DamagedError(f"{path.name} is damaged or is no snapshot ({type(error).__name__}: {error})") from error


def _read(file: io.BufferedReader) -> Snapshot:
    # `read` compares the checksum of all that it returns.
    with zipfile.ZipFile(file) as archive:
        index = json.loads(archive.read("index.json"))
        if index["format"] != _FORMAT:
            raise ValueError(f"its format is {index['format']!r}, and this version reads {_FORMAT!r}")
        number = itertools.count()
        variables = {
            section: [
                Value(name, [_read_array(archive.read(f"variable_{next(number)}"), *kind) for kind in kinds])
                for name, kinds in content
            ]
            for section, content in index["variables"].items()
        }
        pruning = None
        if index["pruning"] is not None:
            saved = index["pruning"]
            masks = {
                name: unpack_mask(np.frombuffer(archive.read(f"mask_{i}"), np.uint8), shape)
                for i, (name, shape) in enumerate(saved["masks"].items())
            }
            pruning = PruningState(saved["step"], saved["iterations"], masks, saved.get("holder", ""))
        weight_number = itertools.count()
        callbacks = []
        for state in index.get("callbacks", ()):  # an older version wrote none
            weights = state["weights"]
            if weights is not None:
                weights = [_read_array(archive.read(f"kept_{next(weight_number)}"), *kind) for kind in weights]
            callbacks.append(CallbackState(state["name"], state["numbers"], weights))
    return Snapshot(Position(*index["position"]), variables, pruning, index["random"], callbacks)


def _read_array(data: bytes, dtype: str, shape: Sequence[int]) -> np.ndarray:
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)


def describe_difference(
    of_fit: Mapping[str, Sequence[Value]], of_snapshot: Mapping[str, Sequence[Value]]
) -> str | None:
    """The first difference between the variables of a fit and those of a snapshot, in words; None where there is none.

    Names do not count, because Keras numbers layers without a name throughout a process.
    """
    if list(of_fit) != list(of_snapshot):
        return f"it holds the variables of {', '.join(of_snapshot)}, and this fit has {', '.join(of_fit)}"
    for section, values in of_fit.items():
        for value, saved in zip(values, of_snapshot[section], strict=False):
            if value.kinds != saved.kinds:
                return (
                    f"in {section}, variable {saved.name!r} of the snapshot has {_describe_kinds(saved)}, and "
                    f"{value.name!r} in its place has {_describe_kinds(value)}"
                )
        if len(values) != len(of_snapshot[section]):
            return f"{section} has {len(of_snapshot[section])} variables in the snapshot, and {len(values)} in this fit"
    return None


def _describe_kinds(value: Value) -> str:
    return " and ".join(f"{dtype} of shape {tuple(shape)}" for dtype, shape in value.kinds)
