"""What pruning did, layer by layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lap import compat
from tf_lap.graph import Recipe
from tf_lap.neighborhood import Neighbors
from tf_lap.tabular import table

_NUMBERS = (3, 4, 5)


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer with a kernel.

    Attributes:
        path: the layer's path.
        layer_class: the name of its class.
        shape: the kernel's shape.
        weights: how many weights the kernel has.
        kept: how many of them its mask keeps; all, where it is skipped.
        previous: paths of the kernels that feed it.
        following: paths of the kernels that read what it puts out.
        boundaries: where the way to a kernel ends, with the reason.
        skipped: why it was not pruned, or None where it was.
        revived: how many pruned weights are not zero, because something wrote them after pruning.
        zero: how many of the kept weights are zero all the same, as in a model that was sparser before.
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

    @property
    def sparsity(self) -> float:
        """The fraction of zeros that the mask puts into the kernel."""
        return 1.0 - self.kept / self.weights


@dataclasses.dataclass(frozen=True)
class PruningReport:
    """All layers with a kernel, in the order of the graph, then those with other weights. `str()` is a table.

    Attributes:
        layers: a `LayerReport` for each kernel.
    """

    layers: tuple[LayerReport, ...]

    @property
    def pruned(self) -> tuple[LayerReport, ...]:
        """The layers that were pruned."""
        return tuple(layer for layer in self.layers if layer.skipped is None)

    @property
    def weights(self) -> int:
        """How many weights the pruned kernels have."""
        return sum(layer.weights for layer in self.pruned)

    @property
    def kept(self) -> int:
        """How many of them are kept."""
        return sum(layer.kept for layer in self.pruned)

    @property
    def sparsity(self) -> float:
        """The fraction of zeros over the pruned kernels."""
        return 1.0 - self.kept / self.weights if self.weights else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        return {
            "weights": self.weights,
            "kept": self.kept,
            "sparsity": self.sparsity,
            "layers": [
                {
                    **{key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(layer).items()},
                    "sparsity": layer.sparsity,
                }
                for layer in self.layers
            ],
        }

    def __str__(self) -> str:
        rows = [("layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after")]
        notes = []
        for layer in self.layers:
            kept = (f"{layer.kept:,}", f"{layer.sparsity:.2%}") if layer.skipped is None else ("skipped", "")
            shape = "x".join(map(str, layer.shape))
            ends = (_names(layer.previous), _names(layer.following))
            rows.append((layer.path, layer.layer_class, shape, f"{layer.weights:,}", *kept, *ends))
            if layer.skipped is not None:
                notes.append(f"skipped {layer.path}: {layer.skipped}")
            if layer.skipped is None and layer.zero:
                notes.append(f"note {layer.path}: {layer.zero:,} of the kept weights are zero all the same")
            if layer.revived:
                notes.append(
                    f"warning {layer.path}: {layer.revived:,} pruned weights are not zero; something wrote them"
                )
        rows.append(("total", "", "", f"{self.weights:,}", f"{self.kept:,}", f"{self.sparsity:.2%}", "", ""))
        ends = dict.fromkeys(reason for layer in self.layers for reason in layer.boundaries)
        notes += [f"boundary: {reason}" for reason in ends]
        *lines, total = table(rows, right=_NUMBERS)
        return "\n".join([*lines, lines[1], total, *notes])


def report_of(
    recipe: Recipe,
    neighbors: Mapping[str, Neighbors],
    kept: Mapping[str, int],
    skipped: Mapping[str, str],
    census: Mapping[str, tuple[int, int]],
) -> PruningReport:
    """The report of what was done to a resolved model; all mappings are by layer path.

    Args:
        recipe: the resolved model.
        neighbors: who feeds and who reads each kernel.
        kept: how many weights a pruned kernel keeps.
        skipped: why others were not pruned.
        census: how many pruned weights of a kernel are not zero, and how many kept ones are.
    """
    layers = []
    for kernel in recipe.kernels:
        size, around = kernel.layout.size, neighbors[kernel.path]
        revived, zero = census.get(kernel.path, (0, 0))
        layers.append(
            LayerReport(
                path=kernel.path,
                layer_class=type(kernel.layer).__name__,
                shape=kernel.layout.shape,
                weights=size,
                kept=kept.get(kernel.path, size),
                previous=around.previous,
                following=around.following,
                boundaries=around.boundaries,
                skipped=skipped.get(kernel.path),
                revived=revived,
                zero=zero,
            )
        )
    for path, other in recipe.others.items():
        for matrix in other.matrices:
            size, shape = math.prod(matrix.shape), tuple(matrix.shape)
            name = path if len(other.matrices) == 1 else f"{path}/{compat.variable_name(matrix)}"
            layers.append(LayerReport(name, other.layer_class, shape, size, size, skipped=other.reason))
    return PruningReport(tuple(layers))


def _names(paths: Sequence[str]) -> str:
    if not paths:
        return "-"
    return ", ".join(paths[:2]) + (f" +{len(paths) - 2}" if len(paths) > 2 else "")
