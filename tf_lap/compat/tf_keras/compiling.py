"""What a tf_keras model was compiled with; the functions are described in `compat.keras3.compiling`."""

# ruff: noqa: D103

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.saving.serialization_lib import SafeModeScope

from tf_lap.compat.configs import find_custom_objects
from tf_lap.compat.nodes import private
from tf_lap.compat.tf_keras.training import create_optimizer_variables, list_optimizer_variables
from tf_lap.compat.tf_keras.variables import bare
from tf_lap.compat.types import Model, Variable


def compile_arguments(model: Model) -> dict[str, Any]:
    arguments = dict(private(model, "_compile_config").config)
    del arguments["optimizer"]
    return arguments


def remake_object(thing: Any) -> Any:
    with tf_keras.saving.custom_object_scope(find_custom_objects([thing])), SafeModeScope(False):
        return type(thing).from_config(thing.get_config())


def is_metric(thing: Any) -> bool:
    return isinstance(thing, tf_keras.metrics.Metric)


def optimized(optimizer: Any, variables: Sequence[Variable]) -> list[Variable] | None:
    inner = _inner(optimizer)
    if _is_legacy(inner):
        remembered = {place for (_, place), _ in _legacy_slots(inner, variables)}
        return [variable for place, variable in enumerate(variables) if place in remembered]
    if not getattr(inner, "_built", False):
        return None
    index, key = private(inner, "_index_dict"), private(inner, "_var_key")
    return sorted((v for v in variables if key(v) in index), key=lambda variable: index[key(variable)])


def build_optimizer(optimizer: Any, variables: Sequence[Variable]) -> None:
    create_optimizer_variables(_inner(optimizer), list(variables))


def slots(optimizer: Any, variables: Sequence[Variable]) -> dict[tuple[str, int], tuple[Variable, Variable]]:
    inner = _inner(optimizer)
    listed = _legacy_slots(inner, variables) if _is_legacy(inner) else _list_slots(inner, variables)
    return {(name, place): (variables[place], slot) for (name, place), slot in listed}


def _list_slots(optimizer: Any, variables: Sequence[Variable]) -> Iterator[tuple[tuple[str, int], Variable]]:
    for name, value in vars(optimizer).items():
        if isinstance(value, list) and len(value) == len(variables) and name != "_variables":
            yield from (((name, place), slot) for place, slot in enumerate(value) if isinstance(slot, tf.Variable))


def _legacy_slots(optimizer: Any, variables: Sequence[Variable]) -> Iterator[tuple[tuple[str, int], Variable]]:
    for name in optimizer.get_slot_names():
        for place, variable in enumerate(variables):
            with contextlib.suppress(KeyError):  # it was not trained
                yield (name, place), optimizer.get_slot(bare(variable)[0], name)


def _is_legacy(optimizer: Any) -> bool:
    return isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer)


def optimizer_variables(optimizer: Any) -> list[Variable]:
    return list_optimizer_variables(optimizer, [])


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)
