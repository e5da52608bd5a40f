"""Which layer a tensor of a file comes from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tf_lap.compat.types import Variable

_DIGITS = "0123456789"
# Eight bits of a row's largest value leave half a step of 1/127.
_ROUNDING = 0.005


class Origins:
    """Paths of layers, found by the names that the converter gives to tensors, else by the tensors' values.

    Args:
        readers: paths of weights by the operations of the model that read them.
        weights: the weights themselves by path, of two dimensions or more, in Keras's order of axes.
    """

    def __init__(self, readers: Mapping[str, str], weights: Mapping[str, Variable]) -> None:
        self._readers, self._weights = readers, weights

    def find_path(self, name: str, values: np.ndarray) -> str | None:
        """The path of the one weight that a tensor holds, or None where several or none may be it.

        Args:
            name: the converter's name for it: the operation that the tensor went into, or one inside that operation,
                as in a loop. Where the converter merged operations, as a convolution and its normalization, the names
                are joined by semicolons. A number at the end may be the converter's.
            values: the tensor's, outputs first, inputs last; each output may be scaled by a positive factor, as
                quantization does.
        """
        paths = {path for path in map(self._find_by_operation, name.split(";")) if path is not None}
        if not paths:
            paths = {path for path, weight in self._weights.items() if _is_alike(values, weight)}
        return paths.pop() if len(paths) == 1 else None

    def find_label(self, name: str, values: np.ndarray | None) -> str:
        """The path of the weight that a tensor holds; the converter's name where that is not known, or of any other."""
        path = None if values is None else self.find_path(name, values)
        return path or name.partition(";")[0]

    def _find_by_operation(self, name: str) -> str | None:
        """The path of the weight that an operation, or one that it is inside of, reads; None for any other name."""
        parts = name.split("/")
        enclosing = ["/".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
        names = [name, name.rstrip(_DIGITS), *enclosing]
        return next((self._readers[operation] for operation in names if operation in self._readers), None)


def _is_alike(values: np.ndarray, weight: Variable) -> bool:
    """Whether values are those of a weight, up to a factor for each output and the rounding of eight bits.

    Args:
        values: of a tensor in a file, outputs first.
        weight: a weight of the model, outputs last.
    """
    shape = tuple(weight.shape)
    if values.shape != (shape[-1], *shape[:-1]):
        return False
    stored, expected = _scale_rows(values), _scale_rows(np.moveaxis(np.asarray(weight), -1, 0))
    return bool(np.abs(stored - expected).max() <= _ROUNDING)


def _scale_rows(values: np.ndarray) -> np.ndarray:
    """Values as float64 of shape (outputs, weights of each), each output divided by its largest magnitude."""
    rows = np.reshape(values, (len(values), -1)).astype(np.float64)
    return rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30)
