"""What pruning did, layer by layer, and to the model as a whole."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_lap import compat
from tf_lap.channels.report import ChannelsReport
from tf_lap.compat.types import Model, Variable
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.neighbors import Neighbors
from tf_lap.reconstruction.report import RepairReport
from tf_lap.report.census import ModelCensus, count_model
from tf_lap.report.notebook import as_html
from tf_lap.report.rendering import as_text

VECTORS = "biases, normalization and other vectors"
"""What `PruningReport.left_whole` calls the weights that lie in no matrix."""


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """A kernel, or another weight matrix.

    Attributes:
        path: the layer's path; for further matrices of the layer, followed by the name of the variable.
        layer_class: the name of its class.
        shape: the kernel's shape.
        weights: how many weights the kernel has.
        kept: how many of them its mask keeps; all of them where the kernel is skipped.
        previous: paths of the kernels that feed it.
        following: paths of the kernels that read what it puts out.
        boundaries: where the search for neighbouring kernels ended, with the reason.
        skipped: why it was not pruned, or None where it was.
        revived: how many pruned weights are not zero, because something wrote them after pruning.
        zero: how many of the kept weights are zero too, as in a model that was sparser before.
        note: why the mask keeps more than was asked for, or None.
    """

    path: str
    layer_class: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    previous: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    skipped: str | None = None
    revived: int = 0
    zero: int = 0
    note: str | None = None

    @property
    def zeros(self) -> int:
        """How many weights are zero now."""
        return self.weights - self.kept - self.revived + self.zero

    @property
    def sparsity(self) -> float:
        """The fraction of weights that are zero now, whatever the mask says."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def sides(self) -> tuple[str, ...]:
        """On which sides lookahead finds kernels: both of "before" and "after", one, or none."""
        return ("before",) * bool(self.previous) + ("after",) * bool(self.following)


