"""The arguments that every way to prune takes, checked against the model before anything changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lap import allocation as allocations
from tf_lap import compat, patterns
from tf_lap import scores as score_choices
from tf_lap.allocation import Allocation
from tf_lap.compat import exporting
from tf_lap.graph.layer_filters import Filters, filtered, lookup
from tf_lap.graph.resolver import Kernel, Recipe
from tf_lap.patterns import Pattern
from tf_lap.pruning.mask_update import Override
from tf_lap.samples import Representative, join_samples, read_samples
from tf_lap.scores import Score

ORDERS = ("simultaneous", "forward", "backward")


class Choices(NamedTuple):
    """What the arguments of the same names stand for."""

    score: Score
    allocation: Allocation
    pattern: Pattern
    order: str


def check_choices(score: Any, allocation: Any, pattern: Any, order: Any) -> Choices:
    """The objects that the arguments stand for.

    Raises:
        TypeError, ValueError: a choice that is not known, or two that do not go together.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r} is not known: use one of {list(ORDERS)}")
    choices = Choices(score_choices.get(score), allocations.get(allocation), patterns.get(pattern), order)
    if choices.pattern.sparsity is not None and isinstance(choices.allocation, allocations.ERK):
        raise ValueError(
            f"pattern={pattern!r} gives every kernel the same sparsity, and allocation='erk' divides it by their "
            "shapes: use allocation='uniform'"
        )
    if order != "simultaneous" and choices.allocation.pooled:
        raise ValueError(
            f"order={order!r} chooses one kernel's mask after another, and an allocation that ranks all kernels "
            "together chooses all at once: use order='simultaneous' or allocation='uniform'"
        )
    return choices


MEASURED = (
    "what score was measured over data around layer {} is NaN or infinite: restore sound weights and biases, or divide "
    "the data by a large number"
)
_BATCH = 250
_MEASURED = 100_000  # samples: so that an endless dataset ends


def data_for(score: Score, data: Representative, model: Any) -> list[list[Any]]:
    """The batches that a score is measured over; none where it needs none.

    Raises:
        TypeError, ValueError: data that is missing, not needed, or does not fit the model.
    """
    needed = score.needs_data
    if needed and data is None:
        raise ValueError(f"score={score!r} is measured over data: pass data=, typical inputs such as x_train[:1000]")
    if not needed:
        if data is not None:
            raise ValueError(
                f"data is given, and score={score!r} needs none: leave it out, or use a score that is measured over "
                "data, such as 'lookahead_activation'"
            )
        return []
    samples = read_samples(data, exporting.inputs(model), "data", _MEASURED)
    # For a model of a fixed batch a sample is a batch already.
    return samples if exporting.has_fixed_batch(model) else join_samples(samples, _BATCH)


# How far a sparsity may lie from that of a pattern: 1 / 3 has no exact float.
_CLOSE = 1e-6


def fitting(pattern: Pattern, fraction: float) -> float:
    """A sparsity that masks of this pattern can have.

    Raises:
        ValueError: the pattern ends before it.
    """
    most = pattern.sparsity
    if most is None or fraction < most - _CLOSE:
        return fraction
    if fraction > most + _CLOSE:
        raise ValueError(f"sparsity={fraction}: pattern {pattern} ends at {most:.6g}; pass that, or another pattern")
    return most


def check_final(pattern: Pattern, fraction: float) -> None:
    """Raises ValueError unless masks of this sparsity have the pattern."""
    if fraction and fitting(pattern, fraction) != (pattern.sparsity or fraction):
        raise ValueError(
            f"sparsity={fraction} ends before the pattern is reached: {pattern} is reached at {pattern.sparsity:.6g}; "
            "pass that, or another pattern"
        )


def skipped_kernels(recipe: Recipe, filters: Filters, model: Any) -> dict[str, str]:
    """Why kernels are not pruned, by path.

    Raises:
        ValueError: none is left, or the model wears pruning wrappers.
    """
    if compat.wears_wrappers(model):
        raise ValueError(
            f"model {model.name!r} wears tfmot's pruning wrappers, which choose masks of their own: take them off "
            "first with tfmot.sparsity.keras.strip_pruning(model)"
        )
    layers = {kernel.path: kernel.layer for kernel in recipe.kernels}
    if not layers:
        seen = ", ".join(f"{path!r} ({other.reason})" for path, other in recipe.others.items())
        raise ValueError(
            f"model {model.name!r} has no layer with a kernel that can be pruned (Dense, Conv, ConvTranspose, "
            f"SeparableConv or a subclass of them){': ' + seen if seen else ''}"
        )
    chosen = filtered(filters, layers)
    skipped = {path: "left out by filters" for path in layers if path not in chosen}
    is_trained = compat.trains(model)
    for kernel in recipe.kernels:
        if not is_trained(kernel.variable):
            skipped[kernel.path] = "frozen: the layer, or a model around it, is not trained (trainable=False)"
    if len(skipped) == len(layers):
        reasons = ", ".join(f"{path!r}: {reason}" for path, reason in skipped.items())
        raise ValueError(f"model {model.name!r} has no layer left to prune: {reasons}")
    return skipped


def given_neighbors(recipe: Recipe, neighbors: Mapping[str, Sequence[Sequence[str]]], score: Score) -> Override:
    """The neighbours that the user gives in place of the graph's, as numbers of kernels.

    Raises:
        TypeError, ValueError: a mapping of another form, paths that are not there, or channels that do not fit.
    """
    if not isinstance(neighbors, Mapping):
        raise TypeError(f"neighbors={neighbors!r}: expected a mapping from layer paths to (paths before, paths after)")
    if neighbors and score.distance not in (0, 1):
        raise ValueError(
            f"neighbors are given, and score={score!r} looks beyond them: use distance=1, or leave them out"
        )
    numbers = {kernel.path: i for i, kernel in enumerate(recipe.kernels)}
    override: Override = {}
    for path, sides in lookup("neighbors", neighbors, list(numbers)).items():
        lists = isinstance(sides, (list, tuple)) and len(sides) >= 2
        if not lists or not all(isinstance(side, (list, tuple)) for side in sides[:2]):
            raise TypeError(f"neighbors[{path!r}]={sides!r}: expected two lists of layer paths, before and after")
        layout = recipe.kernels[numbers[path]].layout
        found = []
        for side, channels, end in ((sides[0], layout.inputs, "outputs"), (sides[1], layout.outputs, "inputs")):
            for name in side:
                if name not in numbers:
                    raise ValueError(
                        f"neighbors[{path!r}]: {name!r} is no kernel's path: {', '.join(map(repr, numbers))}"
                    )
                width = getattr(recipe.kernels[numbers[name]].layout, end)
                if max(width, channels) % min(width, channels):
                    raise ValueError(
                        f"neighbors[{path!r}]: {name!r} has {width} {end}, "
                        f"which do not fit the layer's {channels} channels: name kernels with as many, or with a "
                        "multiple or a divisor of them"
                    )
            found.append(tuple(numbers[name] for name in side))
        override[numbers[path]] = (found[0], found[1])
    return override


def not_finite(kernel: Kernel) -> str:
    """What to say of a kernel whose squares do not add up to something finite, and what to do about it."""
    if bool(tf.reduce_all(tf.math.is_finite(compat.value(kernel.variable)))):
        return MEASURED.format(repr(kernel.path))  # only what was measured over data can make them so large
    return f"the kernel of layer {kernel.path!r} holds NaN or infinity: restore sound weights before pruning"
