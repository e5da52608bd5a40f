"""Rules of layers that take several steps: products of tensors, several kernels, loops over time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.arguments import read_constant_shape
from tf_lap.graph.channels import Boundary, Flow, Shape, Signal, format_axes, format_shape
from tf_lap.graph.energy_maps import EnergyMap, Gather, Identity
from tf_lap.graph.flows import align_to_axes, sum_signals
from tf_lap.graph.kernels import ChannelAxes, LayerKernel, find_format_axes, find_matrix_layout
from tf_lap.graph.layer_rules import explain_normalizing
from tf_lap.graph.layouts import Layout
from tf_lap.graph.recipe_builder import RecipeBuilder

Target = int | None
"""A tensor that a layer puts out, by its number; None for one that carries no channels."""


@dataclasses.dataclass(frozen=True)
class LayerSteps:
    """One call of a layer, and what its rule adds steps to the recipe with.

    Attributes:
        call: the call.
        path: the layer's path.
        numbers: the numbers of the tensors that the call may read; None for one that carries no channels.
        builder: the recipe.
    """

    call: compat.LayerCall
    path: str
    numbers: Mapping[compat.Tensor, int | None]
    builder: RecipeBuilder

    @property
    def layer(self) -> Layer:
        """The layer that is called."""
        return self.call.layer

    def argument(self, name: str) -> Any:
        """An argument of the call; None where it has none of the name."""
        return self.call.arguments.get(name)

    def source(self, argument: Any) -> int | None:
        """The number of the tensor that an argument is; None where it carries no channels."""
        return self.numbers[argument] if isinstance(argument, compat.Tensor) else None

    def signal(self, tensor: int) -> Signal:
        """The shape and the channel axes of a tensor."""
        return self.builder.signals[tensor]

    def read(self, argument: Any) -> int:
        """The number of the tensor that an argument is, behind a boundary where it carries no channels."""
        source = self.source(argument)
        if source is not None:
            return source
        description = f"{type(self.layer).__name__} {self.path!r}"
        reason = f"{description}: what it reads carries no channels: a mask, a shape or a comparison"
        shape = argument.shape if isinstance(argument, compat.Tensor) else read_constant_shape(argument)
        return self.begin(shape or self.call.inputs[0].shape, reason)

    def apply(self, sources: Sequence[int], shape: Shape, flow: Flow, kernel: LayerKernel | None = None) -> int:
        """Adds a step that turns the energies of tensors into those of a new one, and returns the new one.

        Args:
            sources: the tensors that it reads.
            shape: the shape of the new tensor.
            flow: what becomes of their energies.
            kernel: the kernel that does it, channel by channel.
        """
        number = None if kernel is None else self._add_kernel(kernel)
        return self.builder.add_rule_step(sources, shape, flow, self.layer, number)

    def multiply(self, left: int, right: int, energy_map: EnergyMap, is_by_head: bool = False) -> None:
        """Adds the product of two tensors: each is read by what is put into the other.

        Args:
            left: a tensor.
            right: another.
            energy_map: turns the incoming energy of `right` into what is read of `left`, and its transpose the reverse.
            is_by_head: as in `ProductStep`.
        """
        self.builder.add_product_step(left, right, energy_map, is_by_head)

    def note_product(self, sizes: Sequence[int | None], tensor: int | None) -> None:
        """Notes a product of tensors.

        Args:
            sizes: the sizes of all axes that it runs over; None for one that is not known.
            tensor: the number of one of the tensors, whose channels lie on these axes; None where none has any.
        """
        self.builder.note_product(self.layer, sizes, tensor)

    def begin(self, shape: Shape, reason: str) -> int:
        """A tensor whose channels are all alike, behind a boundary."""
        (tensor,) = self.builder.add_boundary_step([], [shape], reason)
        return tensor

    def wall(self, tensors: Sequence[int], reason: str) -> None:
        """Notes why no channel of these tensors can be removed; nothing where the reason is empty."""
        if reason and not self.builder.is_resizable:
            self.builder.add_wall(tensors, f"{type(self.layer).__name__} {self.path!r}: {reason}")

    def end(self, tensor: int, reason: str) -> None:
        """A boundary behind a tensor."""
        self.builder.add_boundary_step([tensor], [], reason)

    def close_loop(self, kernel: LayerKernel, source: int, target: int) -> None:
        """Adds a use of a kernel in a loop over time.

        Args:
            kernel: the kernel.
            source: the tensor that it reads, of the time step before.
            target: the tensor that it puts out. Steps before this one read it.
        """
        self.builder.close_loop(self._add_kernel(kernel), source, target)

    def use_kernel(
        self, kernel: LayerKernel, source: int, axes: ChannelAxes, shape: Shape, is_transposed: bool = False
    ) -> int:
        """Adds a use of a kernel of the layer.

        Args:
            kernel: the kernel.
            source: the tensor that it reads.
            axes: the axes of its channels, in that tensor and in the one that it puts out.
            shape: the shape of the tensor that it puts out.
            is_transposed: whether it reads the kernel's outputs and puts out its inputs.

        Returns:
            The tensor that it puts out.
        """
        signal = self.signal(source)
        _check_shared(self.builder, kernel)
        _check_widths(kernel, signal.shape, axes, shape, is_transposed)
        order = sorted(range(len(axes.outputs)), key=lambda place: axes.outputs[place])
        sizes = Signal(shape, axes.outputs).sizes() if order != list(range(len(order))) else ()
        try:
            flow = align_to_axes(signal, axes.inputs, "reads channels along")
        except Boundary as boundary:
            reason = f"{type(self.layer).__name__} {self._find_path(kernel)!r}: {boundary}"
            (source,) = self.builder.add_boundary_step([source], [signal.shape], reason)
        else:
            if flow.axes != signal.axes or not isinstance(flow.energy_map, Identity):
                source = self.apply([source], signal.shape, flow)
        number = self._add_kernel(kernel)
        if self.builder.find_layout(number) != kernel.layout:  # another layer has the kernel too
            is_transposed = not is_transposed
        read_axes = tuple(axis - len(signal.shape) for axis in axes.inputs)
        target = self.builder.add_kernel_step(number, source, Signal(shape, axes.outputs), is_transposed, read_axes)
        self.wall([target], explain_normalizing(self.layer, axes.outputs, len(shape)))
        if not sizes:
            return target
        by_place = [shape[axis] or 1 for axis in axes.outputs]
        swap = Gather.of(by_place, lambda numbers: numbers.transpose(order))
        return self.apply([target], shape, Flow(tuple(sorted(axes.outputs)), swap))

    def _add_kernel(self, kernel: LayerKernel) -> int:
        """The number of a kernel of the layer, which is added where it is new."""
        number = self.builder.find_kernel(kernel.variable)
        if number is None:
            return self.builder.add_kernel(self._find_path(kernel), self.layer, kernel)
        self.builder.note_user(number, self.layer)
        return number

    def _find_path(self, kernel: LayerKernel) -> str:
        return f"{self.path}/{kernel.name}" if kernel.name else self.path


def find_no_kernels(layer: Layer) -> list[LayerKernel]:
    """The kernels of an operation: none."""
    return []


@dataclasses.dataclass(frozen=True)
class CompositeRule:
    """A rule that adds its own steps.

    Attributes:
        follow: adds the steps of a call, and returns what it puts out. It may raise Boundary before it adds any.
        find_kernels: given a layer, its kernels.
        signal_range: as in `ChannelRule`.
    """

    follow: Callable[[LayerSteps], list[Target]]
    find_kernels: Callable[[Layer], list[LayerKernel]] = find_no_kernels
    signal_range: tuple[int, int | None] = (0, None)

    @property
    def has_kernels(self) -> bool:
        """Whether layers of the class have kernels."""
        return self.find_kernels is not find_no_kernels

    def find_obstacle(self, layer: Layer) -> str | None:
        """Why the layer's kernels cannot be pruned at the moment, or None where they can, or it has none."""
        if not self.has_kernels:
            return None
        if not layer.built:
            return "the layer is not built"
        if not all(compat.is_kernel_variable(kernel.variable) for kernel in self.find_kernels(layer)):
            return "its kernel is not a floating-point variable (LoRA or quantization is on): prune before it"
        return None


