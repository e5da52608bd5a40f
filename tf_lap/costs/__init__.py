"""What a model costs: weights, bytes, multiply-accumulates and the largest activation, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_lap.costs.text import as_html, as_text


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What a layer, an operation or a function costs, over all its uses.

    Attributes:
        path: the layer's path.
        layer_class: the name of its class.
        output_shape: the shape of its first output, batch axis first; None where no call of it is known.
        uses: how often the model calls it.
        weights: how many weights it has, of all kinds. A weight that several layers share counts at the first.
        nonzero: how many of them are not exactly 0.
        trainable: how many of them are trained.
        bytes: how many bytes the weights take.
        macs: the multiply-accumulates of its kernels and products.
        nonzero_macs: those without the weights that are zero.
        activation_bytes: how many bytes its largest output takes.
    """

    path: str
    layer_class: str
    output_shape: tuple[int | None, ...] | None
    uses: int
    weights: int
    nonzero: int
    trainable: int
    bytes: int
    macs: int
    nonzero_macs: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class Activation:
    """A tensor that is computed when the model runs, or an input of it.

    Attributes:
        path: the path of the layer that puts it out, or the name of the input.
        shape: its shape, batch axis first.
        dtype: the name of its dtype.
        bytes: how many bytes it takes.
    """

    path: str
    shape: tuple[int | None, ...]
    dtype: str
    bytes: int


@dataclasses.dataclass(frozen=True, repr=False)
class CostReport:
    """What a model costs, layer by layer and in total.

    `print(report)` shows what `render()` returns, and a notebook shows a table.

    Attributes:
        layers: a `LayerCost` for each layer that is called, in the order of the graph, then for those that have weights
            and are not called.
        model_name: the name of the model.
        batch_size: how many samples the multiply-accumulates and activations are for.
        bytes_by_dtype: how many bytes the weights of each dtype take.
        largest_activation: the largest tensor; None where the model's call cannot be followed.
        uncounted: the layers whose multiply-accumulates are not known, with the reason why.
    """

    layers: tuple[LayerCost, ...]
    model_name: str
    batch_size: int
    bytes_by_dtype: Mapping[str, int]
    largest_activation: Activation | None
    uncounted: Mapping[str, str]

    @property
    def weights(self) -> int:
        """How many weights the model has: kernels, biases, embeddings and statistics of normalizations, frozen or not.

        Each variable counts once. Seeds and counters are no weights.
        """
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """How many of them are not exactly 0."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def trainable(self) -> int:
        """How many of them are trained."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def bytes(self) -> int:
        """How many bytes the weights take, zeros too."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """The multiply-accumulates of kernels, and of products of tensors as in attention, for the whole batch.

        Biases, normalizations, activations and pooling are not among them: they are few operations a number.
        """
        return sum(layer.macs for layer in self.layers)

    @property
    def nonzero_macs(self) -> int:
        """Those without the weights that are zero."""
        return sum(layer.nonzero_macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        largest = self.largest_activation
        return {
            "model": self.model_name,
            "batch_size": self.batch_size,
            "weights": self.weights,
            "nonzero": self.nonzero,
            "trainable": self.trainable,
            "bytes": self.bytes,
            "bytes_by_dtype": dict(self.bytes_by_dtype),
            "macs": self.macs,
            "nonzero_macs": self.nonzero_macs,
            "largest_activation": None
            if largest is None
            else {**dataclasses.asdict(largest), "shape": [*largest.shape]},
            "uncounted": dict(self.uncounted),
            "layers": [
                {
                    **dataclasses.asdict(layer),
                    "output_shape": None if layer.output_shape is None else list(layer.output_shape),
                }
                for layer in self.layers
            ],
        }

    def render(self, width: int | None = None, *, all: bool = False) -> str:
        """The report as text: a table of the layers that have weights or multiply, and the totals.

        A table of more than 30 layers is folded to its first and last ones, and those that multiply most.

        Args:
            width: how many columns a line has at most, 40 or more; that of the terminal by default, 80 where there is
                none.
            all: every layer, also those that have no weights and multiply nothing.

        Raises:
            TypeError, ValueError: a width that is no whole number, or less than 40.
        """
        return as_text(self, width, all)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return (
            f"<CostReport: {self.weights:,} weights, {self.nonzero:,} of them not zero, {self.bytes:,} bytes, "
            f"{self.macs:,} multiply-accumulates>"
        )

    def _repr_html_(self) -> str:
        return as_html(self)
