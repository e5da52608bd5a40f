"""What a model was compiled with, given to a copy: loss, metrics, and the optimizer with all that it remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap.compat.flavours import flavour_of
from tf_lap.compat.nodes import private
from tf_lap.compat.types import Model, Variable
from tf_lap.compat.variables import assign, host_array

CutSlot = Callable[[Variable, np.ndarray, tuple[int, ...]], np.ndarray | None]
"""Given a variable of the model, what an optimizer remembers for it, and the shape that this is to have: what is left
of it, or None where that is not known."""

_LISTS = (list, tuple)


def copy_compiled(model: Model, copy: Model, variables: Sequence[tuple[Variable, Variable]], cut_slot: CutSlot) -> None:
    """Compiles a copy of a model as the model is. Nothing where the model is not compiled.

    Args:
        model: the model.
        copy: the copy.
        variables: pairs of a variable of the model and that of the copy. The copy may have more.
        cut_slot: cuts what the optimizer remembers for a variable.

    Raises:
        Exception: whatever the `get_config` or `from_config` of a user's optimizer or metric raises.
    """
    flavour = flavour_of(model)
    if not flavour.is_compiled(model):
        return
    arguments = {name: _copy_metrics(value) for name, value in flavour.compile_arguments(model).items()}
    optimizer = model.optimizer
    remade = None if optimizer is None else flavour.remake_object(optimizer)
    if getattr(_inner(optimizer), "weight_decay", None):
        _copy_exclusions(_inner(optimizer), _inner(remade), variables)
    copy.compile(optimizer=remade, **arguments)
    trained = None if optimizer is None else flavour.optimized(optimizer, [old for old, _ in variables])
    if trained is not None:
        new_of = {id(old): new for old, new in variables}
        old_ids = {id(new) for _, new in variables}
        added = [variable for variable in copy.trainable_variables if id(variable) not in old_ids]
        _copy_optimizer(optimizer, copy.optimizer, trained, [*(new_of[id(old)] for old in trained), *added], cut_slot)


def _copy_metrics(structure: Any) -> Any:
    """An argument of `compile` with new metrics in place of those in it, whose states are not shared."""
    if isinstance(structure, dict):
        return {name: _copy_metrics(value) for name, value in structure.items()}
    if isinstance(structure, _LISTS):
        return [_copy_metrics(value) for value in structure]
    flavour = flavour_of(structure)
    return flavour.remake_object(structure) if flavour.is_metric(structure) else structure


def _inner(optimizer: Any) -> Any:
    """The optimizer inside one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _copy_exclusions(optimizer: Any, remade: Any, variables: Sequence[tuple[Variable, Variable]]) -> None:
    """Lets the weights of a copy decay but for those whose originals do not: a config does not say which."""
    decays = private(optimizer, "_use_weight_decay")
    excluded = [new for old, new in variables if not decays(old)]
    if excluded:
        remade.exclude_from_weight_decay(var_list=excluded)


def _copy_optimizer(
    optimizer: Any, remade: Any, trained: Sequence[Variable], new_trained: Sequence[Variable], cut_slot: CutSlot
) -> None:
    """Lets an optimizer remember for the variables of a copy what another does for those of the model.

    Args:
        optimizer: the one of the model.
        remade: the one of the copy, not built.
        trained: the variables that `optimizer` was built for.
        new_trained: what they are in the copy, and behind them those that the copy alone has.
        cut_slot: as in `copy_compiled`.
    """
    flavour = flavour_of(optimizer)
    flavour.build_optimizer(remade, new_trained)
    before = flavour.slots(optimizer, trained)
    after = flavour.slots(remade, new_trained)
    for name, (reference, slot) in before.items():
        left = cut_slot(reference, host_array(slot), tuple(after[name][1].shape))
        if left is not None:
            assign(after[name][1], left)
    others, new_others = (
        _without(flavour.optimizer_variables(either), [slot for _, slot in slots.values()])
        for either, slots in ((optimizer, before), (remade, after))
    )
    for old, new in zip(others, new_others, strict=True):
        assign(new, tf.convert_to_tensor(old))


def _without(variables: Iterable[Variable], left_out: Iterable[Variable]) -> list[Variable]:
    ids = {id(variable) for variable in left_out}
    return [variable for variable in variables if id(variable) not in ids]