def make_kernel_rule(
    find_layout: Callable[[Layer, tuple[int, ...]], Layout] = find_matrix_layout,
    find_axes: Callable[[Layer, int, int], ChannelAxes] = find_format_axes,
) -> CompositeRule:
    """The rule of layers whose attribute `kernel` is their only kernel, which reads the first argument of a call.

    Args:
        find_layout: given a layer and its kernel's shape, how the kernel lies in memory.
        find_axes: given a layer, and how many axes its input and its output have, the axes of the kernel's channels.
    """

    def find_kernels(layer: Layer) -> list[LayerKernel]:
        return [LayerKernel("", layer.kernel, find_layout(layer, tuple(layer.kernel.shape)))]

    def follow(steps: LayerSteps) -> list[Target]:
        (kernel,) = find_kernels(steps.layer)
        tensor, *_ = (*next(iter(steps.call.tensors.values())), None)
        source, output = steps.read(tensor), steps.call.outputs[0].shape
        axes = find_axes(steps.layer, len(steps.signal(source).shape), len(output))
        return [steps.use_kernel(kernel, source, axes, output)]

    return CompositeRule(follow, find_kernels, (0, 1))


def _check_shared(builder: RecipeBuilder, kernel: LayerKernel) -> None:
    """Raises Boundary where another layer has the kernel too, and reads neither as this one does nor the reverse."""
    number = builder.find_kernel(kernel.variable)
    if number is not None:
        layout = builder.find_layout(number)
        reverse = dataclasses.replace(layout, swapped=not layout.swapped)
        if kernel.layout not in (layout, reverse):
            raise Boundary("another layer has its kernel too, and reads other axes of it")


