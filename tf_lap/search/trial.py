"""A model that is pruned and evaluated again and again, and is as it was in between and afterwards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

import tensorflow as tf

from tf_lap.allocation import Sparsity
from tf_lap.compat import fits
from tf_lap.compat.types import Model
from tf_lap.pruning.one_shot import prune
from tf_lap.report import PruningReport
from tf_lap.warn import PruningWarning

Evaluate: TypeAlias = Callable[[Any], Any]
"""A user's function of a model, which returns one number."""


class Trial:
    """Prunes a model once, evaluates it, and puts everything back. Used as a context.

    What is put back are the weights, the statistics of normalization layers, seed generators and the variables of
    optimizers: all that a fit moves but for metrics. It is put back after each evaluation, and when the block is left,
    whatever was raised. The copy shares memory with the variables until these change.

    Args:
        model: a built model.
        evaluate: the user's function.

    Raises:
        TypeError: `evaluate` is no function.
    """

    def __init__(self, model: Model, evaluate: Evaluate) -> None:
        if not callable(evaluate):
            raise TypeError(
                f"evaluate={evaluate!r}: expected a function of the model that returns a number, such as "
                "lambda model: model.evaluate(x_val, y_val, verbose=0)[1]"
            )
        self._model, self._evaluate, self._has_pruned = model, evaluate, False
        self._saved: list[tuple[tf.Variable, tf.Tensor]] = []

    def __enter__(self) -> Trial:
        # An optimizer that is not built yet stays so.
        sections = fits.variables(self._model, build_optimizers=False).values()
        variables = [part for section in sections for _, replicas in section for part in replicas]
        self._saved = [(variable, variable.read_value()) for variable in variables]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()
        self._saved = []

    def measure_dense(self) -> float:
        """The value of the model as it is.

        Raises:
            TypeError: `evaluate` returns no number. ValueError: it returns NaN or infinity.
        """
        value = self._measure()
        if not math.isfinite(value):
            raise ValueError(
                f"evaluate returned {value} for the model as it is: nothing can be compared with that. Look for what "
                "is not finite in its weights or in the data"
            )
        return value

    def measure_pruned(self, sparsity: Sparsity, arguments: Mapping[str, Any]) -> tuple[float, PruningReport]:
        """The value of the model after `prune(model, sparsity, **arguments)`, and the report of that.

        Raises:
            TypeError, ValueError: as `prune`; `evaluate` returns no number.
        """
        try:
            report = self._prune(sparsity, arguments)
            return self._measure(), report
        finally:
            self._restore()

    def _prune(self, sparsity: Sparsity, arguments: Mapping[str, Any]) -> PruningReport:
        if not self._has_pruned:
            self._has_pruned = True
            return prune(self._model, sparsity, **arguments)
        with warnings.catch_warnings():  # the first pruning has said it
            warnings.simplefilter("ignore", PruningWarning)
            return prune(self._model, sparsity, **arguments)

    def _measure(self) -> float:
        return read_value(self._evaluate(self._model))

    def _restore(self) -> None:
        for variable, value in self._saved:
            variable.assign(value)


def read_value(returned: Any) -> float:
    """The number that a user's function returned.

    Raises:
        TypeError: it returned something else.
    """
    if isinstance(returned, Mapping):
        raise TypeError(
            f"evaluate returned a mapping of {', '.join(map(repr, returned))}: return the entry that counts, such as "
            "model.evaluate(x, y, return_dict=True)['accuracy']"
        )
    if isinstance(returned, (list, tuple)) or getattr(returned, "shape", ()) != ():
        raise TypeError(
            f"evaluate returned {_describe_several(returned)}: return the entry that counts, such as "
            "model.evaluate(x, y)[1]"
        )
    if isinstance(returned, (bool, str)) or not hasattr(returned, "__float__"):
        hint = "; does its last line begin with return?" if returned is None else ""
        raise TypeError(f"evaluate returned {returned!r}: expected one number, such as an accuracy or a loss{hint}")
    return float(returned)


def _describe_several(returned: Any) -> str:
    if isinstance(returned, (list, tuple)):
        return f"a {type(returned).__name__} of {len(returned)}, {str(returned)[:60]}"
    return f"an array of shape {tuple(returned.shape)}"
