"""A recipe: what a model is to pruning, in kernels, channel rules and boundaries, without Keras."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Signal
from tf_lap.graph.energy_maps import EnergyMap
from tf_lap.graph.layouts import Layout


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel of the model.

    Attributes:
        path: the layer's path; the kernel's name follows it where the layer has several.
        layer: the layer.
        variable: its kernel.
        layout: how the kernel lies in memory.
        uses: how often the model's graph calls the layer; 0 where no use is known, as inside a layer whose graph is not
            known.
        unreached_reason: why the graph does not reach the layer; None where it does.
        is_opt_in: whether it is pruned only where filters or a mapping of sparsities name it.
        is_tied: whether another layer uses it too.
    """

    path: str
    layer: Layer
    variable: Variable = dataclasses.field(repr=False)
    layout: Layout
    uses: int
    unreached_reason: str | None = None
    is_opt_in: bool = False
    is_tied: bool = False


@dataclasses.dataclass(frozen=True)
class KernelStep:
    """A use of a kernel: it reads one tensor and puts out another.

    Attributes:
        kernel: the kernel's number in the recipe.
        use: the number of this use, counted from 0 for each kernel.
        source: the tensor that is read.
        target: the tensor that is put out.
        is_transposed: whether this use reads the kernel's outputs and puts out its inputs, as an embedding does that
            turns features back into words.
        read_axes: the axes of the tensor that is read which the channels lie on, in the order of the layout's channels
            and counted from the end; empty where that tensor is no input of the layer, as in a loop over time.
        repeats: how often the layer uses the kernel in one call, as in a loop over time; None where that is not known.
    """

    kernel: int
    use: int
    source: int
    target: int
    is_transposed: bool = False
    read_axes: tuple[int, ...] = ()
    repeats: int | None = 1


@dataclasses.dataclass(frozen=True)
class RuleStep:
    """A channel rule turns the energies of tensors `sources` into those of tensor `target`.

    Attributes:
        sources: the tensors that the layer reads.
        target: the tensor that it puts out.
        energy_map: what becomes of the energies.
        layer: the layer, operation or function that has the rule.
        kernel: the number of the kernel that the rule acts with, where each of its weights acts on one channel alone,
            as in a depthwise convolution; None where there is none. Energies pass through it.
        use: the number of this use of the kernel.
        tied: as in `Flow`.
        repeats: as in `KernelStep`.
    """

    sources: tuple[int, ...]
    target: int
    energy_map: EnergyMap
    layer: Layer
    kernel: int | None = None
    use: int = 0
    tied: np.ndarray | None = None
    repeats: int | None = 1


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


@dataclasses.dataclass(frozen=True)
class ProductStep:
    """Two tensors are multiplied with each other, as queries and keys are: each is read by what is put into the other.

    Attributes:
        left: a tensor.
        right: another, or the same.
        energy_map: turns the incoming energy of `right` into what is read of `left`. Its transpose does the reverse.
        is_by_head: whether it weighs positions of values, head by head, and heads of queries, keys and values go
            together: then nothing is read of a head whose values nobody reads.
    """

    left: int
    right: int
    energy_map: EnergyMap
    is_by_head: bool = False


Step = KernelStep | RuleStep | BoundaryStep | ProductStep


class KernelUse(NamedTuple):
    """A use of a kernel: the kernel's number, the number of the use, the tensor that is read, and the one put out."""

    kernel: int
    use: int
    source: int
    target: int


@dataclasses.dataclass(frozen=True)
class Product:
    """Tensors that are multiplied with each other, whether their channels are followed or not.

    Attributes:
        layer: the layer, operation or function that multiplies them.
        sizes: the sizes of all axes that the product runs over: a number of the result is a sum over those that it does
            not have. None for one that is not known.
        tensor: the number of one of the tensors, whose channels all lie on these axes; None where none has any.
        repeats: as in `KernelStep`.
    """

    layer: Layer
    sizes: tuple[int | None, ...]
    tensor: int | None
    repeats: int | None = 1


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
        signals: the shape and the channel axes of each tensor.
        others: layers with weight matrices that are not kernels, by path.
        coupling_steps: the channel rules that lead to masks and shapes alone. They carry no energy that counts, but
            couple channels.
        ties: axes of tensors that must stay equally long, each a tensor and an axis: the places on it go together.
        walls: tensors whose channels cannot be removed, and why.
        untraced: custom layers, or the model itself, whose call could not be followed.
        products: the products of tensors.
    """

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    inputs: dict[int, str]
    outputs: tuple[tuple[int, str], ...]
    signals: tuple[Signal, ...]
    others: dict[str, OtherLayer]
    coupling_steps: tuple[RuleStep, ...] = ()
    ties: tuple[tuple[tuple[int, int], ...], ...] = ()
    walls: tuple[tuple[int, str], ...] = ()
    untraced: tuple[str, ...] = ()
    products: tuple[Product, ...] = ()

    @property
    def tensor_count(self) -> int:
        """How many tensors there are."""
        return len(self.signals)

    @functools.cached_property
    def kernel_uses(self) -> tuple[KernelUse, ...]:
        """All uses of kernels, those of kernels that act channel by channel among them."""
        uses = []
        for step in self.steps:
            match step:
                case KernelStep():
                    uses.append(KernelUse(step.kernel, step.use, step.source, step.target))
                case RuleStep(kernel=int() as kernel):
                    uses.append(KernelUse(kernel, step.use, step.sources[0], step.target))
        return tuple(uses)

    @functools.cached_property
    def transposed_uses(self) -> frozenset[tuple[int, int]]:
        """The uses of kernels that read their outputs: pairs of a kernel's number and a use's."""
        return frozenset(
            (step.kernel, step.use) for step in self.steps if isinstance(step, KernelStep) and step.is_transposed
        )

    @functools.cached_property
    def loop_steps(self) -> tuple[KernelStep, ...]:
        """The uses of kernels whose output an earlier step reads, as in a loop over time."""
        loops, read = [], set[int]()
        for step in self.steps:
            match step:
                case KernelStep():
                    if step.target in read:
                        loops.append(step)
                    read.add(step.source)
                case RuleStep():
                    read.update(step.sources)
        return tuple(loops)

    def other_matrices(self) -> Iterator[tuple[str, OtherLayer, Variable]]:
        """The weight matrices that are not kernels: a name, the entry of the layer, and the variable.

        The name is the layer's path. Where the layer has several matrices, the variable's name follows it.
        """
        for path, layer in self.others.items():
            for matrix in layer.matrices:
                is_only = len(layer.matrices) == 1
                yield path if is_only else f"{path}/{compat.variable_name(matrix)}", layer, matrix
