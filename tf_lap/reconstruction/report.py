"""What a repair did, layer by layer."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from tf_lap.tabular import elide, table

_MAX_ROWS = 12
_MAX_NAMES = 3


@dataclasses.dataclass(frozen=True)
class LayerRepair:
    """A kernel that was repaired, or was left as pruning left it.

    Attributes:
        path: the kernel's path, as in the pruning report.
        before: how much of what the whole kernel put out is lost by pruning, with what feeds it repaired already: the
            mean squared difference over the variance, summed over outputs. 0 is nothing; 1 is as much as a constant
            loses. None where it was left.
        after: the same, after repair.
        left: why it was left as it was; None where it was repaired.
        note: what was done otherwise than asked, as a damping that was raised; None where nothing was.
    """

    path: str
    before: float | None = None
    after: float | None = None
    left: str | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class RepairReport:
    """All pruned kernels, in the order in which they were repaired, then those that were left.

    `print(report)` shows what `render()` returns.

    Attributes:
        layers: a `LayerRepair` for each pruned kernel.
        methods: what was done: of "weights", "bias" and "batchnorm".
        normalizations: how many batch normalizations have new statistics.
        samples: how many samples were measured; None without data.
    """

    layers: tuple[LayerRepair, ...]
    methods: tuple[str, ...]
    normalizations: int = 0
    samples: int | None = None

    @property
    def repaired(self) -> tuple[LayerRepair, ...]:
        """The kernels that were repaired."""
        return tuple(layer for layer in self.layers if layer.left is None)

    def left_by_reason(self) -> dict[str, list[str]]:
        """The paths of the kernels that were left as they were, by the reason why."""
        paths: dict[str, list[str]] = {}
        for layer in self.layers:
            if layer.left is not None:
                paths.setdefault(layer.left, []).append(layer.path)
        return paths

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        return {
            "methods": list(self.methods),
            "normalizations": self.normalizations,
            "samples": self.samples,
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }

    def render(self, *, all: bool = False) -> str:
        """The report as text: how much of what each layer put out is lost, before repair and after.

        Args:
            all: every kernel, and every path behind a reason; otherwise of a long model those that lost most.
        """
        repaired = [layer for layer in self.repaired if layer.after is not None]
        shown = repaired
        if len(repaired) > _MAX_ROWS and not all:
            worst = sorted(repaired, key=lambda layer: -(layer.after or 0.0))[:_MAX_ROWS]
            shown = [layer for layer in repaired if layer in worst]
        rows = [(elide(layer.path, 44), f"{layer.before:.2%}", f"{layer.after:.2%}") for layer in shown]
        lines = table([("layer", "lost before", "after"), *rows], (1, 2)) if rows else []
        if len(shown) < len(repaired):
            lines.append(f"... and {len(repaired) - len(shown)} more that lost less")
        lines.append(self.summary)
        lines += [f"{layer.path}: {layer.note}" for layer in self.layers if layer.note]
        for reason, paths in self.left_by_reason().items():
            names = ", ".join(paths if all else paths[:_MAX_NAMES])
            more = f" and {len(paths) - _MAX_NAMES} more" if len(paths) > _MAX_NAMES and not all else ""
            lines.append(f"left as they were: {names}{more}: {reason}")
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="  ") if len(line) > 80 else line for line in lines)

    @property
    def summary(self) -> str:
        """One line on what was repaired."""
        data = "without data" if self.samples is None else f"with {self.samples:,} samples"
        parts = [f"{len(self.repaired)} of {len(self.layers)} kernels"] if self.repaired else []
        if self.normalizations:
            parts.append(f"statistics of {self.normalizations} normalization{'s' * (self.normalizations != 1)}")
        return f"repaired {data}: {' and '.join(parts) or 'nothing'}"

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<RepairReport: {self.summary}>"
