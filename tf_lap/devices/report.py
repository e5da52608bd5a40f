"""Which layers of a model XNNPACK runs sparse, and what is in the way of the others."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tf_lap.devices.clusters import MIN_ZEROS
from tf_lap.tabular import Row, check_width, fit_table, wrap

_COLUMNS = ("layer", "in", "out", "zeros", "cluster", "XNNPACK")
_MAX_ROWS = 40


@dataclasses.dataclass(frozen=True)
class DeviceLayer:
    """One 1x1 convolution, or a Dense layer whose weights count in a cluster.

    Attributes:
        path: the layer's path; the converter's name for it in a report on a file.
        kind: "convolution" or "dense". XNNPACK multiplies Dense layers with all their weights, and counts their zeros.
        inputs: how many channels it reads.
        outputs: how many it puts out.
        sparsity: the fraction of zeros in its weights.
        cluster: the number of its cluster in the report; None where it is in none.
        runs_sparse: whether XNNPACK multiplies it without its zeros.
        blocker: the layer that is in the way; None where none is.
        reason: what of it is in the way.
        remedy: what to do.
    """

    path: str
    kind: str
    inputs: int
    outputs: int
    sparsity: float
    cluster: int | None
    runs_sparse: bool
    blocker: str | None = None
    reason: str | None = None
    remedy: str | None = None

    @property
    def qualifies(self) -> bool:
        """Whether it runs sparse once its cluster has zeros enough."""
        return self.kind == "convolution" and self.cluster is not None


@dataclasses.dataclass(frozen=True)
class DeviceCluster:
    """Layers that XNNPACK runs sparse together, or not at all.

    Attributes:
        begins: the layer that it begins with, a 3x3 convolution.
        ends: the layer that it ends with, a mean.
        weights: how many weights count in it, of 1x1 convolutions and of Dense layers.
        zeros: how many of them are zero.
        dense_weights: how many of the weights are those of Dense layers.
        dense_zeros: how many of these are zero.
    """

    begins: str
    ends: str
    weights: int
    zeros: int
    dense_weights: int
    dense_zeros: int

    @property
    def runs_sparse(self) -> bool:
        """Whether more than two thirds of the weights are zero, as XNNPACK asks."""
        return self.zeros > MIN_ZEROS * self.weights

    @property
    def needed(self) -> float:
        """The fraction of zeros that its 1x1 convolutions must pass together, with Dense layers as they are."""
        missing = MIN_ZEROS * self.weights - self.dense_zeros
        return min(max(missing / (self.weights - self.dense_weights), 0.0), 1.0)


@dataclasses.dataclass(frozen=True, repr=False)
class DeviceReport:
    """Which layers run sparse on ARM processors and in WebAssembly. `print(report)` shows what `render()` returns.

    Attributes:
        name: of the model or file.
        layers: a `DeviceLayer` for each 1x1 convolution, and for Dense layers that count.
        clusters: what can run sparse.
        failing: layers at which XNNPACK would fail if the file were sparse, and why.
    """

    name: str
    layers: tuple[DeviceLayer, ...]
    clusters: tuple[DeviceCluster, ...]
    failing: dict[str, str]

    @property
    def qualifies(self) -> bool:
        """Whether any 1x1 convolution runs sparse once it has zeros enough, and nothing fails then."""
        return not self.failing and any(layer.qualifies for layer in self.layers)

    @property
    def runs_sparse(self) -> bool:
        """Whether any 1x1 convolution runs sparse as the model is."""
        return not self.failing and any(layer.runs_sparse for layer in self.layers)

    @property
    def convolutions(self) -> int:
        """How many 1x1 convolutions there are."""
        return sum(layer.kind == "convolution" for layer in self.layers)

    @property
    def sparse_convolutions(self) -> int:
        """How many of them run sparse as the model is."""
        return 0 if self.failing else sum(layer.runs_sparse for layer in self.layers)

    @property
    def summary(self) -> str:
        """One line on what runs sparse."""
        qualifying = sum(layer.qualifies for layer in self.layers)
        return (
            f"{self.name}: {self.sparse_convolutions} of {self.convolutions} 1x1 convolutions run sparse, "
            f"{qualifying} can (ARM and WebAssembly; on x86 none does)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        plain = dataclasses.asdict(self)
        plain["layers"] = [dict(layer) for layer in plain["layers"]]
        plain["clusters"] = [
            entries | {"runs_sparse": cluster.runs_sparse}
            for entries, cluster in zip(plain["clusters"], self.clusters, strict=True)
        ]
        return plain | {"qualifies": self.qualifies, "runs_sparse": self.runs_sparse}

    def render(self, *, width: int | None = 80, all: bool = False) -> str:
        """The report as text.

        Args:
            width: how many columns a line has at most; None stands for those of the terminal.
            all: every layer; otherwise of many the first.

        Raises:
            TypeError, ValueError: a width that is no whole number, or less than 40.
        """
        columns = check_width(width)
        shown = self.layers if all else self.layers[:_MAX_ROWS]
        rows = [_make_row(layer) for layer in shown]
        least = {"layer": 20, "XNNPACK": 20}
        lines, _ = fit_table(rows, _COLUMNS, ("layer", "XNNPACK"), columns, least, ("in", "out"))
        if len(shown) < len(self.layers):
            lines.append(f"... and {len(self.layers) - len(shown)} more: render(all=True)")
        for remark in self._list_remarks():
            lines += wrap(remark, columns)
        return "\n".join(lines)

    def _list_remarks(self) -> list[str]:
        remarks = [_describe(number, cluster) for number, cluster in enumerate(self.clusters, 1)]
        blockers: dict[tuple[str | None, str | None], list[str]] = {}
        for layer in self.layers:
            if layer.blocker is not None and layer.cluster is None and layer.kind == "convolution":
                blockers.setdefault((layer.reason, layer.remedy), []).append(layer.blocker)
        for (reason, remedy), paths in blockers.items():
            first, *others = dict.fromkeys(paths)
            likewise = f", and so for {len(others)} more layers" if others else ""
            remarks.append(f"{len(paths)} dense: {first!r} {reason}{likewise}: {remedy}")
        remarks += [f"FAILS where the file is sparse: {path!r} {reason}" for path, reason in self.failing.items()]
        return [*remarks, self.summary]

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<DeviceReport: {self.summary}>"


def _make_row(layer: DeviceLayer) -> Row:
    if layer.kind == "dense":
        outcome = "counts"
    elif layer.runs_sparse:
        outcome = "sparse"
    else:
        outcome = "dense, too few zeros" if layer.cluster is not None else f"dense: {layer.blocker}"
    return {
        "layer": layer.path,
        "in": f"{layer.inputs:,}",
        "out": f"{layer.outputs:,}",
        "zeros": f"{layer.sparsity:.1%}",
        "cluster": "-" if layer.cluster is None else str(layer.cluster),
        "XNNPACK": outcome,
    }


def _describe(number: int, cluster: DeviceCluster) -> str:
    share = cluster.zeros / cluster.weights
    text = f"cluster {number}: {cluster.begins!r} to {cluster.ends!r}, {share:.1%} of {cluster.weights:,} weights zero"
    if cluster.runs_sparse:
        return text
    text += ", and it runs sparse above 66.7%"
    if not cluster.dense_weights:
        return text
    # Rounded up, since just as many would be too few.
    needed = math.ceil(cluster.needed * 1000) / 10
    elsewhere = f"more than {needed:.1f}% elsewhere" if needed < 100 else "they alone are too large"
    return f"{text}: Dense layers have {cluster.dense_weights:,} of them: prune these too, or {elsewhere}"
