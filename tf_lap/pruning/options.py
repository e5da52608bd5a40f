"""The arguments that every way to prune takes, checked against the model before anything changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lap import allocation as allocations
from tf_lap import compat, patterns, scores
from tf_lap.allocation import Allocation, AllocationLike
from tf_lap.compat import exporting
from tf_lap.graph.layer_filters import Filters, is_named, lookup, select_paths
from tf_lap.graph.measurer import Override
from tf_lap.graph.model_graph import Recipe
from tf_lap.patterns import Pattern, PatternLike
from tf_lap.reconstruction.methods import RepairLike
from tf_lap.report.coverage import OPT_IN
from tf_lap.samples import Representative, join_samples, read_samples
from tf_lap.scores import Score, ScoreLike

ORDERS = ("simultaneous", "forward", "backward")


@dataclasses.dataclass(frozen=True)
class Options:
    """What `Pruner`, `prune` and `LAPCallback` are told, with objects in place of names.

    Attributes:
        score: how much a weight matters.
        allocation: how many weights each kernel keeps.
        pattern: in what shape weights go.
        order: one of `ORDERS`.
        filters: which layers to prune.
        neighbors: kernels in place of those that the graph gives.
        data: what scores that need it are measured over.
    """

    score: Score
    allocation: Allocation
    pattern: Pattern
    order: str
    filters: Filters
    neighbors: Mapping[str, Sequence[Sequence[str]]] | None
    data: Representative

    @classmethod
    def of(
        cls,
        score: ScoreLike,
        allocation: AllocationLike,
        pattern: PatternLike,
        order: str,
        filters: Filters,
        neighbors: Mapping[str, Sequence[Sequence[str]]] | None,
        data: Representative,
    ) -> Options:
        """The options that the arguments of the same names stand for.

        Raises:
            TypeError, ValueError: a choice that is not known, or two that do not go together.
        """
        if order not in ORDERS:
            raise ValueError(f"order={order!r} is not known: use one of {list(ORDERS)}")
        options = cls(
            scores.get(score), allocations.get(allocation), patterns.get(pattern), order, filters, neighbors, data
        )
        if isinstance(options.allocation, allocations.Auto) and (
            options.pattern.sparsity is not None or order != "simultaneous"
        ):
            options = dataclasses.replace(options, allocation=options.allocation.resolve(by_kernel=True))
        if options.pattern.sparsity is not None and isinstance(options.allocation, allocations.ERK):
            raise ValueError(
                f"pattern={pattern!r} gives every kernel the same sparsity, and allocation='erk' divides it by their "
                "shapes: use allocation='uniform'"
            )
        if isinstance(options.pattern, patterns.Channels):
            options = options._check_channels()
        if order != "simultaneous" and options.allocation.pooled:
            raise ValueError(
                f"order={order!r} chooses one kernel's mask after another, and an allocation that ranks all kernels "
                "together chooses all at once: use order='simultaneous' or allocation='uniform'"
            )
        return options

    def _check_channels(self) -> Options:
        """The options where whole channels go: kernels are pruned together, at one sparsity or one for each group.

        Raises:
            ValueError: an order or an allocation that ranks weights of one kernel after another.
        """
        allocation = self.allocation
        if isinstance(allocation, allocations.Auto):
            allocation = allocation.resolve(by_kernel=True)
        if not divides_channels(allocation):
            raise ValueError(
                f"allocation={self.allocation!r} divides weights among kernels, and pattern={str(self.pattern)!r} "
                "removes channels that several kernels share: use allocation='uniform' or 'global'"
            )
        if self.order != "simultaneous":
            raise ValueError(
                f"order={self.order!r} prunes one kernel after another, and pattern={str(self.pattern)!r} removes "
                "channels that several kernels share: use order='simultaneous'"
            )
        return dataclasses.replace(self, allocation=allocation)


def divides_channels(allocation: Allocation) -> bool:
    """Whether an allocation says how many whole channels stay, too."""
    return isinstance(allocation, (allocations.Uniform, allocations.Global))


_BATCH_SIZE = 250
REPAIR_BATCH = 32
"""How many samples a model is run on at once in a repair, which holds all tensors of a run for a while."""
_MAX_SAMPLES = 100_000  # so that an endless dataset ends


def read_batches(score: Score, data: Representative, model: Any) -> list[list[Any]]:
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
    return read_model_batches(data, model)


def read_repair_batches(
    repair: RepairLike, data: Representative, score_data: Sequence[Any], model: Any
) -> Sequence[Any]:
    """The batches that a repair is measured over; none for a repair without data, or for no repair.

    Args:
        repair: the argument `repair`.
        data: the argument `data` beside it.
        score_data: the batches that scores are measured over.
        model: the model.

    Raises:
        TypeError, ValueError: data that does not fit the model, or that nothing needs.
    """
    if repair is None or repair is False:
        if data is None:
            return []
        raise ValueError("data is given, and nothing is repaired with it: pass repair=True too, or leave data out")
    if data is not None:
        return read_model_batches(data, model, REPAIR_BATCH)
    if exporting.has_fixed_batch(model):
        return score_data
    samples = [[array[i : i + 1] for array in batch] for batch in score_data for i in range(len(batch[0]))]
    return join_samples(samples, REPAIR_BATCH)


def read_model_batches(data: Representative, model: Any, size: int = _BATCH_SIZE) -> list[list[Any]]:
    """Batches of inputs of a model, from data of the user.

    Args:
        data: the user's data.
        model: the model.
        size: how many samples a batch has; a model of a fixed batch has its own.

    Raises:
        TypeError, ValueError: data that does not fit the model.
    """
    samples = read_samples(data, exporting.inputs(model), "data", _MAX_SAMPLES)
    # For a model of a fixed batch a sample is a batch already.
    return samples if exporting.has_fixed_batch(model) else join_samples(samples, size)


# How far a sparsity may lie from that of a pattern: 1 / 3 has no exact float.
_TOLERANCE = 1e-6


def match_pattern(pattern: Pattern, fraction: float) -> float:
    """A sparsity; that of the pattern, where both are nearly equal.

    Raises:
        ValueError: it is above that of the pattern.
    """
    most = pattern.sparsity
    if most is None or fraction < most - _TOLERANCE:
        return fraction
    if fraction > most + _TOLERANCE:
        raise ValueError(f"sparsity={fraction}: pattern {pattern} ends at {most:.6g}; pass that, or another pattern")
    return most


def check_final(pattern: Pattern, fraction: float) -> None:
    """Raises ValueError unless masks of this sparsity have the pattern."""
    if fraction and match_pattern(pattern, fraction) != (pattern.sparsity or fraction):
        raise ValueError(
            f"sparsity={fraction} ends before the pattern is reached: {pattern} is reached at {pattern.sparsity:.6g}; "
            "pass that, or another pattern"
        )


FROZEN = "frozen: the layer, or a model around it, is not trained (trainable=False)"
_THAW_REMEDY = (
    ". To prune frozen layers, set trainable = True on them and on the models around them, and compile the model again"
)


def find_skipped_kernels(recipe: Recipe, filters: Filters, model: Any) -> dict[str, str]:
    """Why kernels are not pruned, by path.

    Raises:
        ValueError: none is left that is pruned or that a mapping may name, or the model wears pruning wrappers.
    """
    if compat.has_wrappers(model):
        raise ValueError(
            f"model {model.name!r} wears tfmot's pruning wrappers, which choose masks of their own: take them off "
            "first with tfmot.sparsity.keras.strip_pruning(model)"
        )
    layers = {kernel.path: kernel.layer for kernel in recipe.kernels}
    if not layers:
        seen = ", ".join(f"{path!r} ({other.reason})" for path, other in recipe.others.items())
        raise ValueError(
            f"model {model.name!r} has no layer with a kernel that can be pruned (Dense, Conv, EinsumDense, attention, "
            "recurrent layers, and subclasses of them; tf_lap.register_kernel says which weights of a layer of yours "
            f"are kernels){': ' + seen if seen else ''}"
        )
    chosen = select_paths(filters, layers)
    skipped = {path: "left out by filters" for path in layers if path not in chosen}
    for kernel in recipe.kernels:
        if kernel.is_opt_in and kernel.path in chosen and not is_named(filters, kernel.path):
            skipped[kernel.path] = OPT_IN
    is_trained = compat.trains(model)
    for kernel in recipe.kernels:
        if not is_trained(kernel.variable):
            skipped[kernel.path] = FROZEN
    if len(skipped) == len(layers) and OPT_IN not in skipped.values():
        raise ValueError(f"model {model.name!r} has no layer left to prune: {explain_skipped(skipped)}")
    return skipped


def explain_skipped(skipped: Mapping[str, str]) -> str:
    """Why each of some kernels is not pruned, and what to do, for a message."""
    reasons = ", ".join(f"{path!r}: {reason}" for path, reason in skipped.items())
    return f"{reasons}{_THAW_REMEDY if any(reason.startswith('frozen') for reason in skipped.values()) else ''}"


def read_override(recipe: Recipe, neighbors: Mapping[str, Sequence[Sequence[str]]], score: Score) -> Override:
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
    override: dict[int, tuple[Sequence[int], Sequence[int]]] = {}
    for path, sides in lookup("neighbors", neighbors, list(numbers)).items():
        are_lists = isinstance(sides, (list, tuple)) and len(sides) >= 2
        if not are_lists or not all(isinstance(side, (list, tuple)) for side in sides[:2]):
            raise TypeError(f"neighbors[{path!r}]={sides!r}: expected two lists of layer paths, before and after")
        layout = recipe.kernels[numbers[path]].layout
        kernel_numbers = []
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
            kernel_numbers.append(tuple(numbers[name] for name in side))
        override[numbers[path]] = (kernel_numbers[0], kernel_numbers[1])
    return override
