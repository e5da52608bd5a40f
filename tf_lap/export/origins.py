"""Which layer a tensor of a file comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_DIGITS = "0123456789"
# Eight bits of a row's largest value leave half a step of 1/127.
_ROUNDING = 0.005


class Origins:
    """Paths of layers, by the names that the converter gives to tensors, and where these do not tell, by their values.

    Args:
        readers: paths of weights by the operations of the model that read them.
        weights: the weights themselves by path, of two dimensions or more, in Keras's order of axes.
    """

    def __init__(self, readers: Mapping[str, str], weights: Mapping[str, Any]) -> None:
        self._readers, self._weights = readers, weights

    def path(self, name: str, values: np.ndarray) -> str | None:
        """The path of the one weight that a tensor holds, or None where it cannot be told.

        Args:
            name: the converter's name for it. It is that of the operation that the tensor went into, or of one inside
                that operation, as of a loop. Of several that were made one, as a convolution and its normalization, all
                names are there, joined by semicolons. A number at the end may be the converter's.
            values: outputs first, inputs last; each output may be scaled by a positive factor, as quantization does.
        """
        paths = {path for path in map(self._named, name.split(";")) if path is not None}
        if not paths:
            paths = {path for path, weight in self._weights.items() if _alike(values, weight)}
        return paths.pop() if len(paths) == 1 else None

    def _named(self, name: str) -> str | None:
        within = name.split("/")
        around = ["/".join(within[:length]) for length in range(len(within) - 1, 0, -1)]
        names = [name, name.rstrip(_DIGITS), *around]
        return next((self._readers[operation] for operation in names if operation in self._readers), None)


def _alike(values: np.ndarray, weight: Any) -> bool:
    """Whether values are a weight, each of its outputs up to a factor and the rounding of eight bits."""
    shape = tuple(weight.shape)
    if values.shape != (shape[-1], *shape[:-1]):
        return False
    rows = [np.reshape(side, (len(values), -1)) for side in (values, np.moveaxis(np.asarray(weight), -1, 0))]
    scaled = [row / np.maximum(np.abs(row).max(axis=1, keepdims=True), 1e-30) for row in np.asarray(rows, np.float64)]
    return bool(np.abs(scaled[0] - scaled[1]).max() <= _ROUNDING)
