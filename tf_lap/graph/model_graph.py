"""A recipe: what a model is to pruning, in kernels, channel rules and boundaries, without Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
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
        uses: how often the model's graph calls the layer; 0 where no use is known, as inside a layer whose graph is not
            known.
        unreached_reason: why the graph does not reach the layer; None where it does.
    """

    path: str
    layer: Layer
    variable: Variable = dataclasses.field(repr=False)
    layout: Layout
    uses: int
    unreached_reason: str | None = None


@dataclasses.dataclass(frozen=True)
class KernelStep:
    """A use of a kernel: it reads one tensor and puts out another.

    Attributes:
        kernel: the kernel's number in the recipe.
        use: the number of this use, counted from 0 for each kernel.
        source: the tensor that is read.
        target: the tensor that is put out.
    """

    kernel: int
    use: int
    source: int
    target: int


@dataclasses.dataclass(frozen=True)
class RuleStep:
    """A channel rule turns the energies of tensors `sources` into those of tensor `target`.

    Attributes:
        sources: the tensors that the layer reads.
        target: the tensor that it puts out.
        energy_map: what becomes of the energies.
        layer: the layer, operation or function that has the rule.
    """

    sources: tuple[int, ...]
    target: int
    energy_map: EnergyMap
    layer: Layer


@dataclasses.dataclass(frozen=True)
class BoundaryStep:
    """Channels are not followed further: ones are read from `sources`, and ones are put into `targets`.

    Attributes:
        sources: the tensors that end here.
        targets: the tensors that begin here.
        reason: why channels cannot be followed.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    reason: str


Step = KernelStep | RuleStep | BoundaryStep


@dataclasses.dataclass(frozen=True)
class OtherLayer:
    """A layer with weight matrices that are not kernels to prune.

    Attributes:
        layer_class: the name of its class.
        matrices: the weight matrices.
        reason: why they are not pruned.
    """

    layer_class: str
    matrices: tuple[Variable, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a model is to pruning. Tensors are numbered from 0 to `tensor_count` - 1.

    Attributes:
        kernels: the kernels, in topological order of their first use.
        steps: the steps, in topological order.
        inputs: the tensors that enter the network, and their names.
        outputs: the tensors that leave it, and their names.
        tensor_count: how many tensors there are.
        others: layers with weight matrices that are not kernels, by path.
        untraced: custom layers, or the model itself, whose call could not be followed.
    """

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    inputs: dict[int, str]
    outputs: tuple[tuple[int, str], ...]
    tensor_count: int
    others: dict[str, OtherLayer]
    untraced: tuple[str, ...] = ()

    def other_matrices(self) -> Iterator[tuple[str, OtherLayer, Variable]]:
        """The weight matrices that are not kernels: a name, the entry of the layer, and the variable.

        The name is the layer's path. Where the layer has several matrices, the variable's name follows it.
        """
        for path, layer in self.others.items():
            for matrix in layer.matrices:
                is_only = len(layer.matrices) == 1
                yield path if is_only else f"{path}/{compat.variable_name(matrix)}", layer, matrix
