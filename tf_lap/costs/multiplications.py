"""How many multiply-accumulates a recipe takes: the positions that its kernels are used at, and its products.

A kernel is multiplied by what it reads at each position of what it puts out, and each of its weights takes part once at
each: so a use of a kernel takes as many multiply-accumulates as the kernel has weights, times the positions. That holds
for groups and for depthwise kernels too, whose layouts leave out the weights that are always zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tf_lap.graph.channels import Signal
from tf_lap.graph.model_graph import KernelStep, Product, Recipe, RuleStep


def count_positions(recipe: Recipe, batch_size: int) -> list[int | None]:
    """At how many positions each kernel of a recipe is used, over all its uses.

    Args:
        recipe: a recipe.
        batch_size: how many samples there are where the batch axis is open.

    Returns:
        A number for each kernel; None where a size is not known. A table that is looked up is used at none.
    """
    totals: list[int | None] = [0] * len(recipe.kernels)
    for step in recipe.steps:
        if isinstance(step, (KernelStep, RuleStep)) and step.kernel is not None:
            positions, total = _count_in_step(recipe, step, batch_size), totals[step.kernel]
            totals[step.kernel] = None if positions is None or total is None else total + positions
    return totals


def count_product(product: Product) -> int | None:
    """How many multiply-accumulates a product of tensors takes; None where a size is not known."""
    return multiply_sizes([*product.sizes, product.repeats])


def multiply_sizes(sizes: Sequence[int | None]) -> int | None:
    """The product of sizes; None where one of them is not known."""
    numbers = [size for size in sizes if size is not None]
    return math.prod(numbers) if len(numbers) == len(sizes) else None


def _count_in_step(recipe: Recipe, step: KernelStep | RuleStep, batch_size: int) -> int | None:
    """The positions of one use of a kernel."""
    target = recipe.signals[step.target]
    places = [_count_places(target, target.axes, batch_size)]
    if isinstance(step, KernelStep):
        source = recipe.signals[step.source]
        if -len(source.shape) in step.read_axes:  # a look-up reads along the batch
            return 0
        if recipe.kernels[step.kernel].layout.plain.shape[:-2] and step.read_axes:
            # A transposed convolution multiplies at each position that it reads, of which there are fewer.
            axes = [axis + len(source.shape) for axis in step.read_axes]
            places.append(_count_places(source, axes, batch_size))
    if step.repeats is None:
        return None
    sizes = [size for size in places if size is not None]
    return min(sizes) * step.repeats if len(sizes) == len(places) else None


def _count_places(signal: Signal, channel_axes: Sequence[int], batch_size: int) -> int | None:
    """How many positions a tensor has, on the axes without channels; None where one of them is open."""
    batch, *extents = signal.shape
    shape = [batch_size if batch is None else batch, *extents]
    sizes = [size for axis, size in enumerate(shape) if axis not in channel_axes]
    return multiply_sizes(sizes)
