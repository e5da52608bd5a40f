"""A model's values against sparsity, layer by layer, as numbers, words and a picture."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_lap.files import AnyPath, as_path
from tf_lap.search.sensitivity_chart import draw
from tf_lap.search.sensitivity_text import as_html, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """One layer's kernel, pruned by itself.

    Attributes:
        path: the layer's path.
        layer_class: the class of the layer.
        shape: the kernel's shape.
        weights: how many weights it has.
        values: the model's value at each sparsity.
    """

    path: str
    layer_class: str
    shape: tuple[int, ...]
    weights: int
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class SensitivityReport:
    """What pruning each layer by itself, and all together, does to a model's value.

    `print(report)` shows what `render()` returns, a notebook shows a table, and `plot()` draws.

    Attributes:
        dense: the value of the dense model.
        sparsities: the fractions of zeros, in rising order.
        layers: a `LayerSensitivity` for each layer, in the order of the graph.
        together: the values where all layers are pruned, at each sparsity; None where that was not measured.
        higher_is_better: whether a higher value is better.
        choices: score, allocation and pattern in words; the allocation holds for all layers together.
    """

    dense: float
    sparsities: tuple[float, ...]
    layers: tuple[LayerSensitivity, ...]
    together: tuple[float, ...] | None
    higher_is_better: bool
    choices: str

    def drop(self, layer: LayerSensitivity) -> float:
        """By how much pruning a layer makes the value worse, on the mean over the sparsities; infinite for NaN."""
        values = np.asarray(layer.values, np.float64)
        drop = float(np.mean(self.dense - values if self.higher_is_better else values - self.dense))
        return float("inf") if np.isnan(drop) else drop

    @cached_property
    def by_sensitivity(self) -> tuple[LayerSensitivity, ...]:
        """The layers, from the one whose pruning makes the value worst, by `drop`."""
        return tuple(sorted(self.layers, key=self.drop, reverse=True))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        return {
            "dense": self.dense,
            "higher_is_better": self.higher_is_better,
            "choices": self.choices,
            "sparsities": list(self.sparsities),
            "together": None if self.together is None else list(self.together),
            "layers": [
                {
                    **dataclasses.asdict(layer),
                    "shape": list(layer.shape),
                    "values": list(layer.values),
                    "drop": self.drop(layer),
                }
                for layer in self.layers
            ],
        }

    def render(self, width: int | None = None, *, all: bool = False) -> str:
        """The report as text: a row for each layer, with the value at each sparsity.

        A table of more than 30 layers is folded to the most and the least sensitive ones, in the order of sensitivity.

        Args:
            width: how many columns a line has at most, 40 or more; that of the terminal by default, 80 where there is
                none.
            all: every layer, in the order of the graph.

        Raises:
            TypeError, ValueError: a width that is no whole number, or less than 40.
        """
        return as_text(self, width, all)

    def plot(self, path: AnyPath | None = None) -> Figure:
        """Draws the values against the sparsity: all layers together, and the most sensitive ones by themselves.

        Args:
            path: the file to write, in the format that its ending names, such as ".png" or ".svg"; PNG where it has no
                ending. None: nothing is written.

        Returns:
            A figure of matplotlib.

        Raises:
            ImportError: matplotlib is not installed; it comes with `pip install "tf_lap[plot]"`.
            OSError: the file cannot be written. ValueError: a format that matplotlib does not know.
        """
        figure = draw(self)
        if path is not None:
            file = as_path(path)
            figure.savefig(file, dpi=150, format=file.suffix[1:] or "png")
        return figure

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        size = f"{len(self.layers)} layers at {len(self.sparsities)} sparsities"
        return f"<SensitivityReport: {size}, dense {self.dense:.4g}>"

    def _repr_html_(self) -> str:
        return as_html(self)