def _check_widths(kernel: LayerKernel, source: Shape, axes: ChannelAxes, target: Shape, is_transposed: bool) -> None:
    """Raises Boundary where a kernel has another number of channels than the tensors on either side of it."""
    widths = (
        (kernel.layout.outputs, kernel.layout.inputs)
        if is_transposed
        else (kernel.layout.inputs, kernel.layout.outputs)
    )
    for width, shape, places, verb in (
        (widths[0], source, axes.inputs, "reads"),
        (widths[1], target, axes.outputs, "puts out"),
    ):
        sizes = [shape[place] for place in places if place > 0]  # a look-up reads along the batch
        extents = [size for size in sizes if size is not None]
        if sizes and len(extents) == len(sizes) and math.prod(extents) != width:
            raise Boundary(
                f"its kernel of shape {kernel.layout.shape} {verb} {width} channels, and the tensor of shape "
                f"{format_shape(shape)} has {math.prod(extents)} on {format_axes(places)}; "
                "tf_lap.register_kernel says which axes of a kernel are what"
            )


def follow_side_by_side(steps: LayerSteps, uses: Sequence[tuple[LayerKernel, ChannelAxes]]) -> list[Target]:
    """Kernels that all read the first input of a layer; what they put out is added up, and is its first output.

    Other inputs end at a boundary, and other outputs begin at one.

    Args:
        steps: what steps are added with.
        uses: the kernels, and the axes of their channels in the first input and in the first output.

    Raises:
        Boundary: kernels put channels out on different axes.
    """
    first, shape = steps.call.inputs[0], steps.call.outputs[0].shape
    flow = sum_signals([Signal(shape, axes.outputs) for _, axes in uses], len(shape))
    reason = (
        f"{type(steps.layer).__name__} {steps.path!r}: its kernels read its first input and put out its first output"
    )
    source = steps.read(first)
    targets = [steps.use_kernel(kernel, source, axes, shape) for kernel, axes in uses]
    target = targets[0] if len(targets) == 1 else steps.apply(targets, shape, flow)
    end_inputs(steps, reason, [first])
    return begin_outputs(steps, reason, [target])


def end_inputs(steps: LayerSteps, reason: str, read: Sequence[compat.Tensor]) -> None:
    """Ends the inputs of a layer that carry channels, but for those that are read, at a boundary."""
    tensors = {
        tensor for name, tensors in steps.call.tensors.items() if not compat.is_mask_name(name) for tensor in tensors
    }
    for tensor in steps.call.inputs:
        source = steps.source(tensor)
        if source is not None and tensor in tensors and tensor not in read:
            steps.end(source, reason)


def begin_outputs(steps: LayerSteps, reason: str, targets: Sequence[int]) -> list[Target]:
    """The outputs of a layer: `targets` first, and the others at a boundary."""
    return [*targets, *(steps.begin(tensor.shape, reason) for tensor in steps.call.outputs[len(targets) :])]
