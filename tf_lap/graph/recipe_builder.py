"""A recipe in the making: numbered tensors, kernels, and steps in topological order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Flow, Shape, Signal
from tf_lap.graph.energy_maps import EnergyMap
from tf_lap.graph.kernels import LayerKernel
from tf_lap.graph.layouts import Layout
from tf_lap.graph.model_graph import (
    BoundaryStep,
    Kernel,
    KernelStep,
    OtherLayer,
    Product,
    ProductStep,
    Recipe,
    RuleStep,
    Step,
)


class RecipeBuilder:
    """Collects what a recipe is made of.

    Attributes:
        signals: the shape and the channel axes of each tensor.
        unreached_reasons: why the kernels of a layer, and those inside it, are not reached, by the id of the layer.
        inner_reasons: why kernels inside a layer are not reached where the layer itself is followed, likewise.
        untraced: descriptions of the layers, or of the model, whose call could not be followed.
        own_code: why channels inside the layer that is being followed cannot be removed; empty where they can.
        is_resizable: whether the layer that is being followed inside takes care itself of how many channels it has.
    """

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self.unreached_reasons: dict[int, str] = {}
        self.inner_reasons: dict[int, str] = {}
        self.untraced: list[str] = []
        self.own_code = ""
        self.is_resizable = False
        self._steps: list[Step] = []
        self._kernels: list[Kernel] = []
        self._kernel_numbers: dict[int, int] = {}  # by the id of the variable
        self._looped: set[int] = set()
        self._paths: set[str] = set()
        self._products: list[Product] = []
        self._repeats: int | None = 1
        self._walls: list[tuple[int, str]] = []
        self._ties: list[tuple[tuple[int, int], ...]] = []
        self._entering: dict[int, Sequence[int | None]] = {}  # at the first call of a nested model, by its id

    @contextlib.contextmanager
    def repeating(self, times: int | None) -> Iterator[None]:
        """In the block, steps are added that a layer repeats so often in one call; None where that is not known."""
        outer = self._repeats
        self._repeats = None if outer is None or times is None else outer * times
        try:
            yield
        finally:
            self._repeats = outer

    def add_tensor(self, signal: Signal) -> int:
        """Adds a tensor, and returns its number."""
        self.signals.append(signal)
        return len(self.signals) - 1

    def add_rule_step(
        self, sources: Sequence[int], shape: Shape, flow: Flow, layer: Layer, kernel: int | None = None
    ) -> int:
        """Adds a step that applies a channel rule.

        Args:
            sources: the tensors that it reads.
            shape: the shape of the tensor that it puts out.
            flow: the resolved rule.
            layer: the layer, operation or function that has the rule.
            kernel: the number of the kernel that the rule acts with, channel by channel.

        Returns:
            The tensor that the step puts out.
        """
        target = self.add_tensor(Signal(shape, flow.axes))
        use = 0 if kernel is None else self._count_use(kernel)
        step = RuleStep(tuple(sources), target, flow.energy_map, layer, kernel, use, flow.tied, self._repeats)
        self._steps.append(step)
        for reason in filter(None, ("" if self.is_resizable else flow.fixed, self.own_code)):
            self.add_wall([*sources, target], reason)
        return target

    def add_product_step(self, left: int, right: int, energy_map: EnergyMap, is_by_head: bool = False) -> None:
        """Adds a product of two tensors; see `ProductStep`."""
        self._steps.append(ProductStep(left, right, energy_map, is_by_head or self.is_resizable))

    def note_product(self, layer: Layer, sizes: Sequence[int | None], tensor: int | None) -> None:
        """Notes a product of tensors; see `Product`."""
        self._products.append(Product(layer, tuple(sizes), tensor, self._repeats))

    def add_wall(self, tensors: Iterable[int], reason: str) -> None:
        """Notes that no channel of these tensors can be removed."""
        self._walls += [(tensor, reason) for tensor in tensors]

    def add_tie(self, places: Iterable[tuple[int, int]]) -> None:
        """Notes that these axes, each of a tensor, must stay equally long."""
        self._ties.append(tuple(places))

    def tie_calls(self, layer: Layer, entering: Sequence[int | None]) -> None:
        """Notes that all calls of a nested model read equally wide tensors: it has inputs of fixed shapes.

        Args:
            layer: the model.
            entering: the tensors that enter it in this call; None for one that carries no channels.
        """
        first = self._entering.setdefault(id(layer), entering)
        for numbers in zip(first, entering, strict=True) if first is not entering else ():
            tensors = [number for number in numbers if number is not None]
            axes = {axis for tensor in tensors for axis in self.signals[tensor].axes}
            if len(tensors) == len(numbers):
                for axis in sorted(axes):
                    self.add_tie((tensor, axis) for tensor in tensors)

    def tie_attention(self, first_step: int, is_as_wide: bool) -> None:
        """Notes that an attention layer, whose steps begin at `first_step`, has as many heads of queries as of values.

        Its first kernel puts queries out, and its last one reads what values were averaged to. Heads lie on the last
        axis but one.

        Args:
            first_step: the number of its first step.
            is_as_wide: whether its output is as wide as its queries, without a setting of its own.
        """
        steps = [step for step in self._steps[first_step:] if isinstance(step, KernelStep)]
        if len(steps) > 1:
            tensors = (steps[0].target, steps[-1].source)
            self.add_tie((tensor, len(self.signals[tensor].shape) - 2) for tensor in tensors)
            if is_as_wide:
                ends = (steps[0].source, steps[-1].target)
                self.add_tie((tensor, len(self.signals[tensor].shape) - 1) for tensor in ends)

    def count_steps(self) -> int:
        """How many steps there are so far."""
        return len(self._steps)

    def add_boundary_step(self, sources: Sequence[int], shapes: Sequence[Shape], reason: str) -> list[int]:
        """Adds a boundary.

        Args:
            sources: the tensors that end there.
            shapes: the shapes of the tensors that begin there.
            reason: why channels cannot be followed.

        Returns:
            The tensors that begin there. Their channels are all alike.
        """
        targets = [self.add_tensor(Signal(shape)) for shape in shapes]
        self._steps.append(BoundaryStep(tuple(sources), tuple(targets), reason))
        self.add_wall([*sources, *targets], reason)
        return targets

    def add_kernel_step(
        self, kernel: int, source: int, signal: Signal, is_transposed: bool = False, read_axes: tuple[int, ...] = ()
    ) -> int:
        """Adds a use of a kernel.

        Args:
            kernel: the kernel's number.
            source: the tensor that it reads.
            signal: the shape and the channel axes of the tensor that it puts out.
            is_transposed: as in `KernelStep`.
            read_axes: likewise.

        Returns:
            The tensor that it puts out.
        """
        target = self.add_tensor(signal)
        use = self._count_use(kernel)
        self._steps.append(KernelStep(kernel, use, source, target, is_transposed, read_axes, self._repeats))
        if self.own_code:
            self.add_wall([source, target], self.own_code)
        return target

    def close_loop(self, kernel: int, source: int, target: int) -> None:
        """Adds a use of a kernel whose output was read before: that of the time step before.

        Args:
            kernel: the kernel's number.
            source: the tensor that it reads.
            target: the tensor that it puts out, which steps before this one read.
        """
        self._looped.add(target)
        self._steps.append(KernelStep(kernel, self._count_use(kernel), source, target, repeats=self._repeats))

    def _count_use(self, kernel: int) -> int:
        """Counts a use of a kernel, and returns its number."""
        uses = self._kernels[kernel].uses
        self._kernels[kernel] = dataclasses.replace(self._kernels[kernel], uses=uses + 1)
        return uses

    def add_kernel(self, path: str, layer: Layer, kernel: LayerKernel, unreached_reason: str | None = None) -> int:
        """Adds a kernel of a layer, without uses, and returns its number.

        Args:
            path: the path that it is known by; a number is added where another kernel has it.
            layer: the layer.
            kernel: the kernel.
            unreached_reason: why no step reaches it; None where one does.
        """
        number = self._kernel_numbers[id(kernel.variable)] = len(self._kernels)
        path = self.make_unique(path)
        self._kernels.append(Kernel(path, layer, kernel.variable, kernel.layout, 0, unreached_reason, kernel.is_opt_in))
        return number

    def find_kernel(self, variable: Variable) -> int | None:
        """The number of a kernel, or None where it was not added."""
        return self._kernel_numbers.get(id(variable))

    def note_user(self, kernel: int, layer: Layer) -> None:
        """Notes that a layer uses a kernel, which is another layer's where both share it."""
        if layer is not self._kernels[kernel].layer:
            self._kernels[kernel] = dataclasses.replace(self._kernels[kernel], is_tied=True)

    def find_layout(self, kernel: int) -> Layout:
        """How a kernel lies in memory, by its number."""
        return self._kernels[kernel].layout

    def make_unique(self, path: str) -> str:
        """A path that no other layer has: layers in a list of a custom layer may share a name, so they are numbered."""
        number, unique = 2, path
        while unique in self._paths:
            unique, number = f"{path}:{number}", number + 1
        self._paths.add(unique)
        return unique

    def build(
        self, inputs: dict[int, str], outputs: Sequence[tuple[int, str]], others: dict[str, OtherLayer]
    ) -> Recipe:
        """The recipe.

        Args:
            inputs: the tensors that enter the network, and their names.
            outputs: the tensors that leave it, and their names.
            others: layers with weight matrices that are not kernels, by path.
        """
        steps = self._select_steps(tensor for tensor, _ in outputs)
        selected = set(map(id, steps))
        return Recipe(
            tuple(self._kernels),
            tuple(steps),
            inputs,
            tuple(outputs),
            tuple(self.signals),
            others,
            tuple(step for step in self._steps if isinstance(step, RuleStep) and id(step) not in selected),
            tuple(self._ties),
            (*inputs.items(), *outputs, *self._walls),
            tuple(self.untraced),
            tuple(self._products),
        )

    def _select_steps(self, outputs: Iterable[int]) -> list[Step]:
        """The steps that lead to a kernel or to an end of the network; those that only make masks and shapes do not.

        A use of a kernel always stays. One whose output leads to neither gets a boundary with a reason behind it.
        """
        needed, steps = {*outputs, *self._looped}, list[Step]()
        for step in reversed(self._steps):
            match step:
                case KernelStep():
                    if step.target not in needed:
                        steps.append(BoundaryStep((step.target,), (), self._explain_unread(step.kernel)))
                    needed.add(step.source)
                    steps.append(step)
                case RuleStep():
                    if step.target not in needed and step.kernel is not None:
                        steps.append(BoundaryStep((step.target,), (), self._explain_unread(step.kernel)))
                    if step.target in needed or step.kernel is not None:
                        needed.update(step.sources)
                        steps.append(step)
                case ProductStep():
                    needed.update((step.left, step.right))
                    steps.append(step)
                case BoundaryStep():
                    if not step.targets or needed.intersection(step.targets):
                        needed.update(step.sources)
                        steps.append(step)
        return steps[::-1]

    def _explain_unread(self, number: int) -> str:
        kernel = self._kernels[number]
        description = f"{type(kernel.layer).__name__} {kernel.path!r}"
        return f"{description}: nothing reads what it puts out but as a mask, a bound or a shape"
