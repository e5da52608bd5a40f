"""What became smaller, layer by layer."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from tf_lap.tabular import elide, table

_MAX_ROWS = 16


@dataclasses.dataclass(frozen=True)
class LayerShrinkage:
    """A kernel before and after.

    Attributes:
        path: the kernel's path, as in the pruning report.
        inputs: how many channels it reads: before and after.
        outputs: how many it puts out.
        weights: how many weights it has.
    """

    path: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    weights: tuple[int, int]


@dataclasses.dataclass(frozen=True, repr=False)
class ShrinkReport:
    """What `tf_lap.shrink` removed, and what it had to leave. `print(report)` shows what `render()` returns.

    Attributes:
        layers: a `LayerShrinkage` for each kernel.
        weights: how many numbers all variables of the model hold: before and after.
        folded: how many input channels of kernels were constant and went into a bias.
        held: how many channels are constant and stay, by the reason why their share cannot go into a bias.
        difference: the largest difference of the outputs, as a fraction of the largest number in an output.
    """

    layers: tuple[LayerShrinkage, ...]
    weights: tuple[int, int]
    folded: int
    held: dict[str, int]
    difference: float

    @property
    def changed(self) -> tuple[LayerShrinkage, ...]:
        """The kernels that became smaller."""
        return tuple(layer for layer in self.layers if layer.weights[0] != layer.weights[1])

    @property
    def summary(self) -> str:
        """One line on what was removed."""
        before, after = self.weights
        if not self.changed:
            return f"nothing to remove: all {before:,} weights"
        puts_out = [sum(layer.outputs[place] for layer in self.layers) for place in (0, 1)]
        return (
            f"{before:,} -> {after:,} weights ({after / before:.1%}), {puts_out[0]:,} -> {puts_out[1]:,} channels, "
            f"outputs equal to {self.difference:.1g}"
        )

    def explain_held(self) -> list[str]:
        """For each reason why constant channels stay a line."""
        return [
            f"{count_of(count, 'constant channel')} stay{'s' * (count == 1)}: {reason}"
            for reason, count in self.held.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        return dataclasses.asdict(self)

    def render(self, *, all: bool = False) -> str:
        """The report as text.

        Args:
            all: every kernel that became smaller; otherwise of many those that lost most weights.
        """
        shown = self.changed
        if len(shown) > _MAX_ROWS and not all:
            most = sorted(shown, key=lambda layer: layer.weights[1] - layer.weights[0])[:_MAX_ROWS]
            shown = tuple(layer for layer in shown if layer in most)
        rows = [
            (elide(layer.path, 36), *(f"{a:,} -> {b:,}" for a, b in (layer.inputs, layer.outputs, layer.weights)))
            for layer in shown
        ]
        lines = table([("layer", "reads", "puts out", "weights"), *rows], (1, 2, 3)) if rows else []
        if len(shown) < len(self.changed):
            lines.append(f"... and {len(self.changed) - len(shown)} more")
        lines.append(self.summary)
        if self.folded:
            lines.append(f"{count_of(self.folded, 'constant input')} of kernels went into biases")
        lines += self.explain_held()
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="  ") if len(line) > 80 else line for line in lines)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<ShrinkReport: {self.summary}>"


def count_of(count: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
