"""Which scores, allocations and patterns are tried together, and the arguments of `prune` that they stand for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import allocation as allocations
from tf_lap import compat, patterns, scores
from tf_lap.choices import Configurable
from tf_lap.compat import exporting
from tf_lap.compat.types import Model
from tf_lap.pruning.options import divides_channels
from tf_lap.pruning.pruner import Pruner
from tf_lap.reconstruction.methods import read_methods
from tf_lap.samples import Representative, read_samples

_MAX_SAMPLES = 100_000  # as `prune` reads


@dataclasses.dataclass(frozen=True)
class Combination:
    """A score, an allocation and a pattern that go together.

    Attributes:
        score: the score in words, for tables.
        allocation: the allocation in words.
        pattern: the pattern in words.
        sparsity: the only sparsity that the pattern has; None where any is possible.
        arguments: what `prune` is told, but for the sparsity.
    """

    score: str
    allocation: str
    pattern: str
    sparsity: float | None
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.score}, {self.allocation}, {self.pattern}"

    def to_dict(self) -> dict[str, Any]:
        """The three choices as plain data, by which a search that goes on knows them again.

        Raises:
            NotImplementedError: a choice of a class of the user's own that has no configuration.
        """
        kinds = {"score": scores.get, "allocation": allocations.get, "pattern": patterns.get}
        choices: dict[str, Configurable] = {name: get(self.arguments[name]) for name, get in kinds.items()}
        return {name: [type(choice).__name__, repr(choice.get_config())] for name, choice in choices.items()}


class SamplesReadOnce:
    """Samples of a dataset or a function of the user's: the same ones, in the same order, at each call."""

    def __init__(self, samples: Sequence[list[np.ndarray]]) -> None:
        self.samples = samples

    def __call__(self) -> Sequence[list[np.ndarray]]:
        """The samples, each with a batch dimension."""
        return self.samples

    def __repr__(self) -> str:
        return f"<{len(self.samples)} samples, read once>"


def fix_data(model: Model, data: Representative) -> Representative:
    """Data that are the same at each pruning: a dataset may shuffle anew, and a function may draw.

    Raises:
        TypeError, ValueError: no built model, or data whose samples do not fit it.
    """
    compat.check_model(model)
    if data is None:
        return None
    samples = read_samples(data, exporting.inputs(model), "data", _MAX_SAMPLES)
    return SamplesReadOnce(samples) if isinstance(data, tf.data.Dataset) or callable(data) else data


def combine(
    score_choices: Any, allocation_choices: Any, pattern_choices: Any, options: Mapping[str, Any]
) -> list[Combination]:
    """All combinations of some choices.

    A pattern that has only one sparsity gives each kernel that, so it is combined with the allocation "uniform" alone.
    Whole channels are combined with the allocations that divide them, if any is among the choices.

    Args:
        score_choices: a score, or several of them; as all three, by name, object or configuration.
        allocation_choices: allocations.
        pattern_choices: patterns.
        options: the other arguments of `prune`; those that are None are left out. `data` goes to the scores that are
            measured over data, and to all where there is a `repair`.

    Raises:
        TypeError, ValueError: a choice or a repair that is not known, or data that nothing needs.
    """
    score_list = _as_choices("scores", score_choices, scores.get)
    allocation_list = _as_choices("allocations", allocation_choices, allocations.get)
    pattern_list = _as_choices("patterns", pattern_choices, patterns.get)
    has_data = options.get("data") is not None
    repairs = bool(read_methods(options.get("repair"), has_data))
    if has_data and not repairs and not any(scores.get(score).needs_data for score in score_list):
        raise ValueError(
            "data is given, and nothing here needs it: leave it out, pass repair=True too, or use a score that is "
            "measured over data, such as 'lookahead_activation'"
        )
    others = {name: value for name, value in options.items() if value is not None and name != "data"}
    combinations = []
    for pattern, score in itertools.product(pattern_list, score_list):
        sparsity = patterns.get(pattern).sparsity
        fitting = allocation_list if sparsity is None else ["uniform"]
        if isinstance(patterns.get(pattern), patterns.Channels):
            fitting = [a for a in allocation_list if divides_channels(allocations.get(a))] or allocation_list
        for allocation in fitting:
            arguments = {"score": score, "allocation": allocation, "pattern": pattern, **others}
            if scores.get(score).needs_data or repairs:
                arguments["data"] = options.get("data")
            combinations.append(
                Combination(
                    _describe(score, scores.get),
                    _describe(allocation, allocations.get),
                    _describe(pattern, patterns.get),
                    sparsity,
                    arguments,
                )
            )
    return combinations


def check(model: Model, combination: Combination, sparsity: float | None = None) -> Pruner:
    """Raises what `prune` would raise before it chooses masks.

    Args:
        model: the model, which is left as it is.
        combination: what `prune` will be told.
        sparsity: the sparsity; None for that of the pattern, or any.

    Returns:
        A pruner that was told the same. It has changed nothing.

    Raises:
        TypeError, ValueError: as `prune`.
    """
    arguments = dict(combination.arguments)
    arguments.pop("repair", None)
    if not scores.get(arguments["score"]).needs_data:
        arguments.pop("data", None)
    pruner = Pruner(model, **arguments)
    default = 0.5 if combination.sparsity is None else combination.sparsity
    pruner.check_final(default if sparsity is None else sparsity)
    return pruner


def _as_choices(argument: str, value: Any, get: Callable[[Any], Any]) -> list[Any]:
    """A list of choices, each of which is known."""
    if isinstance(value, (str, Mapping, Configurable)):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise TypeError(f"{argument}={value!r}: expected a name, an object or a configuration, or a list of them")
    for choice in value:
        get(choice)
    return list(value)


def _describe(choice: Any, get: Callable[[Any], Any]) -> str:
    """A choice in words: its name, or its class with the arguments that are not the defaults."""
    if isinstance(choice, str):
        return choice
    configured = get(choice)
    if not dataclasses.is_dataclass(configured):
        return type(configured).__name__
    values = {field.name: getattr(configured, field.name) for field in dataclasses.fields(configured) if field.init}
    defaults = {field.name: field.default for field in dataclasses.fields(configured)}
    arguments = [f"{name}={value!r}" for name, value in values.items() if value != defaults[name]]
    return f"{type(configured).__name__}({', '.join(arguments)})"
