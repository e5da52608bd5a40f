"""With which tensors the `call` of a subclassed Keras 3 model is run, where Keras kept the shape of the first alone.

A model that is called with several tensors, by position or by name, is built with the shape of the first one. What the
others are is found by trying: the shapes that are tried are that of the first and those that layers inside were built
with. A layer refuses a tensor of another width than its own, so that a `call` which runs has found its layers.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from tf_lap.compat.keras3.graphs import descendants, sublayers
from tf_lap.compat.nodes import Network, is_mask_name, private
from tf_lap.compat.types import Model

Trace = Callable[[Any, Mapping[str, Any]], Network]
"""Runs a `call` on tensors of these shapes: those of the first argument, and those of others by name."""

_MOST_TRIES = 24


class TypedShape(NamedTuple):
    """The shape of a tensor, and its dtype."""

    shape: tuple[int | None, ...]
    dtype: str


def is_structure(shape: Any) -> bool:
    """Whether it is a list or mapping of shapes, and no shape itself."""
    if isinstance(shape, dict):
        return True
    return isinstance(shape, (list, tuple)) and bool(shape) and isinstance(shape[0], (list, tuple, dict))


def find_arguments(model: Model, first: Any, trace: Trace) -> Network:
    """The graph of a model's `call`, with tensors for those of its arguments that it must have been called with.

    These are the arguments without a default. Where layers with weights are not reached without them, those whose
    default is None are tried too: somebody has built these layers.

    Args:
        model: the model.
        first: the shapes of the tensors in its first argument, in its structure.
        trace: runs its `call`.

    Raises:
        ValueError: `call` takes more tensors than the first, and none of the shapes that were tried fit.
        Exception: whatever `call` raises on the first argument alone.
    """
    required, optional = _find_names(model)
    network = _try_shapes(model, first, required, trace)
    if isinstance(network, Exception):
        if required:
            shapes = ", ".join(f"{name}_shape" for name in (next(iter(_parameters(model))), *required))
            raise ValueError(
                f"Keras does not keep the shape of {', '.join(required)}; build(self, {shapes}) would keep all; "
                f"with those of layers inside: {network}"
            ) from network
        raise network
    unreached = _count_unreached(model, network)
    for names in dict.fromkeys([optional, *((name,) for name in optional)]):
        if not unreached:
            break
        other = _try_shapes(model, first, (*required, *names), trace)
        if isinstance(other, Network) and _count_unreached(model, other) < unreached:
            network, unreached = other, _count_unreached(model, other)
    return network


def _parameters(model: Model) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.call).parameters


def _find_names(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arguments behind the first that have no default, and those that may be tensors and default to None."""
    _, *others = _parameters(model).values()
    named = [p for p in others if p.name != "training" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = tuple(parameter.name for parameter in named if parameter.default is parameter.empty)
    optional = tuple(p.name for p in named if p.default is None and not is_mask_name(p.name))
    return required, optional


def _try_shapes(model: Model, first: Any, names: Sequence[str], trace: Trace) -> Network | Exception:
    """The graph of a `call` that gets tensors for these arguments too; what the first try raised where none runs."""
    candidates = [_find_shapes(model, first, name) for name in names]
    ranks = sorted(itertools.product(*(range(len(shapes)) for shapes in candidates)), key=sum)
    errors = []
    for places in ranks[:_MOST_TRIES]:
        shapes = {name: candidates[i][place] for i, (name, place) in enumerate(zip(names, places, strict=True))}
        try:
            return trace(first, shapes)
        except Exception as error:  # a user's `call` may raise anything
            errors.append(error)
    return errors[0]


def _find_shapes(model: Model, first: Any, name: str) -> list[TypedShape]:
    """The shapes that an argument may have, likely ones first."""
    leaves = _list_leaves(first)
    prefixes = [leaves[0][:rank] for rank in range(len(leaves[0]) - 1, 0, -1)]
    if is_mask_name(name):
        return [TypedShape(shape, "bool") for shape in dict.fromkeys([*prefixes[:1], *leaves, *prefixes])]
    recorded = [private(layer, "_build_shapes_dict") or {} for layer in descendants(model)]
    shapes = [*leaves, *(shape for record in recorded for shape in _list_leaves(list(record.values()))), *prefixes]
    return [TypedShape(shape, dtype) for dtype in (keras.config.floatx(), "int32") for shape in dict.fromkeys(shapes)]


def _list_leaves(shapes: Any) -> list[tuple[int | None, ...]]:
    """The shapes in a structure, each with an open batch axis."""
    if is_structure(shapes):
        parts = shapes.values() if isinstance(shapes, dict) else shapes
        return [leaf for part in parts for leaf in _list_leaves(part)]
    return [(None, *shapes[1:])] if shapes else []


def _count_unreached(model: Model, network: Network) -> int:
    """How many layers with weights directly in a model its graph does not call."""
    called = {id(node.layer) for node in network.nodes}
    return sum(1 for layer in sublayers(model) if layer.weights and id(layer) not in called)