@dataclasses.dataclass(frozen=True, repr=False)
class PruningReport:
    """All layers with a kernel, in the order of the graph, then those with other weights.

    `print(report)` shows what `render()` returns, and a notebook shows a table.

    Attributes:
        layers: a `LayerReport` for each kernel and for each other matrix.
        model_weights: how many weights the whole model has: floating-point weights of every kind, each variable once.
        model_zeros: how many of them are zero now.
        left_whole: how many weights of the model are not pruned, by the reason why; those in no matrix under
            "biases, normalization and other vectors". Each variable counts once.
        score_sides: on which sides of a kernel the score looks: both of "before" and "after", one, or none.
        repair: what a repair did; None where nothing was repaired.
        allocation_note: what the allocation "auto" was, and why; empty where another was chosen.
        channels: what was done to whole channels; None where weights were pruned by other patterns.
    """

    layers: tuple[LayerReport, ...]
    model_weights: int
    model_zeros: int
    left_whole: Mapping[str, int]
    score_sides: tuple[str, ...] = ("before", "after")
    repair: RepairReport | None = None
    allocation_note: str = ""
    channels: ChannelsReport | None = None

    @property
    def pruned(self) -> tuple[LayerReport, ...]:
        """The layers that were pruned."""
        return tuple(layer for layer in self.layers if layer.skipped is None)

    @property
    def skipped(self) -> tuple[LayerReport, ...]:
        """The layers that were not pruned; `skipped` of each is the reason."""
        return tuple(layer for layer in self.layers if layer.skipped is not None)

    def skipped_by_reason(self) -> dict[str, list[str]]:
        """The paths of the layers that were not pruned, by the reason why."""
        paths: dict[str, list[str]] = {}
        for layer in self.skipped:
            paths.setdefault(str(layer.skipped), []).append(layer.path)
        return paths

    @property
    def weights(self) -> int:
        """How many weights the pruned kernels have."""
        return sum(layer.weights for layer in self.pruned)

    @property
    def kept(self) -> int:
        """How many of them the masks keep."""
        return sum(layer.kept for layer in self.pruned)

    @property
    def zeros(self) -> int:
        """How many of them are zero now."""
        return sum(layer.zeros for layer in self.pruned)

    @property
    def sparsity(self) -> float:
        """The fraction of the pruned kernels' weights that are zero now, whatever the masks say."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def model_sparsity(self) -> float:
        """The fraction of all weights of the model that are zero now."""
        return self.model_zeros / self.model_weights if self.model_weights else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        return {
            "weights": self.weights,
            "kept": self.kept,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "model_weights": self.model_weights,
            "model_zeros": self.model_zeros,
            "model_sparsity": self.model_sparsity,
            "left_whole": dict(self.left_whole),
            "score_sides": list(self.score_sides),
            "repair": None if self.repair is None else self.repair.to_dict(),
            "allocation_note": self.allocation_note,
            "channels": None if self.channels is None else self.channels.to_dict(),
            "layers": [
                {
                    **{key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(layer).items()},
                    "zeros": layer.zeros,
                    "sparsity": layer.sparsity,
                    "sides": list(layer.sides),
                }
                for layer in self.layers
            ],
        }

    def render(self, width: int | None = None, *, all: bool = False) -> str:
        """The report as text: a table of the pruned kernels, why others were skipped, what the whole model has.

        A long table is folded to its first and last kernels, the largest, and the most and the least sparse ones.

        Example:

        >>> report = tf_lap.prune(model, 0.9)
        >>> print(report.render(width=100, all=True))
        layer ...
        whole model: ...

        Args:
            width: how many columns a line has at most, 40 or more; that of the terminal by default, 80 where there is
                none.
            all: every kernel, and every path behind a reason.

        Raises:
            TypeError, ValueError: a width that is no whole number, or less than 40.
        """
        return as_text(self, width, all)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return (
            f"<PruningReport: {len(self.pruned)} pruned, {len(self.skipped)} skipped, sparsity {self.sparsity:.4f}, "
            f"model sparsity {self.model_sparsity:.4f}>"
        )

    def _repr_html_(self) -> str:
        return as_html(self)


def make_report(
    model: Model,
    recipe: Recipe,
    neighbors: Mapping[str, Neighbors],
    kept: Mapping[str, int],
    skipped: Mapping[str, str],
    census: Mapping[str, tuple[int, int]],
    notes: Mapping[str, str],
    score_sides: tuple[str, ...],
    allocation_note: str,
) -> PruningReport:
    """The report of what was done to a resolved model; all mappings are by layer path.

    Args:
        model: the model.
        recipe: the recipe of the model.
        neighbors: the kernels before and after each kernel.
        kept: how many weights a pruned kernel keeps.
        skipped: why others were not pruned.
        census: how many pruned weights of a kernel are not zero, and how many kept ones are zero.
        notes: why a pruned kernel keeps more than was asked for.
        score_sides: on which sides of a kernel the score looks.
        allocation_note: as in `PruningReport`.
    """
    other_matrices = [matrix for other in recipe.others.values() for matrix in other.matrices]
    model_census = count_model(model, [*(kernel.variable for kernel in recipe.kernels), *other_matrices])
    rows: list[tuple[LayerReport, Variable]] = []
    for kernel in recipe.kernels:
        size, adjacent, reason = kernel.layout.size, neighbors[kernel.path], skipped.get(kernel.path)
        revived, zero = census.get(kernel.path, (0, model_census.zeros_in[id(kernel.variable)]))
        layer = LayerReport(
            path=kernel.path,
            layer_class=type(kernel.layer).__name__,
            shape=kernel.layout.shape,
            weights=size,
            kept=kept.get(kernel.path, size),
            previous=adjacent.previous,
            following=adjacent.following,
            boundaries=adjacent.boundaries,
            skipped=reason,
            revived=revived,
            zero=zero,
            note=notes.get(kernel.path) if reason is None else None,
        )
        rows.append((layer, kernel.variable))
    for path, layer_class, reason, matrix in _find_other_matrices(model, recipe, model_census):
        shape, size, zero = tuple(matrix.shape), math.prod(matrix.shape), model_census.zeros_in[id(matrix)]
        rows.append((LayerReport(path, layer_class, shape, size, size, skipped=reason, zero=zero), matrix))
    layers = tuple(layer for layer, _ in rows)
    left_whole = _count_left_whole(rows, model_census.weights)
    return PruningReport(
        layers,
        model_census.weights,
        model_census.zeros,
        left_whole,
        score_sides,
        allocation_note=allocation_note,
    )


def _find_other_matrices(
    model: Model, recipe: Recipe, model_census: ModelCensus
) -> Iterator[tuple[str, str, str, Variable]]:
    """The path, layer class and reason of each matrix that is no kernel, and the matrix."""
    listed_ids = {id(kernel.variable) for kernel in recipe.kernels}
    for name, other, matrix in recipe.other_matrices():
        listed_ids.add(id(matrix))
        yield name, other.layer_class, other.reason, matrix
    for matrix in model_census.matrices:  # what the model holds itself, and no layer in it
        name = compat.variable_name(matrix)
        if id(matrix) not in listed_ids and "bias" not in name:
            yield name, type(model).__name__, f"{type(model).__name__} has no kernel rule", matrix


def _count_left_whole(rows: Sequence[tuple[LayerReport, Variable]], weights: int) -> dict[str, int]:
    """How many of a model's weights are not pruned, by reason. A matrix that two layers share counts once.

    Args:
        rows: the matrices of the model.
        weights: how many weights the model has.
    """
    sizes: dict[int, int] = {}
    skipped: collections.Counter[str] = collections.Counter()
    for layer, matrix in sorted(rows, key=lambda row: row[0].skipped is not None):  # pruned ones first
        if id(matrix) not in sizes:
            sizes[id(matrix)] = layer.weights
            if layer.skipped is not None:
                skipped[layer.skipped] += layer.weights
    return {**dict(skipped.most_common()), VECTORS: weights - sum(sizes.values())}
