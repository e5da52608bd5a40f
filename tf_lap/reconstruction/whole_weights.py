"""A network as it was before pruning."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Variable


class WholeWeights:
    """The weights that a repair may change, as they were before pruning.

    Args:
        values: each variable, and its value.
    """

    def __init__(self, values: Sequence[tuple[Variable, np.ndarray]]) -> None:
        self._values = list(values)
        self._by_id = {id(variable): value for variable, value in self._values}

    @classmethod
    def of(cls, variables: Collection[Variable]) -> WholeWeights:
        """The present values of some variables."""
        return cls([(variable, np.array(compat.host_array(variable))) for variable in variables])

    def value(self, variable: Variable) -> np.ndarray:
        """The value of one of the variables."""
        return self._by_id[id(variable)]

    def restore(self) -> None:
        """Gives the variables these values."""
        for variable, value in self._values:
            compat.assign(variable, value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the variables these values for a while."""
        present = WholeWeights.of([variable for variable, _ in self._values])
        self.restore()
        try:
            yield
        finally:
            present.restore()
