"""What a Keras 3 model was compiled with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras.src.saving.serialization_lib import SafeModeScope

from tf_lap.compat.configs import find_custom_objects
from tf_lap.compat.nodes import private
from tf_lap.compat.types import Model, Variable


def compile_arguments(model: Model) -> dict[str, Any]:
    """What `compile` was called with, but for the optimizer."""
    arguments = dict(private(model, "_compile_config").config)
    del arguments["optimizer"]
    return arguments


def remake_object(thing: Any) -> Any:
    """A new optimizer or metric like another.

    Raises:
        Exception: whatever its `get_config` or `from_config` raises.
    """
    with keras.saving.custom_object_scope(find_custom_objects([thing])), SafeModeScope(False):
        return type(thing).from_config(thing.get_config())


def is_metric(thing: Any) -> bool:
    """Whether it is a metric object, with a state."""
    return isinstance(thing, keras.metrics.Metric)


def optimized(optimizer: Any, variables: Sequence[Variable]) -> list[Variable] | None:
    """Those of a model's variables that an optimizer was built for, in its order; None where it is not built."""
    return list(private(_inner(optimizer), "_trainable_variables")) if optimizer.built else None


def build_optimizer(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Lets an optimizer make what it remembers for variables."""
    optimizer.build(list(variables))


def slots(optimizer: Any, variables: Sequence[Variable]) -> dict[tuple[str, int], tuple[Variable, Variable]]:
    """What a built optimizer remembers for variables: by name and place, the variable and what is remembered for it.

    Args:
        optimizer: the optimizer.
        variables: those that it was built for, in its order.
    """
    return {(name, place): (variables[place], slot) for name, place, slot in _list_slots(_inner(optimizer), variables)}


def _list_slots(optimizer: Any, variables: Sequence[Variable]) -> Iterator[tuple[str, int, Variable]]:
    places = {variable.path: place for place, variable in enumerate(variables)}
    for name, value in vars(optimizer).items():
        if isinstance(value, dict):
            entries = [(places[key], slot) for key, slot in value.items() if key in places]
        elif isinstance(value, list) and len(value) == len(variables) and name != "_trainable_variables":
            entries = list(enumerate(value))
        else:
            continue
        yield from ((name, place, slot) for place, slot in entries if isinstance(slot, keras.Variable))


def optimizer_variables(optimizer: Any) -> list[Variable]:
    """All variables of an optimizer."""
    return list(optimizer.variables)


def _inner(optimizer: Any) -> Any:
    """The optimizer inside one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)
