"""Kernels of users' own layers, whose axes `register_kernel` says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Boundary, Shape, format_shape
from tf_lap.graph.composite import CompositeRule, LayerSteps, Target, follow_side_by_side
from tf_lap.graph.kernels import ChannelAxes, LayerKernel
from tf_lap.graph.layouts import Layout
from tf_lap.graph.registry import RULES

Axes: TypeAlias = int | Sequence[int]
"""An axis, counted from the front or, where negative, from the end; or several of them."""

_ROLES = "'i' for inputs, 'o' for outputs, 'g' for groups, 't' for taps"


def register_kernel(
    layer_class: type,
    variable: str,
    roles: str | None = None,
    *,
    inputs: Axes | None = None,
    outputs: Axes | None = None,
    input_axis: Axes = -1,
    output_axis: Axes = -1,
) -> None:
    """Registers a kernel of a custom layer class and its subclasses: a variable, and what its axes are.

    The kernel reads the layer's first input, and what it puts out is the layer's first output, but for steps between
    that leave every channel alone, such as activations and biases. Say what each axis of the variable is by a letter:
    "i" for inputs, "o" for outputs, "t" for taps (such as the places of a window), "g" for groups (an axis that input
    and output share, as the batch axis of a product of matrices). Or give the axes of inputs and outputs: those in
    both are groups, and those in neither are taps.

    Of a class with several kernels each call adds one. All of them read the first input, and what they put out is
    added up. The same class and variable again replaces the earlier one. A subclass has the kernels of its base
    classes too. A layer whose attribute is None lacks that kernel. A rule of the class, Keras's own or from
    `register_rule`, no longer counts: of a subclass of Dense register "kernel" too. The reverse holds as well.

    Example:

    >>> class Project(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.w = self.add_weight(shape=(shape[-1], 8), name="w")
    ...     def call(self, x):
    ...         return keras.ops.relu(keras.ops.matmul(x, self.w))
    >>> tf_lap.register_kernel(Project, "w", "io")
    >>> model = keras.Sequential([keras.Input((4,)), Project(name="project"), keras.layers.Dense(2, name="head")])
    >>> tf_lap.neighbors(model)["project"].following
    ('head',)

    A kernel `(features, heads, channels)` whose output is `(batch, positions, heads, channels)`:

    >>> tf_lap.register_kernel(Project, "w", inputs=0, outputs=(1, 2), output_axis=(-2, -1))

    Args:
        layer_class: a subclass of `keras.layers.Layer` or `tf_keras.layers.Layer`.
        variable: the attribute of the layer that holds the kernel.
        roles: a letter for each axis of the variable, such as "io", "oi", "ttio" or "goi".
        inputs: the axes of the variable that read channels; in place of `roles`.
        outputs: the axes of the variable that put channels out; in place of `roles`.
        input_axis: the axes of the layer's first input that its channels lie on, in the order of the variable's group
            axes and then of its input axes.
        output_axis: the same of the first output, in the order of the variable's group axes and then of its output
            axes.

    Raises:
        TypeError: `layer_class` is not a class, `variable` is not a name, or an axis is not a whole number.
        ValueError: roles of other letters, without inputs or outputs, or neither roles nor axes. Where roles and axes
            do not fit the variable's shape, or channels the size of a tensor, ValueError is raised when a model with
            the layer is resolved, before anything changes.
    """
    if not isinstance(layer_class, type):
        raise TypeError(
            f"register_kernel takes a layer class, got {layer_class!r}: write register_kernel(MyLayer, 'w', 'io')"
        )
    if not isinstance(variable, str):
        raise TypeError(f"variable={variable!r}: expected the name of an attribute of {layer_class.__name__}")
    kernel = _UserKernel(
        description=f"register_kernel({layer_class.__name__}, {variable!r}, ...)",
        variable=variable,
        roles=roles,
        inputs=None if inputs is None else _as_axes("inputs", inputs),
        outputs=None if outputs is None else _as_axes("outputs", outputs),
        input_axes=_as_axes("input_axis", input_axis),
        output_axes=_as_axes("output_axis", output_axis),
    )
    kernel.check()
    if RULES.get(layer_class) is not _RULE:
        _KERNELS[layer_class] = {}
        RULES[layer_class] = _RULE
    _KERNELS[layer_class][variable] = kernel


def _as_axes(argument: str, axes: Axes) -> tuple[int, ...]:
    several: list[Any] = list(axes) if isinstance(axes, (list, tuple)) else [axes]
    if not all(isinstance(axis, (int, np.integer)) and not isinstance(axis, bool) for axis in several):
        raise TypeError(f"{argument}={axes!r}: expected an axis, or a tuple of axes")
    return tuple(map(int, several))


@dataclasses.dataclass(frozen=True)
class _UserKernel:
    """A kernel that was registered; the arguments of `register_kernel`, and what they were, for messages."""

    description: str
    variable: str
    roles: str | None
    inputs: tuple[int, ...] | None
    outputs: tuple[int, ...] | None
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]

    def check(self) -> None:
        """Checks what needs no layer.

        Raises:
            ValueError: as `register_kernel`.
        """
        axes_given = (self.inputs is not None, self.outputs is not None)
        if (self.roles is None and axes_given != (True, True)) or (self.roles is not None and any(axes_given)):
            raise ValueError(
                f"{self.description} got roles={self.roles!r}, inputs={self.inputs}, outputs={self.outputs}: give a "
                "letter for each axis, such as 'io', or both inputs= and outputs="
            )
        roles = self.roles
        if roles is not None and not (set(roles) <= set("iotg") and set(roles) & set("ig") and set(roles) & set("og")):
            raise ValueError(
                f"{self.description} got roles={roles!r}: expected a letter for each axis, {_ROLES}, with an input and "
                "an output, or a group, among them"
            )

    def find_layout(self, shape: tuple[int, ...], path: str) -> Layout:
        """The layout of the variable.

        Args:
            shape: its shape.
            path: the layer's path, for messages.

        Raises:
            ValueError: roles or axes do not fit the shape.
        """
        rank, start = len(shape), f"layer {path!r}: {self.description} does not fit {self.variable!r} of shape {shape}"
        if self.roles is not None:
            if len(self.roles) != rank:
                raise ValueError(f"{start}: roles={self.roles!r}, expected {rank} letters, {_ROLES}")
            return Layout.of(shape, self.roles)
        inputs, outputs = (
            _find_places(axes or (), rank, 0, f"{start}: {argument}={axes}")
            for argument, axes in (("inputs", self.inputs), ("outputs", self.outputs))
        )
        places = range(rank)
        return Layout.of_axes(shape, (axis in inputs for axis in places), (axis in outputs for axis in places))

    def find_axes(self, layout: Layout, path: str, input_shape: Shape, output_shape: Shape) -> ChannelAxes:
        """The axes of the kernel's channels in what it reads and in what it puts out.

        Raises:
            ValueError: there are no such axes, or they hold another number of channels than the kernel has.
        """
        sides = []
        for argument, axes, tensor, shape, channels in (
            ("input_axis", self.input_axes, "reads", input_shape, layout.inputs),
            ("output_axis", self.output_axes, "puts out", output_shape, layout.outputs),
        ):
            start = (
                f"layer {path!r}: {self.description} {tensor} {channels} channels with {self.variable!r} of shape "
                f"{layout.shape}, and the tensor that the layer {tensor} has shape {format_shape(shape)}: "
                f"{argument}={axes if len(axes) > 1 else axes[0]}"
            )
            places = _find_places(axes, len(shape), 1, start)
            sizes = [size for place in places if (size := shape[place]) is not None]
            if len(sizes) == len(places) and math.prod(sizes) != channels:
                raise ValueError(f"{start} holds {math.prod(sizes)}, expected axes that hold {channels} together")
            sides.append(places)
        return ChannelAxes(*sides)


def _find_places(axes: Sequence[int], rank: int, first: int, start: str) -> tuple[int, ...]:
    """Axes counted from the front.

    Args:
        axes: the axes.
        rank: how many there are.
        first: the first that is accepted.
        start: how a message begins.

    Raises:
        ValueError: there is no such axis, or one is named twice.
    """
    places = tuple(axis + rank if axis < 0 else axis for axis in axes)
    if not places or len(set(places)) < len(places) or not all(first <= place < rank for place in places):
        raise ValueError(f"{start}, expected different axes from {first} to {rank - 1}, or from {first - rank} to -1")
    return places


_KERNELS: dict[type, dict[str, _UserKernel]] = {}
"""The kernels of each class that has some, by the names of the variables."""


def _registered(layer: Layer) -> Mapping[str, _UserKernel]:
    """The kernels of a layer's class and of its base classes, by the names of the variables."""
    kernels: dict[str, _UserKernel] = {}
    for layer_class in reversed(type(layer).__mro__):
        if RULES.get(layer_class) is _RULE:
            kernels |= _KERNELS[layer_class]
    return kernels


def _find_variables(layer: Layer, path: str) -> list[tuple[_UserKernel, Variable]]:
    """The kernels of a layer that it has, and their variables.

    Raises:
        ValueError: the layer has no attribute of that name.
    """
    variables = []
    for name, kernel in _registered(layer).items():
        if not hasattr(layer, name):
            weights = ", ".join(f"{compat.variable_name(v)!r} {tuple(v.shape)}" for v in compat.own_weights(layer))
            raise ValueError(
                f"layer {path!r}: {kernel.description} names no attribute of the layer; "
                f"its weights are {weights or 'none'}: expected the name of the attribute that holds the variable"
            )
        variable = getattr(layer, name)
        if variable is not None:
            variables.append((kernel, variable))
    return variables


def _find_uses(layer: Layer, path: str) -> list[tuple[_UserKernel, LayerKernel]]:
    """The kernels of a layer.

    Raises:
        ValueError: one is not there, or its roles or axes do not fit it.
    """
    variables = _find_variables(layer, path)
    return [
        (user_kernel, LayerKernel(user_kernel.variable if len(variables) > 1 else "", variable, layout))
        for user_kernel, variable in variables
        for layout in [user_kernel.find_layout(tuple(variable.shape), path)]
    ]


def _find_kernels(layer: Layer) -> list[LayerKernel]:
    return [kernel for _, kernel in _find_uses(layer, layer.name)]


def _follow(steps: LayerSteps) -> list[Target]:
    """What the kernels of a layer put out is added up."""
    first, output = steps.call.inputs[0].shape, steps.call.outputs[0].shape
    uses = _find_uses(steps.layer, steps.path)
    if not uses:
        raise Boundary("has none of the kernels that are registered for its class")
    if not first or not output:
        raise Boundary("reads or puts out a tensor whose axes are not known")
    return follow_side_by_side(
        steps, [(kernel, user.find_axes(kernel.layout, steps.path, first, output)) for user, kernel in uses]
    )


_RULE = CompositeRule(_follow, _find_kernels)


def check_user_kernels(layer: Layer, path: str) -> None:
    """Raises ValueError where a kernel that is registered for a layer's class does not fit the layer.

    Args:
        layer: any layer.
        path: its path.
    """
    if layer.built:
        _find_uses(layer, path)
