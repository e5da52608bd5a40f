"""A recipe: what a model is to pruning, in kernels, channel rules and boundaries, without Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tf_lap import compat
from tf_lap.graph.energy_maps import EnergyMap
from tf_lap.graph.kernels import Layout


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel of the model.

    Attributes:
        path: the layer's path.
        layer: the layer.
        variable: its kernel.
        layout: how the kernel lies in memory.
        uses: how often the model's graph calls the layer; 0 inside a layer whose graph is not known.
        apart: why no use is known, where none is.
    """

    path: str
    layer: Any
    variable: Any = dataclasses.field(repr=False)
    layout: Layout
    uses: int
    apart: str | None = None


@dataclasses.dataclass(frozen=True)
class Read:
    """A kernel's use number `use` reads tensor `source` and puts out tensor `target`."""

    kernel: int
    use: int
    source: int
    target: int


@dataclasses.dataclass(frozen=True)
class Rule:
    """A channel rule of `layer` turns the energies of tensors `sources` into those of tensor `target`."""

    sources: tuple[int, ...]
    target: int
    energy_map: EnergyMap
    layer: Any


@dataclasses.dataclass(frozen=True)
class Wall:
    """A boundary: ones are read from `sources`, and ones put into `targets`."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    reason: str


Step = Read | Rule | Wall


@dataclasses.dataclass(frozen=True)
class Other:
    """A layer with weight matrices that are no kernels to prune, and why not."""

    layer_class: str
    matrices: tuple[Any, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a model is to pruning. Tensors are numbered from 0 to `tensors` - 1.

    Attributes:
        kernels: the kernels, in topological order of their first use.
        steps: the steps, in topological order.
        inputs: the tensors that enter the network, and the names they have there.
        outputs: the tensors that leave it, and their names.
        tensors: how many tensors there are.
        others: layers with weight matrices that are no kernels, by path.
        untraced: custom layers, or the model itself, whose call could not be followed.
    """

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    inputs: dict[int, str]
    outputs: tuple[tuple[int, str], ...]
    tensors: int
    others: dict[str, Other]
    untraced: tuple[str, ...] = ()

    def other_matrices(self) -> Iterator[tuple[str, Other, Any]]:
        """The weight matrices that are no kernels: a name, what is to say of the layer, and the variable.

        The name is the layer's path, with the variable's name behind it where the layer has several.
        """
        for path, other in self.others.items():
            for matrix in other.matrices:
                alone = len(other.matrices) == 1
                yield path if alone else f"{path}/{compat.variable_name(matrix)}", other, matrix
